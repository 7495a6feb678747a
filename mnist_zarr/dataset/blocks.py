"""The samples of a variable, a few megabytes at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.lazy import LazySamples, source_and_key
from mnist_zarr.dataset.schema import SAMPLE

# Consecutive samples, or any.
Positions = slice | npt.NDArray[np.int64]

BLOCK_BYTES = 4 << 20
# Several chunks of usual size, which are decoded at the same time.
READ_BYTES = 6 << 20
# Files have no chunks: they are read in such pieces.
FILE_CHUNK_BYTES = 1 << 20
# Larger, since each of these blocks may read all chunks.
SCATTERED_BLOCK_BYTES = 16 << 20
# Positions take eight bytes per sample, several times: bounds their memory if samples are small.
MAX_BLOCK_SAMPLES = 1 << 16


def bytes_per_sample(variable: xr.Variable) -> int:
    """Return the size of one sample of the variable."""
    return int(variable.dtype.itemsize * math.prod(variable.shape[1:]))


def block_bounds(
    n_samples: int, sample_bytes: int, *, are_scattered: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each block, in order; larger ones of samples from many chunks.

    Examples
    --------
    >>> list(block_bounds(10_000, sample_bytes=784))
    [(0, 5349), (5349, 10000)]
    """
    block_bytes = SCATTERED_BLOCK_BYTES if are_scattered else BLOCK_BYTES
    block_samples = max(1, min(block_bytes // max(1, sample_bytes), MAX_BLOCK_SAMPLES))
    for start in range(0, n_samples, block_samples):
        yield start, min(start + block_samples, n_samples)


def iter_blocks(variable: xr.Variable) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first position and the samples of each block, in order.

    Every chunk, of dask or of the store behind a lazy variable, is read once: memory
    holds one of them, or a few that are small.
    """
    sample_bytes = bytes_per_sample(variable)
    for start, stop in _reads(variable, sample_bytes):
        samples = variable[start:stop].values
        for first, last in block_bounds(len(samples), sample_bytes):
            yield start + first, samples[first:last]


def _reads(variable: xr.Variable, sample_bytes: int) -> Iterator[tuple[int, int]]:
    chunks = _consecutive_chunks(variable)
    if chunks is None:
        yield from block_bounds(variable.shape[0], sample_bytes)
        return
    start = stop = 0
    for chunk in chunks:
        if start < stop and (chunk.stop - start) * sample_bytes > READ_BYTES:
            yield start, stop
            start = stop
        stop = chunk.stop
    if start < stop:
        yield start, stop


def iter_blocks_at(
    variable: xr.Variable, positions: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[Any]]:
    """Yield the samples at these positions, in this order, a block at a time.

    A chunk of a store in another order is read once for every block that has
    samples of it.
    """
    if len(positions) and (np.diff(positions) == 1).all():
        for _, block in iter_blocks(variable[int(positions[0]) : int(positions[-1]) + 1]):
            yield block
        return
    block_samples = max(1, SCATTERED_BLOCK_BYTES // max(1, bytes_per_sample(variable)))
    for start in range(0, len(positions), block_samples):
        wanted = positions[start : start + block_samples]
        by_position = np.argsort(wanted)
        ordered = wanted[by_position]
        block = np.empty((len(wanted), *variable.shape[1:]), variable.dtype)
        for first, last in _one_dask_chunk_at_a_time(variable, ordered):
            block[by_position[first:last]] = variable[ordered[first:last]].values
        yield block


def _one_dask_chunk_at_a_time(
    variable: xr.Variable, ordered: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ascending positions that are in one dask chunk.

    From several chunks, dask would load all of them before it takes the samples.
    """
    ends = [len(variable)] if variable.chunks is None else np.cumsum(variable.chunks[0])
    bounds = np.searchsorted(ordered, ends)
    for first, last in itertools.pairwise([0, *bounds.tolist()]):
        if first < last:
            yield first, last


def spans(
    ascending: npt.NDArray[np.int64], sample_bytes: int, max_gap_bytes: int, max_span_bytes: int
) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ascending positions that are worth one read, with what lies between.

    Examples
    --------
    >>> list(spans(np.array([0, 2, 3, 900]), 784, 64_000, 4_000_000))
    [(0, 3), (3, 4)]
    """
    sample_bytes = max(1, sample_bytes)
    max_gap, max_span = max_gap_bytes // sample_bytes + 1, max_span_bytes // sample_bytes + 1
    first = 0
    gaps = np.flatnonzero(np.diff(ascending) > max_gap) + 1
    for stop in (*gaps.tolist(), len(ascending)):
        while first < stop:
            last = min(stop, int(np.searchsorted(ascending, ascending[first] + max_span)))
            yield first, last
            first = last


def chunks_of_samples(variable: xr.Variable) -> list[Positions]:
    """Return which samples of a variable lie in each chunk that is read at once, in order.

    The chunks of dask, or those of the store behind a lazy variable, whatever
    samples have been selected from it.

    Examples
    --------
    >>> import dask.array
    >>> chunks_of_samples(xr.Variable(("sample",), dask.array.zeros(5, chunks=3)))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    chunks = _consecutive_chunks(variable)
    if chunks is not None:
        return [*chunks]
    _, key = source_and_key(variable)
    stored = key[0]
    if isinstance(stored, slice):
        last = abs(stored.step) * (len(variable) - 1)
        first = stored.start or (last if stored.step < 0 else 0)
        stored = first + stored.step * np.arange(len(variable))
    chunk_of_sample = np.asarray(stored) // _chunk_samples(variable)
    changes = np.flatnonzero(np.diff(chunk_of_sample)) + 1
    if len(changes) < len(np.unique(chunk_of_sample)):
        return [*_cut(np.array([0, *changes, len(variable)]))]
    by_chunk = np.argsort(chunk_of_sample, kind="stable")
    return [*np.split(by_chunk, np.flatnonzero(np.diff(chunk_of_sample[by_chunk])) + 1)]


def _consecutive_chunks(variable: xr.Variable) -> list[slice] | None:
    """Return the chunks of a variable whose samples are stored one after the other, else None."""
    if variable.chunks is not None:
        return _cut(np.cumsum([0, *variable.chunks[0]]))
    _, key = source_and_key(variable)
    stored = key[0] if key else slice(None)
    if not (isinstance(stored, slice) and stored.step in (None, 1)):
        return None
    start, chunk_samples, n_samples = stored.start or 0, _chunk_samples(variable), len(variable)
    ends = np.arange(start // chunk_samples + 1, (start + n_samples) // chunk_samples + 1)
    return _cut(np.array([0, *(ends * chunk_samples - start), n_samples]))


def _chunk_samples(variable: xr.Variable) -> int:
    """Return how many samples are in a chunk of the store or file behind a variable."""
    source, _ = source_and_key(variable)
    stored = variable.encoding.get("preferred_chunks", {}).get(SAMPLE)
    if stored is None or isinstance(source, LazySamples):
        return max(1, FILE_CHUNK_BYTES // max(1, bytes_per_sample(variable)))
    return int(stored)


def _cut(bounds: npt.NDArray[np.int64]) -> list[slice]:
    return [slice(start, stop) for start, stop in itertools.pairwise(np.unique(bounds).tolist())]
