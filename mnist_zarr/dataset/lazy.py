"""Arrays whose values are made on demand.

The only module that uses xarray's private names, and its internals:
``xarray.core.indexing``, which its guide for backends tells authors to use;
``Variable._in_memory`` and ``._data``; and the way in which ``open_dataset`` asks for chunk
sizes (:class:`SuggestedChunks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from mnist_zarr.dataset.schema import STRING_DTYPE

# What xarray makes of data of a variable that are read on demand.
LazyArray = indexing.LazilyIndexedArray


class SampleReader(Protocol):
    """What makes the samples of a :class:`LazySamples`. Must be picklable."""

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions, in any order and with repeats."""


class LazySamples(BackendArray):
    """An array whose samples are made on demand; :func:`lazy_array` makes it data of a variable."""

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
        samples, *others = key
        if isinstance(samples, slice) and samples.step in (None, 1):
            start, stop, _ = samples.indices(self.shape[0])
            array = self.reader.read_samples(start, max(start, stop))
        elif isinstance(samples, slice):
            array = self.reader.take_samples(np.arange(self.shape[0])[samples])
        elif isinstance(samples, np.ndarray):
            array = self.reader.take_samples(samples)
        else:
            array = self.reader.read_samples(int(samples), int(samples) + 1)
        for axis, other in reversed(list(enumerate(others, start=1))):
            array = array[(slice(None),) * axis + (other,)]
        # The dots keep a single string an array of its type.
        return array if isinstance(samples, slice | np.ndarray) else array[0, ...]


def lazy_array(shape: tuple[int, ...], dtype: np.dtype[Any], reader: SampleReader) -> LazyArray:
    """Return :class:`LazySamples` as data of a variable, which also takes negative indices."""
    return LazyArray(LazySamples(shape, dtype, reader))


class RepeatedValues:
    """Samples that repeat each of some strings a number of times."""

    def __init__(self, values: Sequence[str], counts: Sequence[int]) -> None:
        self._values = np.asarray(values, dtype=STRING_DTYPE)
        self._ends = np.cumsum(counts)

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        # Slice by slice: taking strings one by one takes ten times as long.
        samples = np.empty(stop - start, dtype=STRING_DTYPE)
        begin = 0
        for value, end in zip(self._values, self._ends.tolist(), strict=True):
            samples[max(begin - start, 0) : max(end - start, 0)] = value
            begin = end
        return samples

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions."""
        return self._values[np.searchsorted(self._ends, positions, side="right")]


class SampleNumbers:
    """The samples 0, 1, 2, ..."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        return np.arange(start, stop, dtype=self._dtype)

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions."""
        return positions.astype(self._dtype)


class MappedSamples:
    """The samples of a lazy variable, with a function applied when they are read."""

    def __init__(
        self, variable: xr.Variable, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> None:
        self.variable = variable
        self.function = function

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        return self.function(self.variable[start:stop].values)

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions, in any order and with repeats."""
        return self.function(self.variable[positions].values)


class KeptSamples:
    """The samples of a lazy variable; each part of it is read once, when it is first asked for.

    Parameters
    ----------
    variable : xarray.Variable
        Of one dimension.
    part_samples : int
        Samples in a part, such as a stored chunk.
    """

    def __init__(self, variable: xr.Variable, part_samples: int) -> None:
        self._variable = variable
        self._part_samples = part_samples
        self._parts: dict[int, npt.NDArray[Any]] = {}

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        first, last = start // self._part_samples, -(-stop // self._part_samples)
        parts = [self._part(index) for index in range(first, max(first + 1, last))]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        begin = first * self._part_samples
        return samples[start - begin : stop - begin]

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions, in any order and with repeats."""
        samples = np.empty(len(positions), self._variable.dtype)
        parts = positions // self._part_samples
        for index in np.unique(parts).tolist():
            inside = parts == index
            samples[inside] = self._part(index)[positions[inside] - index * self._part_samples]
        return samples

    def _part(self, index: int) -> npt.NDArray[Any]:
        if index not in self._parts:
            start = index * self._part_samples
            self._parts[index] = self._variable[start : start + self._part_samples].values
        return self._parts[index]


def kept(variable: xr.Variable, part_samples: int) -> xr.Variable:
    """Return a lazy variable that keeps in memory what has been read of it, a part at a time."""
    reader = KeptSamples(variable, part_samples)
    data = lazy_array(variable.shape, variable.dtype, reader)
    return xr.Variable(variable.dims, data, variable.attrs, variable.encoding)


class SuggestedChunks(dict[Any, int]):
    """Chunk sizes for ``chunks={}`` of which other sizes split no stored chunk.

    For the sizes, xarray calls ``get`` with a default. It also calls ``get``
    without one, to warn that the chunks a user chose split stored ones. In
    xarray's terms these would be preferred chunks without encoded chunks.
    """

    def get(self, dim: Any, default: Any = None) -> Any:
        return None if default is None else super().get(dim, default)


def is_lazy(variable: xr.Variable) -> bool:
    """Whether ``.data`` would read a file, for which xarray has no public question."""
    return bool(variable.ndim) and not variable._in_memory and variable.chunks is None


def is_same_data(variable: xr.Variable, other: xr.Variable) -> bool:
    """Whether two variables have the very same array, so that neither was selected or changed."""
    return variable._data is other._data


def source_and_key(variable: xr.Variable) -> tuple[Any, tuple[Any, ...]]:
    """Return the array of a file or store that a lazy variable reads, and which elements of it.

    Returns
    -------
    array
        None if the variable is not lazy, or xarray decodes its values.
    tuple
        A slice, a number or positions for each dimension of that array; empty
        if the variable is not lazy, or of single points.
    """
    array, is_decoded = variable._data if is_lazy(variable) else None, False
    while array is not None and not isinstance(array, indexing.LazilyIndexedArray):
        is_single_points = isinstance(array, indexing.LazilyVectorizedIndexedArray)
        is_decoded |= not isinstance(array, indexing.MemoryCachedArray | indexing.CopyOnWriteArray)
        array = None if is_single_points else getattr(array, "array", None)
    if array is None:
        return None, ()
    return None if is_decoded else array.array, array.key.tuple


def without_selection(
    variable: xr.Variable,
) -> tuple[xr.Variable, npt.NDArray[np.int64] | None]:
    """Return all samples of the array that a lazy variable reads, and which it selects of them.

    None instead of positions that are a range already, or are not known.
    """
    array, key = source_and_key(variable)
    if array is None or isinstance(key[0], slice):
        return variable, None
    everything = indexing.OuterIndexer((slice(None), *key[1:]))
    data = indexing.LazilyIndexedArray(array, everything)
    return xr.Variable(variable.dims, data), np.asarray(key[0])
