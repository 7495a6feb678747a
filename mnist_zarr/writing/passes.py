"""Passes over a variable, which write all its objects: chunks or shards.

Each hands whole objects to a pool that encodes and writes them, so that memory
holds a few objects, whatever the size of the data. What is expensive to read is
read once, in the order of the source.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import optimize

from mnist_zarr.dataset.blocks import block_bounds, bytes_per_sample, iter_blocks
from mnist_zarr.pool import Pool
from mnist_zarr.writing.chunks import ArrayWriter, Written
from mnist_zarr.writing.plan import (
    Chunking,
    Positions,
    SampleOrder,
    ShuffledOrder,
    SourceOrder,
    scatter_passes,
)

OPEN_OBJECTS_BYTES = 64 << 20


@dataclass(frozen=True)
class Transfer:
    """A variable along ``sample``, the array that it goes to, and how."""

    variable: xr.Variable
    array: ArrayWriter
    pieces: Chunking
    order: SampleOrder

    def stored_samples(self, start: int, stop: int) -> xr.Variable:
        """Return the samples that are stored at ``start`` to ``stop``, lazily."""
        if isinstance(self.order, SourceOrder):
            return self.variable[start:stop]
        return self.variable[self.order.source_positions(start, stop)]


# Called with each block in the order of the source: how many samples it has, and the samples
# themselves, or None where they do not pass through this process.
OnBlock = Callable[[int, npt.NDArray[Any] | None], object]
Pass = Callable[[Transfer, Pool, OnBlock], None]


def choose_pass(transfer: Transfer, pool: Pool) -> Pass:
    """Return the pass that suits the variable, its order and the pool."""
    variable, is_in_source_order = transfer.variable, isinstance(transfer.order, SourceOrder)
    is_dask = variable.chunks is not None
    is_cheap = is_dask or variable.encoding.get("seeks_cheaply", False)
    is_cheap &= not isinstance(transfer.order, ShuffledOrder)  # each object is from everywhere
    if pool.on_cluster and variable.ndim > 1 and is_cheap:
        return by_workers
    if is_in_source_order and not is_dask:
        return in_source_order
    if not is_in_source_order and (variable.ndim == 1 or _is_costly(variable)):
        return gathered
    return scattered


def _is_costly(variable: xr.Variable) -> bool:
    """Whether samples take long to read, but each by itself, as decoded pictures do."""
    is_dask = variable.chunks is not None
    return not (is_dask or variable.encoding.get("reads_cheaply", True))


def in_source_order(transfer: Transfer, pool: Pool, on_block: OnBlock) -> None:
    """Read one object after the other."""
    for start, stop in transfer.pieces.objects():
        block = transfer.variable[start:stop].values
        pool.submit(transfer.array.write, start, block)
        on_block(len(block), block)


def gathered(transfer: Transfer, pool: Pool, on_block: OnBlock) -> None:
    """Pick the samples of one object after the other.

    For numbers and strings, all at hand; and for pictures, each of which is decoded once.
    """
    is_costly = _is_costly(transfer.variable)
    for start, stop in transfer.pieces.objects():
        pool.submit(transfer.array.write, start, transfer.stored_samples(start, stop).values)
        if is_costly:
            on_block(stop - start, None)
    for _, block in iter_blocks(transfer.variable) if not is_costly else ():
        on_block(len(block), block)


def scattered(transfer: Transfer, pool: Pool, on_block: OnBlock) -> None:
    """Read blocks in source order, and put each sample into the open object that it belongs to.

    In label order one object per class is open, and those that classes share; in shuffled order
    as many as may be, for each of which the source is read once.
    """
    object_bytes = transfer.pieces.object_samples * bytes_per_sample(transfer.variable)
    max_open = max(2, OPEN_OBJECTS_BYTES // max(1, object_bytes))
    groups = list(scatter_passes(transfer.order, transfer.pieces, max_open))
    for group in groups:
        objects = _OpenObjects(transfer, group, pool)
        for start, block in iter_blocks(transfer.variable):
            objects.put(transfer.order.stored_positions(start, start + len(block)), block)
            if group is groups[-1]:
                on_block(len(block), block)


def by_workers(transfer: Transfer, pool: Pool, on_block: OnBlock) -> None:
    """Let the workers of a cluster read the samples of each object and write it."""
    is_dask = transfer.variable.chunks is not None
    is_cheap = not (is_dask or _is_costly(transfer.variable))
    for start, stop in transfer.pieces.objects():
        samples = transfer.stored_samples(start, stop)
        if is_dask:  # only the part of the graph that makes these samples travels
            samples = samples.copy(data=cast(Any, optimize)(samples.data)[0])
        pool.submit(_copy_object, transfer.array, start, samples)
        # A file is read here as well, for its hash; but no graph is computed twice, and no
        # picture decoded.
        on_block(stop - start, transfer.variable[start:stop].values if is_cheap else None)


def stored_blocks(
    array: zarr.Array[Any], positions_of: Callable[[int, int], Positions]
) -> Iterator[npt.NDArray[Any]]:
    """Yield the samples of an array that has been written, a block of these positions at a time."""
    sample_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
    for start, stop in block_bounds(array.shape[0], sample_bytes, are_scattered=True):
        yield np.asarray(array.oindex[positions_of(start, stop)])


class _OpenObjects:
    """Objects that are being filled with samples; each is written when it is full."""

    def __init__(self, transfer: Transfer, indices: range, pool: Pool) -> None:
        self._transfer = transfer
        self._indices = indices
        self._pool = pool
        self._open: dict[int, tuple[npt.NDArray[Any], int]] = {}  # buffer, samples still missing

    def put(self, positions: Positions, samples: npt.NDArray[Any]) -> None:
        """Take samples that are stored at ``positions``, which are distinct."""
        by_position = np.argsort(positions)
        objects = positions[by_position] // self._transfer.pieces.object_samples
        breaks = np.flatnonzero(np.diff(objects)) + 1
        for first, last in itertools.pairwise([0, *breaks.tolist(), len(objects)]):
            index, chosen = int(objects[first]), by_position[first:last]
            if index in self._indices:
                self._fill(index, positions[chosen], samples[chosen])

    def _fill(self, index: int, positions: Positions, samples: npt.NDArray[Any]) -> None:
        start, stop = self._transfer.pieces.bounds(index)
        if index not in self._open:
            empty = np.empty((stop - start, *samples.shape[1:]), samples.dtype)
            self._open[index] = empty, stop - start
        buffer, missing = self._open.pop(index)
        buffer[positions - start] = samples
        if missing > len(samples):
            self._open[index] = buffer, missing - len(samples)
        else:
            self._pool.submit(self._transfer.array.write, start, buffer)


def _copy_object(array: ArrayWriter, start: int, samples: xr.Variable) -> Written | None:
    # The thread of a worker must not wait for tasks that need threads of workers.
    with dask.config.set(scheduler="synchronous"):
        return array.write(start, samples.values)
