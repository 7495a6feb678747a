"""Reading the samples of a stored array in bounded memory, and finding its damaged objects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from mnist_zarr.errors import StoreError, StoreReplacedError
from mnist_zarr.pool import open_pool
from mnist_zarr.stores.inventory import chunk_key, iter_grid, stored_grid
from mnist_zarr.stores.keys import PARALLEL_REQUESTS

BLOCK_BYTES = 16 << 20
# Larger, as each of these blocks may have to decode all chunks; and bounded in samples too, as the
# positions take several times eight bytes per sample.
SCATTERED_BLOCK_BYTES = 32 << 20
SCATTERED_BLOCK_SAMPLES = 1 << 20
# Arrays of this size are read as a whole, so that each of their chunks is decoded once.
WHOLE_BYTES = 64 << 20
# What one task reads, and what all tasks decode at the same time.
READ_BYTES = 4 << 20
DECODED_BYTES = 32 << 20
BYTES_OF_STRING = 16
# Messages of codecs may be long.
MAX_REASON = 200
Positions = npt.NDArray[np.int64]


def iter_samples(
    array: zarr.Array[Any], positions: Positions | None = None
) -> Iterator[npt.NDArray[Any]]:
    """Yield the samples of an array in blocks; an array of rank 0 has one sample.

    Parameters
    ----------
    array : zarr.Array
        The stored array.
    positions : numpy.ndarray, optional
        Shape (sample,). Which samples to yield, in which order; by default all, as stored.
    """
    if not array.ndim:
        yield np.asarray(array[...]).reshape(1)
    elif positions is None:
        step = array.chunks[0] * max(1, BLOCK_BYTES // _slab_bytes(array))
        for start in range(0, array.shape[0], step):
            yield np.asarray(array[start : start + step])
    else:
        n_bytes = len(positions) * _sample_bytes(array)
        block_bytes = n_bytes if n_bytes <= WHOLE_BYTES else SCATTERED_BLOCK_BYTES
        step = max(1, min(block_bytes // _sample_bytes(array), SCATTERED_BLOCK_SAMPLES))
        for start in range(0, len(positions), step):
            block = positions[start : start + step]
            first, last = int(block.min()), int(block.max())
            if last - first < step:
                yield from _take_in_parts(array[first : last + 1], block - first)
            else:
                yield _take(array, block)


def _take_in_parts(samples: Any, positions: Positions) -> Iterator[npt.NDArray[Any]]:
    """Yield the samples at these positions, a few at a time: one copy of them all is enough."""
    step = max(1, READ_BYTES // max(1, samples[:1].nbytes))
    for start in range(0, len(positions), step):
        yield samples[positions[start : start + step]]


def _take(array: zarr.Array[Any], positions: Positions) -> npt.NDArray[Any]:
    """Return the samples at these positions; every chunk involved is decoded once."""
    taken = np.empty((len(positions), *array.shape[1:]), array.dtype)
    by_position = np.argsort(positions, kind="stable")
    ordered = positions[by_position]
    chunks = ordered // array.chunks[0]
    reads = chunks // max(1, READ_BYTES // _slab_bytes(array))
    breaks = np.flatnonzero((np.diff(reads) > 0) | (np.diff(chunks) > 1)) + 1

    def take(first: int, last: int) -> None:
        start = int(chunks[first]) * array.chunks[0]
        samples = np.asarray(array[start : int(ordered[last - 1]) + 1])
        if last - first < len(samples):
            samples = samples[ordered[first:last] - start]
        taken[by_position[first:last]] = samples

    with open_pool(0, n_threads=_n_threads(array)) as pool:
        for first, last in itertools.pairwise([0, *breaks.tolist(), len(ordered)]):
            pool.submit(take, first, last)
    return taken


def find_damage(array: zarr.Array[Any], missing: Container[str]) -> list[tuple[str, str]]:
    """Decode chunk by chunk; return the key of each damaged object and what is wrong with it.

    Parameters
    ----------
    array : zarr.Array
        The stored array.
    missing : container of str
        The keys of objects to skip.
    """
    found: dict[tuple[int, ...], tuple[str, str]] = {}
    grid = tuple(-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True))
    stored = array.shards or array.chunks
    in_each = tuple(s // c for s, c in zip(stored, array.chunks, strict=True))

    def decode(key: str, index: tuple[int, ...]) -> None:
        starts = [i * size for i, size in zip(index, array.chunks, strict=True)]
        stops = [
            min(start + size, n)
            for start, size, n in zip(starts, array.chunks, array.shape, strict=True)
        ]
        try:
            array[tuple(map(slice, starts, stops))]
        except StoreReplacedError:
            raise
        except Exception as error:  # every codec and store has kinds of its own
            samples = f"samples {starts[0]} to {stops[0] - 1}" if index else "it"
            # What the reader says of it names the object, and advises to verify the store.
            reason = error.__cause__ if isinstance(error, StoreError) else None
            found[index] = key, f"{samples} cannot be decoded: {one_line(reason or error)}"

    with open_pool(0, n_threads=_n_threads(array)) as pool:
        for place in iter_grid(stored_grid(array)):
            if (key := chunk_key(array, place)) in missing:
                continue
            first = tuple(i * n for i, n in zip(place, in_each, strict=True))
            inside = (min(n, g - f) for n, g, f in zip(in_each, grid, first, strict=True))
            for offset in iter_grid(tuple(inside)):
                pool.submit(decode, key, tuple(map(sum, zip(first, offset, strict=True))))
    return [found[index] for index in sorted(found)]


def one_line(error: BaseException) -> str:
    """Return the type and the beginning of the message of an error as one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:MAX_REASON]


def _n_threads(array: zarr.Array[Any]) -> int:
    read_bytes = max(READ_BYTES, _slab_bytes(array))
    return max(1, min(PARALLEL_REQUESTS, DECODED_BYTES // read_bytes))


def _slab_bytes(array: zarr.Array[Any]) -> int:
    """Return the bytes of all samples that share their chunks."""
    return (array.chunks[0] if array.ndim else 1) * _sample_bytes(array)


def _sample_bytes(array: zarr.Array[Any]) -> int:
    itemsize = BYTES_OF_STRING if array.dtype.kind == "T" else array.dtype.itemsize
    return max(1, itemsize * math.prod(array.shape[1:]))
