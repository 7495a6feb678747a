"""Shards that are being filled: objects that hold several chunks, and an index of them.

In label order a shard of each class is being filled at the same time. Its chunks wait in a
temporary file, so that memory holds only the shard that is about to be written.
"""

from __future__ import annotations

import tempfile
import threading
from typing import Any

from mnist_zarr.errors import StoreError
from mnist_zarr.files.output import wrap_os_errors
from mnist_zarr.stores.shard_index import encode_index, index_bytes

# Small shards need no file.
MEMORY_BYTES = 1 << 20
# Chunks are larger than what Python would hold back of each file, 128 kB since version 3.14.
BUFFER_BYTES = 8 << 10


class OpenShards:
    """The shards of an array that are being filled, by threads of one process.

    Parameters
    ----------
    chunks_per_shard : int
        How many chunks fit into one.
    n_chunks : int
        How many chunks the array has; the last shard may have fewer than the others.
    """

    def __init__(self, chunks_per_shard: int, n_chunks: int) -> None:
        self.chunks_per_shard = chunks_per_shard
        self._n_chunks = n_chunks
        self._open: dict[int, OpenShard] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker of a cluster fills whole shards by itself.
        return OpenShards, (self.chunks_per_shard, self._n_chunks)

    def add(self, chunk: int, encoded: bytes, is_blank: bool) -> OpenShard | None:
        """Add the chunk of this number; return its shard if that is full now.

        Raises
        ------
        StoreError
            If the temporary file cannot be written.
        """
        index, place = divmod(chunk, self.chunks_per_shard)
        n_here = min(self.chunks_per_shard, self._n_chunks - index * self.chunks_per_shard)
        with self._lock:
            if index not in self._open:
                self._open[index] = OpenShard(self.chunks_per_shard)
            shard = self._open[index]
            with wrap_os_errors(tempfile.gettempdir(), "written", StoreError):
                shard.add(place, encoded, is_blank)
            return self._open.pop(index) if len(shard) == n_here else None

    def close(self) -> None:
        """Forget the shards that are not full."""
        while self._open:
            self._open.popitem()[1].close()


class OpenShard:
    """A shard that is being filled with encoded chunks, which may come in any order.

    Parameters
    ----------
    n_chunks : int
        How many chunks fit.

    Attributes
    ----------
    is_blank : bool
        Whether all of its chunks are.
    """

    def __init__(self, n_chunks: int) -> None:
        self.is_blank = True
        self._n_chunks = n_chunks
        self._file: Any = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            MEMORY_BYTES, buffering=BUFFER_BYTES
        )
        self._places: dict[int, tuple[int, int]] = {}  # first byte in the file, number of bytes

    def __len__(self) -> int:
        return len(self._places)

    def add(self, number: int, encoded: bytes, is_blank: bool) -> None:
        """Add the chunk of this number."""
        self._places[number] = self._file.tell(), self._file.write(encoded)
        self.is_blank &= is_blank

    def close(self) -> None:
        """Forget the chunks."""
        self._file.close()

    def take(self) -> bytearray:
        """Return the bytes of the shard, its chunks in order, and forget them."""
        places, stop = {}, 0
        n_bytes = sum(size for _, size in self._places.values())
        data = bytearray(n_bytes + index_bytes(self._n_chunks))
        with self._file as file:
            for number, (first, size) in sorted(self._places.items()):
                file.seek(first)
                data[stop : stop + size] = file.read(size)
                places[number] = stop, size
                stop += size
        data[stop:] = encode_index(places, self._n_chunks)
        return data
