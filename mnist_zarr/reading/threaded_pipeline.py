"""Decoding the chunks of local stores on plain threads.

By default zarr-python hands every chunk from its event loop to a thread and back, once to read it
and once for each codec. For chunks of some hundred kilobytes that takes as long as to decode them.
Here a few threads read, decode and copy chunk after chunk. Zarr 3.4's ``FusedCodecPipeline`` is
as fast, but neither bounds what a chunk decodes to nor names the chunk that is damaged.

Of shards, wherever their store is, the index is read and then the chunks that are wanted, in as few
requests as may be; they are decoded in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from gzip import BadGzipFile
from typing import Any, cast

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.buffer import default_buffer_prototype
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline
from zarr.storage import StorePath

from mnist_zarr.errors import MnistZarrError, StoreError
from mnist_zarr.files.urls import hide_secrets
from mnist_zarr.reading.decoded_size import (
    TOLERATED_BYTES,
    TOLERATED_FACTOR,
    check_zstd,
    decode_gzip,
    decode_zstd,
)
from mnist_zarr.reading.shards import Box, Part, ShardChunk, has_known_index, merge_ranges
from mnist_zarr.stores.keys import PARALLEL_REQUESTS
from mnist_zarr.stores.shard_index import decode_index, index_bytes
from mnist_zarr.stores.snapshot import CheckedStore, LocalSnapshot, OneVersion

# What zarr tells a pipeline of one chunk: where it is, its shape and type, which of its
# elements are wanted, and where they go.
ChunkInfo = tuple[Any, ...]
# Number of shards of which more is held in memory at a time than what is wanted of them.
COPIED_SHARDS = 4
_OPENING = threading.Lock()


class _PresentChunk(StorePath):
    """Where a chunk is that must be there: Zarr would fill its place, with black images."""

    async def get(
        self, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await super().get(prototype, byte_range)
        if value is None:
            raise _missing(_place_of(self))
        return value


def _missing(place: str) -> StoreError:
    return StoreError(f"{place}: this chunk is missing; the store is damaged: build it again")


def _must_be_there(chunk: Any) -> bool:
    """Whether this is the place of a chunk in a store that promises it."""
    store = getattr(chunk, "store", None)
    promises = store.promises if isinstance(store, CheckedStore) else None
    return promises is not None and promises.requires(chunk.path)


async def _read_index(shard: Any, n_chunks: int, most: float) -> list[tuple[int, int] | None]:
    """Return where the chunks of a shard are, of which none has more bytes than ``most``."""
    stored = await _read_range(shard, SuffixByteRequest(index_bytes(n_chunks)))
    if stored is None and _must_be_there(shard):
        raise _missing(_place_of(shard))
    if stored is None:
        return [None] * n_chunks
    try:
        return decode_index(stored.to_bytes(), n_chunks, most)
    except StoreError as error:
        raise _damaged(_place_of(shard), error) from error


async def _read_ranges(shard: Any, ranges: Sequence[tuple[int, int]]) -> list[Buffer]:
    """Read ranges of bytes, each its first byte and length, in one request."""
    first = min(start for start, _ in ranges)
    stop = max(start + size for start, size in ranges)
    stored = await _read_range(shard, RangeByteRequest(first, stop))
    if stored is None or len(stored) != stop - first:
        raise _damaged(_place_of(shard), "the shard is shorter than its index says")
    return [stored[start - first : start - first + size] for start, size in ranges]


async def _read_range(shard: Any, byte_range: ByteRequest) -> Buffer | None:
    try:
        stored: Buffer | None = await shard.get(default_buffer_prototype(), byte_range)
    except Exception as error:
        raise _undecodable([(shard,)], error) from error
    return stored


# Zarr does not call its pipelines public. To do without, it would have to name the damaged chunk in
# its errors, and to compare the size that a chunk states with its shape before it decodes it.
class CheckedPipeline(BatchedCodecPipeline):
    """zarr-python's codecs; a damaged chunk, or one larger than its shape, is our error."""

    async def read(
        self, batch_info: Iterable[ChunkInfo], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> Any:
        """Read chunks into ``out``.

        Raises
        ------
        StoreError
            If a chunk is missing or cannot be decoded.
        """
        chunks = list(batch_info)
        codec: Any = self.array_bytes_codec
        if isinstance(codec, ShardingCodec) and has_known_index(codec):
            return await self._read_shards(chunks, out, drop_axes)
        present = [
            (_PresentChunk(chunk.store, chunk.path), *rest) if _must_be_there(chunk) else info
            for info in chunks
            for chunk, *rest in [info]
        ]
        try:
            return await cast(Any, super()).read(present, out, drop_axes)
        except Exception as error:
            raise _undecodable(chunks, error) from error

    async def _read_shards(
        self, shards: Sequence[ChunkInfo], out: Any, drop_axes: tuple[int, ...]
    ) -> Any:
        codec: Any = self.array_bytes_codec
        requests, copies = asyncio.Semaphore(PARALLEL_REQUESTS), asyncio.Semaphore(COPIED_SHARDS)
        destination = out.as_ndarray_like()

        async def read(shard: Any, spec: Any, wanted: Any, place: Any, *_: Any) -> None:
            box = Box(wanted, spec.shape, codec.chunk_shape)
            if box.is_wanted_whole and not drop_axes:
                await self._read_box(box, shard, spec, destination[place], requests)
                return
            async with copies:
                values = np.empty(box.shape, destination.dtype)
                await self._read_box(box, shard, spec, values, requests)
                chosen = _pick(values, box.wanted)
                destination[place] = chosen.squeeze(drop_axes) if drop_axes else chosen

        await asyncio.gather(*(read(*shard) for shard in shards))
        return [{"status": "present"}] * len(shards)

    async def _read_box(
        self, box: Box, shard: Any, spec: Any, values: npt.NDArray[Any], requests: asyncio.Semaphore
    ) -> None:
        """Read what lies in the box of a shard into ``values``."""
        codec: Any = self.array_bytes_codec
        chunk_spec = replace(spec, shape=codec.chunk_shape)
        out = spec.prototype.nd_buffer.from_ndarray_like(values)
        counts = tuple(n // size for n, size in zip(spec.shape, codec.chunk_shape, strict=True))
        async with requests:
            places = await _read_index(shard, math.prod(counts), _most_encoded_bytes(chunk_spec))
        found: list[tuple[str, Part]] = []
        ranges: list[tuple[int, int]] = []
        for part in box.parts():
            number = int(np.ravel_multi_index(part.index, counts))
            name, where = f"{shard.path}, chunk {number}", places[number]
            if where is not None:
                found.append((name, part))
                ranges.append(where)
            elif _must_be_there(shard):
                raise _missing(hide_secrets(f"{shard.store}/{name}"))
            else:
                values[part.place] = spec.fill_value

        async def read(numbers: Sequence[int]) -> None:
            async with requests:
                stored = await _read_ranges(shard, [ranges[number] for number in numbers])
                chunks = []
                for number, data in zip(numbers, stored, strict=True):
                    name, part = found[number]
                    chunk = ShardChunk(str(shard.store), name, data)
                    chunks.append((chunk, chunk_spec, part.wanted, part.place, False))
                await ThreadedPipeline.from_codecs(codec.codecs).read(chunks, out)

        await asyncio.gather(*map(read, merge_ranges(ranges)))

    async def decode_batch(self, chunk_bytes_and_specs: Iterable[Any]) -> Any:
        """Decode chunks.

        Raises
        ------
        StoreError
            If one would become larger than its shape says.
        """
        chunks = list(chunk_bytes_and_specs)
        if self._is_zstd_of_fixed_size():
            for encoded, spec in chunks:
                if encoded is not None:
                    check_zstd(memoryview(encoded.as_numpy_array()), _n_bytes(spec))
        return await super().decode_batch(chunks)

    def _is_zstd_of_fixed_size(self) -> bool:
        in_format_2 = getattr(self.array_bytes_codec, "compressor", None)
        if in_format_2 is not None:
            filters = getattr(self.array_bytes_codec, "filters", None)
            return isinstance(in_format_2, numcodecs.Zstd) and not filters
        return isinstance(self._only_codec(), ZstdCodec)

    def _only_codec(self) -> object | None:
        """Return the codec that compresses the plain bytes, if nothing else is done to them."""
        is_plain = isinstance(self.array_bytes_codec, BytesCodec) and not self.array_array_codecs
        codecs = self.bytes_bytes_codecs
        return codecs[0] if is_plain and len(codecs) == 1 else None


def _most_encoded_bytes(spec: Any) -> float:
    """Return how many bytes a stored chunk may have; of text there is no telling."""
    is_text = spec.dtype.to_native_dtype().kind in "OT"
    return math.inf if is_text else TOLERATED_FACTOR * _n_bytes(spec) + TOLERATED_BYTES


def _n_bytes(spec: Any) -> int:
    shape: tuple[int, ...] = spec.shape
    return math.prod(shape) * int(spec.dtype.to_native_dtype().itemsize)


class ThreadedPipeline(CheckedPipeline):
    """zarr-python's codecs; chunks that one codec has compressed are decoded as said above."""

    async def read(
        self, batch_info: Iterable[ChunkInfo], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> Any:
        """Read chunks into ``out``.

        Raises
        ------
        StoreReplacedError
            If another version of the store has taken its place.
        StoreError
            If a chunk is missing or cannot be decoded.
        """
        chunks = list(batch_info)
        if drop_axes or not self._is_plain(chunks):
            return await super().read(chunks, out, drop_axes)
        n_threads = min(len(chunks), os.cpu_count() or 1)
        shares = [chunks[first::n_threads] for first in range(n_threads)]
        destination = out.as_ndarray_like()
        await asyncio.gather(
            *(asyncio.to_thread(self._read_share, share, destination) for share in shares)
        )
        return [{"status": "present"}] * len(chunks)  # zarr 3.2 and later ask for it

    def _is_plain(self, chunks: Sequence[ChunkInfo]) -> bool:
        return isinstance(self._only_codec(), ZstdCodec | GzipCodec) and all(
            isinstance(chunk, ShardChunk)
            or isinstance(getattr(chunk, "store", None), LocalSnapshot)
            for chunk, *_ in chunks
        )

    def _read_share(self, chunks: Sequence[ChunkInfo], destination: npt.NDArray[Any]) -> None:
        is_zstd = isinstance(self._only_codec(), ZstdCodec)
        decode = decode_zstd if is_zstd else decode_gzip
        endian = getattr(self.array_bytes_codec, "endian", None)  # an enum, or since 3.2 its value
        byteorder = getattr(endian, "value", endian) or "little"
        for chunk, spec, wanted, place, *_ in chunks:
            is_here = isinstance(chunk, ShardChunk)
            stored = chunk.stored if is_here else chunk.store.get_sync(chunk.path)
            if stored is None and _must_be_there(chunk):
                raise _missing(_place_of(chunk))
            if stored is None:
                destination[place] = spec.fill_value
                continue
            encoded = memoryview(stored.as_numpy_array())
            dtype = spec.dtype.to_native_dtype().newbyteorder(byteorder)
            try:
                values = np.frombuffer(decode(encoded, _n_bytes(spec)), dtype).reshape(spec.shape)
            except StoreError as error:
                raise StoreError(f"{_place_of(chunk)}: cannot be decoded: {error}") from error
            except Exception as error:
                raise _undecodable([(chunk,)], error) from error
            destination[place] = _pick(values, wanted)


def _pick(values: npt.NDArray[Any], wanted: Any) -> npt.NDArray[Any]:
    """Return the wanted elements of a chunk; whole samples as such.

    To pick samples zarr makes a mesh of indices along all dimensions, with which NumPy copies every
    pixel for itself.
    """
    is_mesh = isinstance(wanted, tuple) and all(
        isinstance(index, np.ndarray) and index.ndim == values.ndim for index in wanted
    )
    if (
        values.ndim
        and is_mesh
        and all(
            np.array_equal(index.reshape(-1), np.arange(size))
            for index, size in zip(wanted[1:], values.shape[1:], strict=True)
        )
    ):
        return cast(npt.NDArray[Any], values[wanted[0].reshape(-1)])
    return cast(npt.NDArray[Any], values[wanted])


class OneVersionPipeline(CheckedPipeline):
    """zarr-python's codecs; what was read is of the version that was opened, or an error."""

    async def read(
        self, batch_info: Iterable[ChunkInfo], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> Any:
        """Read chunks into ``out``.

        Raises
        ------
        StoreReplacedError
            If another version of the store has taken its place.
        """
        chunks = list(batch_info)
        try:
            return await super().read(chunks, out, drop_axes)
        finally:  # a mix of two versions may look like damage
            for store in {id(chunk.store): chunk.store for chunk, *_ in chunks}.values():
                if isinstance(store, OneVersion):
                    await store.check_version()


def _undecodable(chunks: Sequence[ChunkInfo], error: Exception) -> Exception:
    """Return the error for chunks of which one cannot be decoded."""
    # In shards with an index of another kind, which Zarr reads, chunks have no name.
    places = [_place_of(chunk) for chunk, *_ in chunks if hasattr(chunk, "path")]
    is_of_the_file_system = isinstance(error, OSError) and not isinstance(error, BadGzipFile)
    if isinstance(error, MnistZarrError) or is_of_the_file_system or not places:
        return error
    more = f" or one of {len(places) - 1} other chunks" if places[1:] else ""
    return _damaged(f"{places[0]}{more}", error)


def _damaged(place: str, reason: object) -> StoreError:
    return StoreError(
        f"{place}: cannot be decoded: {reason}; build the store anew, or find the damage with "
        "mnist-zarr verify"
    )


def _place_of(chunk: Any) -> str:
    """Return the name of an object with that of its store."""
    return hide_secrets(f"{chunk.store}/{chunk.path}")


register_pipeline(CheckedPipeline)
register_pipeline(ThreadedPipeline)
register_pipeline(OneVersionPipeline)


@contextlib.contextmanager
def pipeline_of(store: Store) -> Iterator[None]:
    """Let the arrays of a store be opened with its pipeline, which they keep."""
    kind: type[CheckedPipeline] = CheckedPipeline
    if isinstance(store, OneVersion):
        kind = OneVersionPipeline
    elif isinstance(store, LocalSnapshot):
        kind = ThreadedPipeline
    # The configuration is that of the process: of two threads that set it, the later to leave would
    # restore what the other one had set.
    with _OPENING, zarr.config.set({"codec_pipeline.path": f"{__name__}.{kind.__name__}"}):
        yield
