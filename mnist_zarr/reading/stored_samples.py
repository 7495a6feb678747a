"""The rows of a stored array, decoded chunk by chunk, in any order; damage is noted, not raised."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from mnist_zarr.dataset.blocks import MAX_BLOCK_SAMPLES
from mnist_zarr.errors import StoreReplacedError
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import sync
from mnist_zarr.stores.snapshot import LocalSnapshot

BLOCK_BYTES = 16 << 20
# Chunks that stay decoded: in label order each class has one that is in use.
DECODED_BYTES = 64 << 20
BYTES_OF_STRING = 16
# What Zarr says of a chunk that cannot be decoded may be long.
MAX_REASON = 200
Positions = npt.NDArray[np.int64]


class StoredSamples:
    """The rows of one array.

    Every chunk is decoded once, as long as not too many are in use at the same
    time; where one is damaged its rows are zeros.

    Parameters
    ----------
    array : zarr.Array
        One of rank 0 has one row.
    executor : concurrent.futures.Executor
        Decodes chunks in parallel.
    note : callable
        Gets the key of each damaged object, and what is wrong with it.
    """

    def __init__(
        self, array: zarr.Array[Any], executor: Executor, note: Callable[[str, str], None]
    ) -> None:
        self._array = array
        self._executor = executor
        self._note = note
        self._decoded: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._chunk_samples = array.chunks[0] if array.ndim else 1
        self._most_decoded = max(1, DECODED_BYTES // max(1, bytes_of_chunk(array)))
        # These say it themselves, and to ask once more would be another request.
        self._says_what_is_missing = isinstance(array.store, LocalSnapshot | BucketStore)
        self.is_damaged = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._array.shape[0]) if self._array.ndim else 1

    def blocks(self, positions: Positions | None = None) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows at these positions, in their order, some at a time.

        Parameters
        ----------
        positions : numpy.ndarray, optional
            Shape (row,); by default all rows as they are stored.
        """
        n_rows = len(self) if positions is None else len(positions)
        sample_bytes = _itemsize(self._array) * math.prod(self._array.shape[1:])
        block_samples = max(1, min(BLOCK_BYTES // max(1, sample_bytes), MAX_BLOCK_SAMPLES))
        for start in range(0, n_rows, block_samples):
            stop = min(start + block_samples, n_rows)
            if positions is None:
                yield self._take(np.arange(start, stop))
            else:
                yield self._take(positions[start:stop])

    def _take(self, positions: Positions) -> npt.NDArray[Any]:
        taken = np.empty((len(positions), *self._array.shape[1:]), self._array.dtype)
        by_position = np.argsort(positions, kind="stable")
        ordered = positions[by_position]
        chunks = ordered // self._chunk_samples
        breaks = np.flatnonzero(np.diff(chunks)) + 1
        bounds = list(itertools.pairwise([0, *breaks.tolist(), len(ordered)]))
        for first in range(0, len(bounds), self._most_decoded):
            group = bounds[first : first + self._most_decoded]
            self._decode([int(chunks[begin]) for begin, _ in group])
            for begin, end in group:
                chunk = int(chunks[begin])
                rows = self._decoded[chunk]
                inside = ordered[begin:end] - chunk * self._chunk_samples
                taken[by_position[begin:end]] = rows[inside]
        return taken

    def _decode(self, chunks: list[int]) -> None:
        for chunk in chunks:
            if chunk in self._decoded:
                self._decoded.move_to_end(chunk)
        missing = [chunk for chunk in chunks if chunk not in self._decoded]
        while self._decoded and len(self._decoded) + len(missing) > self._most_decoded:
            self._decoded.popitem(last=False)
        self._decoded.update(
            zip(missing, self._executor.map(self._decode_chunk, missing), strict=True)
        )

    def _decode_chunk(self, chunk: int) -> npt.NDArray[Any]:
        start = chunk * self._chunk_samples
        stop = min(start + self._chunk_samples, len(self))
        keys = self._keys(start)
        try:
            # Of rows without elements no chunk is stored.
            is_expected = bool(self._array.size) and not self._says_what_is_missing
            if is_expected and not all(map(self._exists, keys)):
                raise FileNotFoundError
            if not self._array.ndim:
                return np.asarray(self._array[...]).reshape(1)
            return np.asarray(self._array[start:stop])
        except StoreReplacedError:
            raise
        except Exception as error:  # every codec and store has kinds of its own
            self.is_damaged = True
            missing = [key for key in keys if not self._exists(key)]
            for key in missing:
                self._note(key, "is missing")
            if not missing:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0][:MAX_REASON]
                self._note(keys[0], f"samples {start} to {stop - 1} cannot be decoded: {reason}")
            return np.zeros((stop - start, *self._array.shape[1:]), self._array.dtype)

    def _exists(self, key: str) -> bool:
        return bool(sync(self._array.store.exists(key)))

    def _keys(self, row: int) -> list[str]:
        """Return the keys of the objects, chunks or shards, in which a row is."""
        if not self._array.ndim:
            return [self._key(())]
        sizes = self._array.shards or self._array.chunks
        across = zip(self._array.shape[1:], sizes[1:], strict=True)
        indices = np.ndindex(*(-(-length // size) for length, size in across))
        return [self._key((row // sizes[0], *index)) for index in indices]

    def _key(self, index: tuple[int, ...]) -> str:
        return f"{self._array.path}/{self._array.metadata.encode_chunk_key(index)}"


def bytes_of_chunk(array: zarr.Array[Any]) -> int:
    """Return the uncompressed bytes of a chunk, the unit that is decoded."""
    return _itemsize(array) * math.prod(array.chunks)


def _itemsize(array: zarr.Array[Any]) -> int:
    return BYTES_OF_STRING if array.dtype.kind == "T" else array.dtype.itemsize
