"""Chunks of an array, encoded and written one stored object at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, StorePath

from mnist_zarr.dataset.records import run_lengths
from mnist_zarr.dataset.schema import is_string
from mnist_zarr.stores.keys import sync
from mnist_zarr.writing.layout import Compression


@dataclass(frozen=True)
class ArrayWriter:
    """Writes stored objects, chunks or shards, of one array. Can be pickled.

    Attributes
    ----------
    array : zarr.Array
        For reading back what was written.
    compression : Compression
        Of the array.
    """

    array: zarr.Array[Any]
    compression: Compression

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Write the rows from ``start`` on: exactly one object along the first dimension."""
        if self.array.shards is not None:
            # zarr.Array reads what is there before it writes the shard at the edge: here nothing.
            shard: dict[str, Buffer] = {}
            alone = bind_array(self.array.metadata, MemoryStore(shard), self.array.path)
            alone[start : start + len(rows)] = rows
            for key, value in shard.items():
                sync(self.array.store.set(key, value))
            return
        # Not through zarr.Array: that encodes in threads of its own, whose memory adds up,
        # and whose number is not for us to choose.
        missing = self.array.chunks[0] - len(rows)
        if missing:  # a chunk at the edge is stored in full length
            rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
        encoded = self.compression.encoder().encode(_serialized(rows))
        number = start // self.array.chunks[0]
        key = self.array.metadata.encode_chunk_key((number,) + (0,) * (rows.ndim - 1))
        buffer = default_buffer_prototype().buffer.from_bytes(encoded)
        sync((self.array.store_path / key).set(buffer))

    def write_whole(self, values: npt.NDArray[Any]) -> None:
        """Write all values of a small array."""
        self.array[...] = values


def _serialized(rows: npt.NDArray[Any]) -> Any:
    """Return the bytes of a chunk: ``vlen-utf8`` of strings, else little-endian in C order."""
    if is_string(rows.dtype):
        return vlen_utf8(rows)
    return np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder("<"), copy=False))


def vlen_utf8(strings: npt.NDArray[Any]) -> bytes:
    r"""Encode strings as the codec ``vlen-utf8`` does, but each run of equal ones at once.

    Their number, then of each the number of its bytes and the bytes; numbers are little-endian,
    of 32 bits. Source: https://github.com/zarr-developers/zarr-extensions, codecs/vlen-utf8.

    Examples
    --------
    >>> vlen_utf8(np.array(["a", "a"]))
    b'\x02\x00\x00\x00\x01\x00\x00\x00a\x01\x00\x00\x00a'
    """
    parts = [_number(len(strings))]
    parts += ((_number(len(text)) + text) * count for text, count in run_lengths(strings))
    return b"".join(parts)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def bind_array(metadata: Any, store: Store, name: str) -> zarr.Array[Any]:
    """Return the array of these metadata in a store that may not have them."""
    # A chunk that equals the fill value is written too: a missing one is damage.
    config = cast(Any, {"write_empty_chunks": True})
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(store, name), config))
