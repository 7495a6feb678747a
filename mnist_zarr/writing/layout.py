"""How a store is laid out: order, chunks, shards, compression, format."""

from __future__ import annotations

import gzip
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import numcodecs
import xarray as xr
from zarr.codecs import GzipCodec, ZstdCodec

from mnist_zarr.dataset.blocks import bytes_per_sample
from mnist_zarr.dataset.options import is_whole, whole_number
from mnist_zarr.dataset.schema import SAMPLE, is_string
from mnist_zarr.errors import OptionError
from mnist_zarr.writing.defaults import (
    CHUNK_BYTES_OF_ORDER,
    MOST_CHUNK_OBJECTS,
    SHARD_BYTES,
)
from mnist_zarr.writing.plan import Chunking, Order, plan_chunks

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
        if not _is_one_of(self.codec, LEVELS_OF_CODEC):
            raise OptionError(
                f"`codec`: expected one of {', '.join(LEVELS_OF_CODEC)}, got {self.codec!r}"
            )
        levels = LEVELS_OF_CODEC[self.codec]
        if not is_whole(self.level) or self.level not in levels:
            raise OptionError(
                f"`level`: {self.codec} has levels {levels[0]} to {levels[-1]}, got {self.level!r}"
            )
        object.__setattr__(self, "level", int(self.level))  # the class is frozen

    def for_format(self, zarr_format: ZarrFormat) -> Any:
        """Return the codec as the Zarr format names it."""
        if zarr_format == 2:
            return numcodecs.GZip(self.level) if self.codec == "gzip" else self._zstd()
        if self.codec == "gzip":
            return GzipCodec(level=self.level)
        return ZstdCodec(level=self.level, checksum=True)

    def encode(self, data: Any) -> bytes:
        """Return the bytes compressed, the same in both formats and at any time."""
        if self.codec == "zstd":
            return bytes(self._zstd().encode(data))
        encoded = io.BytesIO()
        # numcodecs would write the time into the header.
        with gzip.GzipFile(fileobj=encoded, mode="wb", compresslevel=self.level, mtime=0) as file:
            file.write(data)
        return encoded.getvalue()

    def _zstd(self) -> Any:
        return numcodecs.Zstd(level=self.level, checksum=True)


# A coordinate is fetched whole by most readers: one chunk, while that is small. To
# decode strings takes a Python object each.
COORDINATE_CHUNK_SAMPLES = 1 << 18
STRING_CHUNK_SAMPLES = 1 << 17


@dataclass(frozen=True)
class Layout:
    """How a store is laid out; see :func:`write_zarr` for the meaning of each."""

    order: Order = "source"
    seed: int | None = None
    chunk_bytes: int | None = None
    shard_bytes: int | None = None
    compression: Compression = field(default_factory=Compression)
    zarr_format: ZarrFormat = 3

    def __post_init__(self) -> None:
        if not _is_one_of(self.order, CHUNK_BYTES_OF_ORDER):
            raise OptionError(
                f"`order`: expected 'source', 'label' or 'shuffled', got {self.order!r}"
            )
        if self.seed is not None and self.order != "shuffled":
            raise OptionError("`seed`: only `order='shuffled'` takes a seed")
        if not is_whole(self.zarr_format) or self.zarr_format not in (2, 3):
            raise OptionError(f"`zarr_format`: expected 2 or 3, got {self.zarr_format!r}")
        object.__setattr__(self, "zarr_format", int(self.zarr_format))  # the class is frozen
        for name, least in (("seed", 0), ("chunk_bytes", 1), ("shard_bytes", 0)):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(f"`{name}`", given, least))
        if self.zarr_format == 2 and self.shard_bytes:
            raise OptionError("`shard_bytes`: Zarr format 2 has no shards; use `zarr_format=3`")

    def chunking(self, variable: xr.Variable) -> Chunking:
        """Return how the variable is cut along ``sample``."""
        n_samples = variable.sizes[SAMPLE]
        if variable.ndim == 1:
            is_text = is_string(variable.dtype)
            most = STRING_CHUNK_SAMPLES if is_text else COORDINATE_CHUNK_SAMPLES
            return Chunking(n_samples, max(1, min(n_samples, most)))
        sample_bytes, chunk_bytes = bytes_per_sample(variable), self.chunk_bytes
        if chunk_bytes is None:
            chunk_bytes = CHUNK_BYTES_OF_ORDER[self.order]
        chunking = plan_chunks(n_samples, sample_bytes, chunk_bytes, self.shard_bytes)
        if self.shard_bytes is not None or chunking.n_objects <= MOST_CHUNK_OBJECTS:
            return chunking
        if self.zarr_format == 2 or 2 * chunk_bytes > SHARD_BYTES:
            return chunking
        return plan_chunks(n_samples, sample_bytes, chunk_bytes, SHARD_BYTES)


def _is_one_of(given: object, words: Collection[str]) -> bool:
    return isinstance(given, str) and given in words
