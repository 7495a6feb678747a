"""Which parts of a shard a selection needs, and in which requests they come.

zarr-python gives its default pipeline the chunks in a shard: since 3.4 in merged ranges, before
in a request each; and it takes those that are missing for blank.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

# Chunks that lie as close as this come in one request, of which each is bounded.
MAX_GAP_BYTES = 1 << 20
MAX_RANGE_BYTES = 16 << 20


def has_known_index(codec: ShardingCodec) -> bool:
    """Whether shards have their index at the end, little-endian and with a checksum."""
    kinds = [type(index_codec) for index_codec in codec.index_codecs]
    endian = getattr(codec.index_codecs[0], "endian", None) if kinds else None
    is_little = getattr(endian, "value", endian) == "little"
    at_end = getattr(codec.index_location, "value", codec.index_location) == "end"
    return kinds == [BytesCodec, Crc32cCodec] and is_little and at_end


@dataclass(frozen=True)
class ShardChunk:
    """A chunk in a shard, whose bytes have been read: a ``ByteGetter`` of Zarr.

    Attributes
    ----------
    store, path : str
        What messages call it.
    stored : zarr.abc.buffer.Buffer
        Its bytes.
    """

    store: str
    path: str
    stored: Buffer

    async def get(self, prototype: BufferPrototype, byte_range: Any = None) -> Buffer:
        """Return the bytes."""
        return self.stored


@dataclass(frozen=True)
class Part:
    """What is wanted of a chunk in a shard.

    Attributes
    ----------
    index : tuple of int
        Which chunk of the shard.
    wanted : tuple of slice
        What of the chunk.
    place : tuple of slice
        Where that goes in the box.
    """

    index: tuple[int, ...]
    wanted: tuple[slice, ...]
    place: tuple[slice, ...]


class Box:
    """The stretch of a shard, along each dimension, in which all that is wanted of it lies.

    Parameters
    ----------
    wanted : tuple
        Of each dimension an integer, a slice or an array of integers, all from 0 on.
    shape, chunk_shape : tuple of int
        Of the shard, and of the chunks in it.
    """

    def __init__(
        self, wanted: tuple[Any, ...], shape: tuple[int, ...], chunk_shape: tuple[int, ...]
    ) -> None:
        self._wanted = [
            range(n)[axis] if isinstance(axis, slice) else axis
            for axis, n in zip(wanted, shape, strict=True)
        ]
        self._chunk_shape = chunk_shape
        bounds = list(map(_bounds, self._wanted))
        self._starts = [start for start, _ in bounds]
        self.shape = tuple(stop - start for start, stop in bounds)

    @property
    def is_wanted_whole(self) -> bool:
        """Whether everything in the box is wanted, in its order."""
        return all(isinstance(axis, range) and axis.step == 1 for axis in self._wanted)

    @property
    def wanted(self) -> tuple[Any, ...]:
        """What of the box is wanted."""
        return tuple(
            slice(axis.start - start, axis.stop - start, axis.step)
            if isinstance(axis, range)
            else axis - start
            for axis, start in zip(self._wanted, self._starts, strict=True)
        )

    def parts(self) -> Iterator[Part]:
        """Yield the parts of chunks in the box, of those that hold something that is wanted."""
        numbers = [
            _chunks_of(axis, size)
            for axis, size in zip(self._wanted, self._chunk_shape, strict=True)
        ]
        for index in itertools.product(*numbers):
            wanted, place = [], []
            for number, size, start, length in zip(
                index, self._chunk_shape, self._starts, self.shape, strict=True
            ):
                first = max(number * size, start)
                stop = min((number + 1) * size, start + length)
                wanted.append(slice(first - number * size, stop - number * size))
                place.append(slice(first - start, stop - start))
            yield Part(index, tuple(wanted), tuple(place))


def _bounds(axis: range | npt.NDArray[Any] | int) -> tuple[int, int]:
    if isinstance(axis, range):
        return (axis[0], axis[-1] + 1) if axis else (0, 0)
    return (int(np.min(axis)), int(np.max(axis)) + 1) if np.size(axis) else (0, 0)


def _chunks_of(axis: range | npt.NDArray[Any] | int, size: int) -> list[int]:
    if isinstance(axis, range) and axis and axis.step <= size:
        return list(range(axis[0] // size, axis[-1] // size + 1))
    chunks: list[int] = np.unique(np.asarray(axis) // size).tolist()
    return chunks


def merge_ranges(ranges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Group ranges of bytes, each its first byte and length, that come in one request.

    Returns
    -------
    list of list of int
        The numbers of the ranges in each group, ascending by their first byte.

    Examples
    --------
    >>> merge_ranges([(100, 10), (0, 100), (9_000_000, 5)])
    [[1, 0], [2]]
    """
    groups: list[list[int]] = []
    first = stop = 0
    for number in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, size = ranges[number]
        end = max(stop, start + size)
        if not groups or start - stop > MAX_GAP_BYTES or end - first > MAX_RANGE_BYTES:
            groups.append([])
            first, end = start, start + size
        groups[-1].append(number)
        stop = end
    return groups
