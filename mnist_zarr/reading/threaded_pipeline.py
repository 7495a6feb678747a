"""Decoding the chunks of local stores on plain threads.

By default zarr-python hands every chunk from its event loop to a thread and back, once to read it
and once for each codec. For chunks of some hundred kilobytes that takes as long as to decode them.
Here a few threads read, decode and copy chunk after chunk. Zarr 3.4's ``FusedCodecPipeline`` is
as fast, but neither bounds what a chunk decodes to nor names the chunk that is damaged.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Sequence
from gzip import BadGzipFile
from typing import Any, cast

import numcodecs
import numpy as np
import numpy.typing as npt
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BytesCodec, GzipCodec, ZstdCodec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline
from zarr.storage import StorePath

from mnist_zarr.errors import MnistZarrError, StoreError
from mnist_zarr.files.urls import hide_secrets
from mnist_zarr.reading.decoded_size import check_zstd, decode_gzip, decode_zstd
from mnist_zarr.stores.snapshot import LocalSnapshot, OneVersion
from mnist_zarr.stores.zip_snapshot import ZipSnapshot

# What zarr tells a pipeline of one chunk: where it is, its shape and type, which of its
# elements are wanted, and where they go.
ChunkInfo = tuple[Any, ...]
# Stores that know of which chunks it is an error that they are missing.
CheckedStore = LocalSnapshot | ZipSnapshot | OneVersion


class _PresentChunk(StorePath):
    """Where a chunk is that must be there: Zarr would fill its place, with black images."""

    async def get(
        self, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await super().get(prototype, byte_range)
        if value is None:
            raise _missing(self)
        return value


def _missing(chunk: StorePath) -> StoreError:
    place = _place_of(chunk)
    return StoreError(f"{place}: this chunk is missing; the store is damaged: build it again")


def _must_be_there(chunk: Any) -> bool:
    """Whether this is the place of a chunk in a store that promises it."""
    store = getattr(chunk, "store", None)
    promises = store.promises if isinstance(store, CheckedStore) else None
    return promises is not None and promises.include(chunk.path)


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
        present = [
            (_PresentChunk(chunk.store, chunk.path), *rest) if _must_be_there(chunk) else info
            for info in chunks
            for chunk, *rest in [info]
        ]
        try:
            return await cast(Any, super()).read(present, out, drop_axes)
        except Exception as error:
            raise _undecodable(chunks, error) from error

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
            isinstance(getattr(chunk, "store", None), LocalSnapshot) for chunk, *_ in chunks
        )

    def _read_share(self, chunks: Sequence[ChunkInfo], destination: npt.NDArray[Any]) -> None:
        is_zstd = isinstance(self._only_codec(), ZstdCodec)
        decode = decode_zstd if is_zstd else decode_gzip
        endian = getattr(self.array_bytes_codec, "endian", None)  # an enum, or since 3.2 its value
        byteorder = getattr(endian, "value", endian) or "little"
        for chunk, spec, wanted, place, *_ in chunks:
            stored = chunk.store.get_sync(chunk.path)
            if stored is None and _must_be_there(chunk):
                raise _missing(chunk)
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
    places = [_place_of(chunk) for chunk, *_ in chunks if hasattr(chunk, "path")]
    is_of_the_file_system = isinstance(error, OSError) and not isinstance(error, BadGzipFile)
    # The chunks in a shard have no path; an error of theirs is one of the shard.
    if isinstance(error, MnistZarrError) or is_of_the_file_system or not places:
        return error
    more = f" or one of {len(places) - 1} other chunks" if places[1:] else ""
    return StoreError(
        f"{places[0]}{more}: cannot be decoded: {error}; build the store anew, or find the damage "
        "with mnist-zarr verify"
    )


def _place_of(chunk: Any) -> str:
    """Return the name of an object with that of its store."""
    return hide_secrets(f"{chunk.store}/{chunk.path}")


register_pipeline(CheckedPipeline)
register_pipeline(ThreadedPipeline)
register_pipeline(OneVersionPipeline)


def pipeline_config(store: Store) -> dict[str, str]:
    """Return the Zarr configuration under which the arrays of a store are opened."""
    kind: type[CheckedPipeline] = CheckedPipeline
    if isinstance(store, OneVersion):
        kind = OneVersionPipeline
    elif isinstance(store, LocalSnapshot):
        kind = ThreadedPipeline
    return {"codec_pipeline.path": f"{__name__}.{kind.__name__}"}
