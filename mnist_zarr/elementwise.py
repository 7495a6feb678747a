"""Formulas of one value, applied to arrays that stay as lazy as they were."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core import indexing

from mnist_zarr.backend import LazyRows

# float64 values to float64 values, each on its own. Must be picklable.
Formula = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

# So many values are float64 (or positions in a table) at a time.
PIECE_VALUES = 1 << 17
# What tells how a variable is best read, and stays true when its values change.
KEPT_ENCODING = ("preferred_chunks", "seeks_cheaply")


def map_values(variable: xr.Variable, formula: Formula, dtype: np.dtype[Any]) -> xr.Variable:
    """Apply a formula to every value of a variable.

    Parameters
    ----------
    variable : xarray.Variable
        In memory, of dask, or lazy as xarray opens files without dask: the
        result is the same.
    formula : callable
        From float64 values to float64 values.
    dtype : numpy.dtype
        Of the result: its values are rounded to it.

    Returns
    -------
    xarray.Variable
        Of the same dimensions and attributes.
    """
    apply = _Application(formula, dtype)
    data: Any
    if variable.chunks is not None:
        data = variable.data.map_blocks(
            apply, dtype=dtype, meta=np.empty((0,) * variable.ndim, dtype)
        )
    # xarray has no public way to ask whether `.data` would read a file.
    elif variable._in_memory or not variable.ndim:
        data = apply(np.asarray(variable.values))
    else:
        rows = LazyRows(variable.shape, dtype, _MappedRows(variable, apply))
        data = indexing.LazilyIndexedArray(rows)
    mapped = xr.Variable(variable.dims, data, variable.attrs)
    mapped.encoding = {
        name: value for name, value in variable.encoding.items() if name in KEPT_ENCODING
    }
    return mapped


class _Application:
    """A formula with the type of its result, applied a piece at a time."""

    def __init__(self, formula: Formula, dtype: np.dtype[Any]) -> None:
        self.__name__ = type(formula).__name__  # by which dask calls its tasks
        self._formula = formula
        self._dtype = dtype

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = np.empty(values.shape, self._dtype)
        flat, flat_result = values.reshape(-1), result.reshape(-1)
        convert = self._convert
        if values.dtype.kind in "iu" and values.dtype.itemsize == 1:
            # There are 256 values only: look the results up. Clip does nothing to an
            # index of one byte, and spares the copy that the default mode makes.
            table = self._convert(np.arange(256, dtype=np.uint8).view(values.dtype))
            flat, convert = flat.view(np.uint8), functools.partial(table.take, mode="clip")
        for start in range(0, flat.size, PIECE_VALUES):
            piece = slice(start, start + PIECE_VALUES)
            convert(flat[piece], out=flat_result[piece])
        return result

    def _convert(
        self, values: npt.NDArray[Any], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        if out is None:
            out = np.empty(values.shape, self._dtype)
        out[...] = self._formula(values.astype(np.float64))
        return out


class _MappedRows:
    """The rows of a lazy variable, with a function applied when they are read."""

    def __init__(
        self, variable: xr.Variable, apply: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> None:
        self._variable = variable
        self._apply = apply

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        return self._apply(self._variable[start:stop].values)

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return self._apply(self._variable[rows].values)
