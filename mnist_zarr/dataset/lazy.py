"""Arrays whose values are made on demand, and formulas applied to lazy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from mnist_zarr.dataset.schema import STRING_DTYPE


class SampleReader(Protocol):
    """What makes the rows of a :class:`LazyRows`. Must be picklable."""

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""

    def take_samples(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers, in any order and with repeats."""


class LazySamples(BackendArray):
    """An array whose rows are made on demand.

    To be wrapped in xarray's LazilyIndexedArray, which makes negative indices positive.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], reader: SampleReader) -> None:
        self.shape = shape
        self.dtype = dtype
        self.reader = reader

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )
        # The adapter fails on an empty slice of negative step; nothing else needs it here.
        return self._read(key.tuple)

    def _read(self, key: tuple[Any, ...]) -> Any:
        if not self.shape:
            return self.reader.read_samples(0, 1)[0]
        rows, *others = key
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(self.shape[0])
            array = self.reader.read_samples(start, max(start, stop))
        elif isinstance(rows, slice):
            array = self.reader.take_samples(np.arange(self.shape[0])[rows])
        elif isinstance(rows, np.ndarray):
            array = self.reader.take_samples(rows)
        else:
            array = self.reader.read_samples(int(rows), int(rows) + 1)
        for axis, other in reversed(list(enumerate(others, start=1))):
            array = array[(slice(None),) * axis + (other,)]
        # The dots keep a single string an array of its type.
        return array if isinstance(rows, slice | np.ndarray) else array[0, ...]


class RepeatedValues:
    """Rows that repeat each of some strings a number of times."""

    def __init__(self, values: Sequence[str], counts: Sequence[int]) -> None:
        self._values = np.asarray(values, dtype=STRING_DTYPE)
        self._ends = np.cumsum(counts)

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        # Slice by slice: to take strings one by one takes ten times as long.
        rows = np.empty(stop - start, dtype=STRING_DTYPE)
        begin = 0
        for value, end in zip(self._values, self._ends.tolist(), strict=True):
            rows[max(begin - start, 0) : max(end - start, 0)] = value
            begin = end
        return rows

    def take_samples(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return self._values[np.searchsorted(self._ends, rows, side="right")]


class SampleNumbers:
    """The rows 0, 1, 2, ..."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        return np.arange(start, stop, dtype=self._dtype)

    def take_samples(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return rows.astype(self._dtype)


class SuggestedChunks(dict[Any, int]):
    """Chunk sizes for ``chunks={}``; to choose others separates nothing that is stored.

    xarray takes the sizes by ``get`` with a default, and asks ``get`` without one whether
    stored chunks are separated by those that the user chose, of which it would warn.
    """

    def get(self, dim: Any, default: Any = None) -> Any:
        return None if default is None else super().get(dim, default)


def lazy_array(samples: LazySamples) -> indexing.LazilyIndexedArray:
    """Return the array as data of a variable, which are made when they are asked for."""
    return indexing.LazilyIndexedArray(samples)


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
        rows = LazySamples(variable.shape, dtype, _MappedSamples(variable, apply))
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


class _MappedSamples:
    """The rows of a lazy variable, with a function applied when they are read."""

    def __init__(
        self, variable: xr.Variable, apply: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> None:
        self._variable = variable
        self._apply = apply

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        return self._apply(self._variable[start:stop].values)

    def take_samples(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return self._apply(self._variable[rows].values)
