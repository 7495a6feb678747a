"""Formulas of one value, applied to arrays that stay as lazy as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core import indexing

from mnist_zarr.backend import LazyRows

# float64 values to float64 values, each on its own. Must be picklable.
Formula = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

# So many values are float64 at a time.
PIECE_VALUES = 1 << 17
# numpy makes a position of eight bytes of every index: so many stay in the cache.
LOOKED_UP_VALUES = 1 << 15
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
        flat, flat_result = np.ascontiguousarray(values).reshape(-1), result.reshape(-1)
        if values.dtype.kind in "iu" and values.dtype.itemsize == 1:
            # There are 256 values only: look the results up.
            table = self._convert(np.arange(256, dtype=np.uint8).view(values.dtype))
            _look_up(table, flat.view(np.uint8), flat_result)
            return result
        for start in range(0, flat.size, PIECE_VALUES):
            piece = slice(start, start + PIECE_VALUES)
            self._convert(flat[piece], out=flat_result[piece])
        return result

    def _convert(
        self, values: npt.NDArray[Any], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        if out is None:
            out = np.empty(values.shape, self._dtype)
        out[...] = self._formula(values.astype(np.float64))
        return out


def _look_up(
    table: npt.NDArray[Any], indices: npt.NDArray[np.uint8], result: npt.NDArray[Any]
) -> None:
    """Fill ``result`` with ``table[indices]``."""
    if indices.size >= PIECE_VALUES and indices.size % 2 == 0:
        # Two neighbours at a time, which halves the number of lookups: the table of all pairs.
        table = np.stack(np.broadcast_arrays(table, table[:, None]), axis=-1).reshape(-1, 2)
        indices, result = indices.view("<u2"), result.reshape(-1, 2)
    for start in range(0, indices.size, LOOKED_UP_VALUES):
        piece = slice(start, start + LOOKED_UP_VALUES)
        # Clip does nothing to these indices, and spares the copy that the default mode makes.
        table.take(indices[piece], axis=0, out=result[piece], mode="clip")


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
