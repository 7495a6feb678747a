"""The metadata of a store, made in memory before anything is written.

A :class:`Template` holds the metadata documents of all arrays. ``bind`` gives
arrays that write chunks into a store that has no metadata yet; ``publish``
writes the documents, the root's last, which makes the store one that readers
open. Attributes and dimension names are as xarray writes them, see
https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import GzipCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore, StorePath

from mnist_zarr.content import runs
from mnist_zarr.errors import OptionError
from mnist_zarr.schema import METADATA_SHA256, STRING_DTYPE, is_string

Codec = Literal["zstd", "gzip"]
ZarrFormat = Literal[2, 3]

LEVELS_OF_CODEC = {"zstd": range(1, 23), "gzip": range(1, 10)}


@dataclass(frozen=True)
class Compression:
    """How chunks are compressed. Both codecs carry a checksum of their content.

    Raises
    ------
    OptionError
        If there is no such codec or level.
    """

    codec: Codec = "zstd"
    level: int = 9

    def __post_init__(self) -> None:
        levels = LEVELS_OF_CODEC.get(self.codec)
        if levels is None:
            raise OptionError(
                f"codec: expected one of {', '.join(LEVELS_OF_CODEC)}, got {self.codec!r}"
            )
        if self.level not in levels:
            raise OptionError(
                f"level: {self.codec} has levels {levels[0]} to {levels[-1]}, got {self.level!r}"
            )

    def for_format(self, zarr_format: ZarrFormat) -> Any:
        """Return the codec as the Zarr format names it."""
        if zarr_format == 2:
            return self.encoder()
        if self.codec == "gzip":
            return GzipCodec(level=self.level)
        return ZstdCodec(level=self.level, checksum=True)

    def encoder(self) -> Any:
        """Return what encodes bytes, the same in both formats."""
        if self.codec == "gzip":
            return numcodecs.GZip(level=self.level)
        return numcodecs.Zstd(level=self.level, checksum=True)


@dataclass(frozen=True)
class ArraySpec:
    """What the metadata of one array says."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


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
            alone = _bind_array(self.array.metadata, MemoryStore(shard), self.array.path)
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
    parts += ((_number(len(text)) + text) * count for text, count in runs(strings))
    return b"".join(parts)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little")


class Template:
    """The metadata documents of a store of one group.

    Parameters
    ----------
    specs : sequence of ArraySpec
        The arrays.
    compression : Compression
        Of all arrays.
    zarr_format : {2, 3}
        The format of the store.
    """

    def __init__(
        self, specs: Sequence[ArraySpec], compression: Compression, zarr_format: ZarrFormat
    ) -> None:
        self._documents: dict[str, Buffer] = {}
        self._compression = compression
        self._zarr_format = zarr_format
        self._group = zarr.create_group(MemoryStore(self._documents), zarr_format=zarr_format)
        for spec in specs:
            self._create(spec)

    def _create(self, spec: ArraySpec) -> None:
        attrs = {name: jsonable(value) for name, value in spec.attrs.items()}
        is_v2 = self._zarr_format == 2
        if is_v2:
            attrs["_ARRAY_DIMENSIONS"] = list(spec.dims)
        self._group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            compressors=self._compression.for_format(self._zarr_format),
            # In format 2 xarray takes elements equal to the fill value for missing ones.
            fill_value=None if is_v2 else zarr_default_fill(spec),
            attributes=attrs,
            dimension_names=None if is_v2 else spec.dims,
        )

    def bind(self, store: Store) -> dict[str, ArrayWriter]:
        """Return writers of chunks into ``store``, which stays without metadata."""
        return {
            name: ArrayWriter(_bind_array(array.metadata, store, name), self._compression)
            for name, array in self._group.arrays()
        }

    def publish(self, store: Store, attrs: Mapping[str, Any]) -> None:
        """Write the metadata with these root attributes: from then on the store opens."""
        self._group.attrs.update({name: jsonable(value) for name, value in attrs.items()})
        documents = {key: document.to_bytes() for key, document in self._documents.items()}
        self._group.attrs[METADATA_SHA256] = metadata_sha256(documents)
        with warnings.catch_warnings():
            # Readers over HTTP need consolidated metadata; zarr-python, xarray and others agree
            # on its form in format 3, but the specification has not got it yet.
            warnings.filterwarnings(
                "ignore", "Consolidated metadata is currently not part", ZarrUserWarning
            )
            zarr.consolidate_metadata(self._group.store, zarr_format=self._zarr_format)
        for key in sorted(self._documents, key=lambda key: ("/" not in key, key)):
            sync(store.set(key, self._documents[key]))


def _bind_array(metadata: Any, store: Store, name: str) -> zarr.Array[Any]:
    # A chunk that equals the fill value is written too: a missing one is damage.
    config = cast(Any, {"write_empty_chunks": True})
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(store, name), config))


def metadata_sha256(documents: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of what all metadata documents of a store say, however it is written.

    Without what repeats the others (consolidated metadata) and this hash itself.

    Parameters
    ----------
    documents : mapping
        From the key of each document to its JSON.

    Raises
    ------
    ValueError
        If a document is not JSON.
    """
    said = {key: json.loads(document) for key, document in documents.items()}
    said.pop(".zmetadata", None)
    for key, attrs_of in (("zarr.json", "attributes"), (".zattrs", None)):
        root = said.get(key)
        if isinstance(root, dict):
            root.pop("consolidated_metadata", None)
            attrs = root.get(attrs_of) if attrs_of else root
            if isinstance(attrs, dict):
                attrs.pop(METADATA_SHA256, None)
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def zarr_default_fill(spec: ArraySpec) -> Any:
    """Return zero, or what stands for it in the type of the array."""
    return "" if spec.dtype == STRING_DTYPE else spec.dtype.type(0)


def jsonable(value: Any) -> Any:
    """Return an attribute value as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    return value
