"""Chunks of an array, encoded and written one stored object at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.storage import StorePath

from mnist_zarr.dataset.records import run_lengths
from mnist_zarr.dataset.schema import as_strings, is_string
from mnist_zarr.stores.inventory import chunk_key
from mnist_zarr.stores.keys import as_buffer, sync
from mnist_zarr.stores.upload import Receipt, Upload
from mnist_zarr.writing.layout import Compression
from mnist_zarr.writing.shards import OpenShards

# Few chunks are blank, and of those that are not the first samples tell.
BLANK_PIECE_VALUES = 1 << 14


@dataclass(frozen=True)
class Written:
    """What became of an object, for the process that collects it.

    Attributes
    ----------
    array : str
        The path of the array.
    index : int
        Which object along the first dimension.
    is_blank : bool
        Whether it holds nothing but the fill value.
    receipt : dict
        What an upload has sent.
    """

    array: str
    index: int
    is_blank: bool
    receipt: Receipt


@dataclass(frozen=True)
class ArrayWriter:
    """Writes stored objects, chunks or shards, of one array. Can be pickled.

    Attributes
    ----------
    array : zarr.Array
        For reading back what was written.
    compression : Compression
        Of the array.
    shards : OpenShards, optional
        Those that are being filled, if the array has shards.
    """

    array: zarr.Array[Any]
    compression: Compression
    shards: OpenShards | None = None

    def write(self, start: int, samples: npt.NDArray[Any]) -> Written | None:
        """Write the samples from ``start`` on: one chunk, or all chunks of one object.

        Chunks of a shard may come in any order; None until the last one of it is there.

        Raises
        ------
        SchemaError
            If there is an object that is no string among strings.
        """
        values, chunk_samples = self._stored(samples), self.array.chunks[0]
        first, written = start // chunk_samples, None
        for offset in range(0, len(values), chunk_samples):
            chunk = values[offset : offset + chunk_samples]
            written = self._add(first + offset // chunk_samples, chunk)
        return written

    def _add(self, number: int, chunk: npt.NDArray[Any]) -> Written | None:
        encoded = self._encode(chunk)
        if self.shards is None:
            return self._set(number, encoded, is_blank(chunk))
        shard = self.shards.add(number, encoded, is_blank(chunk))
        if shard is None:
            return None
        return self._set(number // self.shards.chunks_per_shard, shard.take(), shard.is_blank)

    def _set(self, index: int, encoded: bytes | bytearray, is_blank: bool) -> Written:
        store, key = (
            self.array.store,
            chunk_key(self.array, (index,) + (0,) * (self.array.ndim - 1)),
        )
        sync(store.set(key, as_buffer(encoded)))
        receipt = store.receipt([key]) if isinstance(store, Upload) else {}
        return Written(self.array.path, index, is_blank, receipt)

    def _encode(self, samples: npt.NDArray[Any]) -> bytes:
        # Not through zarr.Array: that encodes in threads of its own, whose memory adds up,
        # and whose number is not for us to choose.
        missing = self.array.chunks[0] - len(samples)
        if missing:  # a chunk at the edge is stored in full length
            padding = np.zeros((missing, *samples.shape[1:]), samples.dtype)
            samples = np.concatenate([samples, padding])
        return self.compression.encode(_serialized(samples))

    def write_whole(self, values: npt.NDArray[Any]) -> Written:
        """Write all values of a small array; raises as :meth:`write` does."""
        stored = self._stored(values)
        self.array[...] = stored
        return Written(self.array.path, 0, is_blank(stored), {})

    def close(self) -> None:
        """Forget the shards that are not full."""
        if self.shards is not None:
            self.shards.close()

    def _stored(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return as_strings(self.array.path, values) if is_string(values.dtype) else values


def is_blank(values: npt.NDArray[Any]) -> bool:
    """Whether all values are the fill value, 0 or the empty string.

    Examples
    --------
    >>> is_blank(np.zeros(3)), is_blank(np.array(["", "a"]))
    (True, False)
    """
    flat = values.reshape(-1)
    return not any(
        np.count_nonzero(flat[start : start + BLANK_PIECE_VALUES])
        for start in range(0, flat.size, BLANK_PIECE_VALUES)
    )


def _serialized(samples: npt.NDArray[Any]) -> Any:
    """Return the bytes of a chunk: ``vlen-utf8`` of strings, else little-endian in C order."""
    if is_string(samples.dtype):
        return vlen_utf8(samples)
    return np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder("<"), copy=False))


def vlen_utf8(strings: npt.NDArray[Any]) -> bytes:
    r"""Encode strings as the codec ``vlen-utf8`` does, but each run of equal ones at once.

    Their number, then of each the number of its bytes and the bytes; numbers are little-endian,
    of 32 bits. Source: https://github.com/zarr-developers/zarr-extensions, codecs/vlen-utf8.

    Examples
    --------
    >>> vlen_utf8(np.array(["a", "a"]))
    b'\x02\x00\x00\x00\x01\x00\x00\x00a\x01\x00\x00\x00a'
    """
    parts = [_number(strings.size)]
    parts += ((_number(len(text)) + text) * count for text, count in run_lengths(strings))
    return b"".join(parts)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def bind_array(metadata: Any, store: Store, name: str) -> zarr.Array[Any]:
    """Return the array of these metadata in a store that may not have them."""
    array = zarr.Array.from_dict(StorePath(store, name), metadata.to_dict())
    # A chunk that equals the fill value is written too: a missing one is damage.
    return array.with_config({"write_empty_chunks": True})
