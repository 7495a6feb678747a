"""Mean and standard deviation of many values, in one pass: of all together, or of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.blocks import iter_blocks
from mnist_zarr.dataset.formulas import PIECE_VALUES
from mnist_zarr.errors import SchemaError


def mean_and_std(
    variable: xr.Variable, *, per_pixel: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean and the standard deviation of a variable, in bounded memory.

    Every chunk is read once. The deviation is that of a population (divided by n).

    Parameters
    ----------
    variable : xarray.Variable
        In memory, lazy, or of dask; ``sample`` is the first dimension.
    per_pixel : bool
        Whether to return them for each pixel, in the shape of a sample, or as
        one number each.

    Raises
    ------
    SchemaError
        If there are no values, they are not all finite, or they are all equal.

    Examples
    --------
    >>> image = xr.Variable(("sample", "pixel"), np.array([[1, 5], [3, 5]], "uint8"))
    >>> mean_and_std(image, per_pixel=True)
    (array([2., 5.]), array([1., 0.]))
    """
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite: see squares
        moments = _moments_of(variable)
        if moments.count and not per_pixel:
            moments = moments.together()
    if not moments.count:
        raise SchemaError("image: no values to compute `mean` and `std` of; give both")
    if not np.isfinite(moments.squares).all():
        raise SchemaError("image: the values are not all finite numbers; give `mean` and `std`")
    if not np.any(moments.squares):
        raise SchemaError(
            f"image: all values are {np.ravel(moments.mean)[0]:g}, so the standard deviation is 0"
        )
    shape = variable.shape[1:] if per_pixel else ()
    std = np.sqrt(moments.squares / moments.count)
    return np.reshape(moments.mean, shape), np.reshape(std, shape)


def _moments_of(variable: xr.Variable) -> _Moments:
    if variable.chunks is None:
        return sum((_Moments.of(block) for _, block in iter_blocks(variable)), start=_Moments())
    from dask.base import compute
    from dask.delayed import delayed

    samples = variable.data.rechunk(dict.fromkeys(range(1, variable.ndim), -1))
    moments_of = cast(Any, delayed)(_Moments.of)
    parts = cast(Any, compute)(*map(moments_of, samples.to_delayed().flat))
    return sum(parts, start=_Moments())


@dataclass(frozen=True)
class _Moments:
    """Of each pixel: the number of samples, their sum, and that of their squared deviations."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0

    @property
    def mean(self) -> Any:
        return self.total / self.count

    @classmethod
    def of(cls, samples: npt.NDArray[Any]) -> _Moments:
        """Return the moments of each pixel; a piece at a time becomes float64."""
        if not samples.size:
            return cls()
        table = np.ascontiguousarray(samples).reshape(len(samples), -1)
        n_rows = max(1, PIECE_VALUES // table.shape[1])
        pieces = (table[start : start + n_rows] for start in range(0, len(table), n_rows))
        with np.errstate(invalid="ignore", over="ignore"):
            return sum(map(cls._of_piece, pieces), start=cls())

    @classmethod
    def _of_piece(cls, piece: npt.NDArray[Any]) -> _Moments:
        values = piece.astype(np.float64)
        # Of wide tables, products of matrices are twice as fast as sums along the first axis.
        ones = np.ones(len(values))
        total = ones @ values if values.shape[1] > 1 else values.sum(axis=0)
        values -= total / len(values)
        np.square(values, out=values)
        squares = ones @ values if values.shape[1] > 1 else values.sum(axis=0)
        return cls(len(values), total, squares)

    def together(self) -> _Moments:
        """Return the moments of all pixels as of one column."""
        count, total = self.count * self.total.size, self.total.sum()
        between = np.square(self.mean - total / count).sum() * self.count
        return _Moments(count, total, self.squares.sum() + between)

    def __add__(self, other: _Moments) -> _Moments:
        # T. F. Chan, G. H. Golub, R. J. LeVeque: Updating formulae and a pairwise algorithm for
        # computing sample variances. Stanford STAN-CS-79-773, 1979, equation 2.1.
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        difference = other.mean - self.mean
        between = difference * difference * (self.count / count) * other.count
        return _Moments(count, self.total + other.total, self.squares + other.squares + between)
