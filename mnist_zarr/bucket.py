"""Object stores: failures with their address, and uploads that are complete or unreadable.

An object store has no folder to rename. An :class:`Upload` keeps every
metadata document in memory until all chunks are there, and writes the root's
last: before that no reader can open the store. While it is under way, the
object ``.unfinished`` marks the place as ours, so that the same command can be
run again after an interruption, and a place with other people's objects is
left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, MemoryStore, WrapperStore

from mnist_zarr.errors import StoreError, TargetExistsError
from mnist_zarr.files import EXTRA_OF_PROTOCOL, failures_named, protocol_of
from mnist_zarr.pool import open_pool

METADATA_NAMES = ("zarr.json", ".zmetadata", ".zgroup")
# Without these at its root a store does not open, whatever else is there.
OPENING_NAMES = ("zarr.json", ".zgroup")
DOCUMENT_NAMES_OF_FORMAT_2 = (".zmetadata", ".zgroup", ".zarray", ".zattrs")
DOCUMENT_NAMES = ("zarr.json", *DOCUMENT_NAMES_OF_FORMAT_2)
# Requests that wait for the network at the same time.
PARALLEL_REQUESTS = 16
# What a file system raises of an object that is not there; zarr-python has these three too.
ALLOWED_EXCEPTIONS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
MARKER = ".unfinished"
MARKER_TEXT = b"A Zarr store is being written here; it is complete when this object is gone.\n"

# An overwritten store has chunks of the same names, and old ones from a cache under new labels
# would be wrong without any sign. So caches ask again (by ETag, which moves no data), unless who
# publishes promises that the address never gets other content.
REVALIDATED = "public, no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


class BucketStore(FsspecStore):
    """A store at an fsspec URL; whatever fails is a :class:`StoreError` with the address.

    Attributes
    ----------
    is_immutable : bool
        Whether caches may keep the chunks that are written for ever.
    """

    is_immutable = False

    @classmethod
    def from_url(
        cls,
        url: str,
        storage_options: dict[str, Any] | None = None,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
    ) -> BucketStore:
        options = dict(storage_options or {})
        is_zip = url.startswith("zip::")
        name = url.removeprefix("zip::")
        what = "opened as a zip file" if is_zip else "used as an address"
        if EXTRA_OF_PROTOCOL.get(protocol_of(url)) == "s3":
            # Else s3fs asks for the size of every object before it reads it.
            options.setdefault("max_concurrency", 1)
        with failures_named(name, what):
            store = cast(BucketStore, super().from_url(url, options, read_only, allowed_exceptions))
        store.supports_listing = "http" not in store.fs.protocol
        return store

    def _reported(self, what: str, key: str = "") -> contextlib.AbstractContextManager[None]:
        return failures_named(self._place(key), what)

    def _place(self, key: str) -> str:
        return f"{self.fs.unstrip_protocol(self.path)}/{key}".rstrip("/")

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with self._reported("read", key):
            value = await super().get(key, prototype, byte_range)
        if value is None and self.read_only and not is_document(key):
            # Zarr would fill its place, with black images.
            raise StoreError(
                f"{self._place(key)}: this chunk is missing; the store is damaged: publish it again"
            )
        return value

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        with self._reported("written", key):
            path = f"{self.path}/{key}"
            is_json = key.endswith(".json") or is_document(key)
            content_type = "application/json" if is_json else "application/octet-stream"
            is_immutable = self.is_immutable and not is_json
            headers = object_headers(self.fs, content_type, is_immutable=is_immutable)
            await self.fs._pipe_file(path, value.to_bytes(), **headers)

    async def delete(self, key: str) -> None:
        with self._reported("removed", key):
            await super().delete(key)

    async def list(self) -> AsyncIterator[str]:
        with self._reported("listed"):
            self.fs.invalidate_cache()
            async for key in super().list():
                yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        with self._reported("listed", prefix):
            async for key in super().list_prefix(prefix):
                yield key

    async def getsize(self, key: str) -> int:
        with self._reported("read", key):
            return await super().getsize(key)

    async def holds(self, key: str, data: bytes) -> bool:
        """Whether the object is there with this content.

        Objects are compared by MD5 where the ETag is one (S3: sent in one part,
        not encrypted with a key of the owner's), else they are read back.
        """
        with self._reported("read", key):
            try:
                info = await self.fs._info(f"{self.path}/{key}")
            except FileNotFoundError:
                return False
        if info["size"] != len(data):
            return False
        if md5 := MD5_ETAG.fullmatch(str(info.get("ETag", ""))):
            return md5[1] == hashlib.md5(data, usedforsecurity=False).hexdigest()
        return await _reads_as(self, key, data)


class Upload(WrapperStore[Store]):
    """A store being written object by object that does not open before it is complete.

    Metadata documents that are set are held back until :meth:`finish`. Chunks
    that the target has already, from an interrupted upload, are not sent again.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The target.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._may_be_there = False
        self._documents: dict[str, Buffer] = {}
        self._beside: set[str] = set()

    def begin(self, name: str, *, overwrite: bool) -> None:
        """Make sure that nobody can open what is at the target.

        Raises
        ------
        TargetExistsError
            If there is a whole store and ``overwrite`` is false.
        StoreError
            If there are objects that are no store, and no unfinished one.
        """
        present = keys_of(self._store)
        is_whole = not present.isdisjoint(OPENING_NAMES)
        if is_whole and not overwrite:
            raise TargetExistsError(
                f"{name}: exists already; choose another name, or replace it with overwrite=True"
            )
        if present and not is_whole and MARKER not in present:
            raise StoreError(
                f"{name}: has objects, such as {min(present)!r}, but is not a Zarr store; choose "
                "another name, or remove them yourself"
            )
        self._may_be_there = bool(present)
        with failures_named(name, "written"):
            if MARKER not in present:
                sync(self._store.set(MARKER, _buffer(MARKER_TEXT)))
            for key in sorted(filter(is_document, present), key=root_first):
                sync(self._store.delete(key))

    async def set(self, key: str, value: Buffer) -> None:
        if is_document(key):
            self._documents[key] = value
            return
        self._beside.add(key)
        with failures_named(f"{self._store}/{key}", "written"):
            if not (self._may_be_there and await self._is_there(key, value.to_bytes())):
                await self._store.set(key, value)

    async def _is_there(self, key: str, data: bytes) -> bool:
        if isinstance(self._store, BucketStore):
            return await self._store.holds(key, data)
        return await _reads_as(self._store, key, data)

    def finish(self, name: str) -> None:
        """Remove what is not of this store, then write the metadata, the root's last.

        Raises
        ------
        StoreError
            If an object that the metadata promise is not there.
        """
        promised = set(object_keys(self._documents))
        present = keys_of(self._store)
        if missing := promised - present:
            raise StoreError(
                f"{name}: {len(missing)} of {len(promised)} objects did not arrive, such as "
                f"{min(missing)!r}; run the same command again"
            )
        with failures_named(name, "written"):
            for key in present - promised - self._beside - {MARKER}:
                sync(self._store.delete(key))
            for key in sorted(self._documents, key=_root_last):
                sync(self._store.set(key, self._documents[key]))
            sync(self._store.delete(MARKER))


def object_headers(fs: Any, content_type: str, *, is_immutable: bool) -> dict[str, Any]:
    """Return the arguments with which a file system sets the headers of an object it writes."""
    protocols = [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
    cache_control = IMMUTABLE if is_immutable else REVALIDATED
    if "s3" in protocols:
        return {"ContentType": content_type, "CacheControl": cache_control}
    if "gs" in protocols:
        fixed = {"cache_control": cache_control}
        return {"content_type": content_type, "fixed_key_metadata": fixed}
    if "abfs" in protocols:
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_type=content_type, cache_control=cache_control)
        return {"content_settings": settings}
    return {}


def object_keys(documents: Mapping[str, Buffer]) -> Iterator[str]:
    """Yield the key of every chunk, or shard, that these metadata documents promise."""
    for _, node in open_documents(documents).members(max_depth=None):
        if isinstance(node, zarr.Array):
            yield from chunk_keys(node)


def open_documents(documents: Mapping[str, Buffer]) -> zarr.Group:
    """Return the group that these metadata documents describe, without its chunks."""
    return zarr.open_group(MemoryStore(dict(documents)), mode="r")


def read_documents(store: Store) -> dict[str, Buffer]:
    """Return every metadata document of a store.

    Web servers do not list: there, the consolidated metadata say which there are.
    """
    if store.supports_listing:
        return {key: read_object(store, key) for key in keys_of(store) if is_document(key)}
    prototype = default_buffer_prototype()
    documents: dict[str, Buffer] = {}

    def read(folder: str, names: Iterable[str]) -> None:
        for key in (f"{folder}{name}" for name in names):
            if (document := sync(store.get(key, prototype))) is not None:
                documents[key] = document

    # Asked for what is not there, some servers of objects answer that it is forbidden.
    names: tuple[str, ...] = ("zarr.json",)
    read("", names)
    if not documents:
        names = DOCUMENT_NAMES_OF_FORMAT_2
        read("", names)
    if documents:
        for path, _ in open_documents(documents).members(max_depth=None):
            read(f"{path}/", names)
    return documents


def chunk_keys(array: zarr.Array[Any]) -> Iterator[str]:
    """Yield the key of every chunk, or shard, of an array."""
    sizes = array.shards or array.chunks
    counts = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
    for index in np.ndindex(*counts):
        yield f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def stored_sizes(array: zarr.Array[Any]) -> dict[str, int]:
    """Return the bytes of every object of an array, its metadata document included.

    Web servers do not list: there, every object is asked for its size.
    """
    store = array.store
    sizes: dict[str, int] = {}

    def ask(key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            sizes[key] = sync(store.getsize(key))

    if store.supports_listing:
        keys = keys_of(store, f"{array.path}/")
    else:
        keys = {*chunk_keys(array), *(f"{array.path}/{name}" for name in DOCUMENT_NAMES)}
    run_on_objects(ask, keys)
    return sizes


async def _reads_as(store: Store, key: str, data: bytes) -> bool:
    stored = await store.get(key, default_buffer_prototype())
    return stored is not None and stored.to_bytes() == data


def keys_of(store: Store, prefix: str = "") -> set[str]:
    """Return the keys of all objects that begin so."""

    async def collect() -> set[str]:
        return {key async for key in (store.list_prefix(prefix) if prefix else store.list())}

    with failures_named(f"{store}/{prefix}".rstrip("/"), "listed"):
        return sync(collect())


def copy_objects(source: Store, target: Store, keys: Iterable[str]) -> None:
    """Copy objects in parallel, a bounded number at a time."""

    def copy(key: str) -> None:
        sync(target.set(key, read_object(source, key)))

    run_on_objects(copy, keys)


def run_on_objects(task: Callable[[str], None], keys: Iterable[str]) -> None:
    """Run ``task`` for every key, a bounded number at the same time."""
    with open_pool(PARALLEL_REQUESTS, n_threads=PARALLEL_REQUESTS) as pool:
        for key in keys:
            pool.submit(task, key)


def read_object(store: Store, key: str) -> Buffer:
    """Return an object.

    Raises
    ------
    StoreError
        If it is not there.
    """
    with failures_named(f"{store}/{key}", "read"):
        value = sync(store.get(key, default_buffer_prototype()))
    if value is None:
        raise StoreError(f"{store}: {key}: is missing")
    return value


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def is_document(key: str) -> bool:
    """Whether the object is a metadata document of Zarr."""
    return _name(key) in DOCUMENT_NAMES


def root_first(key: str) -> tuple[int, str]:
    """Sort metadata documents so that the root's come first."""
    return key.count("/"), key


def _root_last(key: str) -> tuple[int, bool]:
    return -key.count("/"), key in OPENING_NAMES


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
