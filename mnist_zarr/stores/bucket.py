"""Stores at fsspec URLs: failures that name the URL, versions and headers of objects."""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from mnist_zarr.files.urls import (
    EXTRA_OF_PROTOCOL,
    is_web_server,
    name_failures,
    protocol_of,
    protocols_of,
    shown_url,
)
from mnist_zarr.stores.keys import PAGE, check_document_size, is_document

# An overwritten store has chunks of the same names, and old ones from a cache under new labels
# would be wrong without any sign. So caches ask again (by ETag, which moves no data), unless who
# publishes promises that the address never gets other content.
REVALIDATED = "public, no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
CHUNK_TYPE = "application/octet-stream"
# The answer of a web server that does not count from the end.
RANGE_NOT_SATISFIABLE = 416
MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


class BucketStore(FsspecStore):
    """A store at an fsspec URL; whatever fails is a :class:`StoreError` with the address.

    Attributes
    ----------
    is_immutable : bool
        Whether caches may keep the chunks that are written for ever.
    """

    is_immutable = False
    _fs: Any
    _fs_pid: int

    @property
    def fs(self) -> Any:
        """The file system; after a fork another one, since connections belong to one process."""
        if self._fs_pid != os.getpid():
            self.fs = _reconnect(self._fs)
        return self._fs

    @fs.setter
    def fs(self, fs: Any) -> None:
        self._fs, self._fs_pid = fs, os.getpid()

    @classmethod
    def from_url(  # type: ignore[override]  # without the exceptions that mean absence
        cls, url: str, storage_options: dict[str, Any] | None = None, read_only: bool = False
    ) -> BucketStore:
        options = dict(storage_options or {})
        name = url.removeprefix("zip::")
        what = "used as an address" if name == url else "opened as a zip file"
        if EXTRA_OF_PROTOCOL.get(protocol_of(url)) == "s3":
            # Else s3fs asks for the size of every object before it reads it.
            options.setdefault("max_concurrency", 1)
        with name_failures(name, what):
            store = cast(BucketStore, super().from_url(url, options, read_only))
        store.supports_listing = not is_web_server(store.fs)
        return store

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        store = cast(BucketStore, super().with_read_only(read_only))
        store.supports_listing, store.is_immutable = self.supports_listing, self.is_immutable
        return store

    def reported(self, what: str, key: str = "") -> contextlib.AbstractContextManager[None]:
        """Turn failures into errors that name the object."""
        return name_failures(self._place(key), what)

    def _place(self, key: str) -> str:
        return f"{shown_url(self.fs.unstrip_protocol(self.path))}/{key}".rstrip("/")

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with self.reported("read", key):
            protocols = protocols_of(self.fs)
            if "zip" in protocols and is_document(key) and await super().exists(key):
                # Its directory is here already: this is no request.
                check_document_size(self._place(key), await super().getsize(key))
            try:
                if isinstance(byte_range, SuffixByteRequest) and "abfs" in protocols:
                    byte_range = await self._from_start(key, byte_range)  # adlfs cannot do it
                value = await super().get(key, prototype, byte_range)
            except Exception as error:
                is_refused = getattr(error, "status", None) == RANGE_NOT_SATISFIABLE
                if not (is_refused and isinstance(byte_range, SuffixByteRequest)):
                    raise
                byte_range = await self._from_start(key, byte_range)
                value = await super().get(key, prototype, byte_range)
        return value if value is None else _part(value, byte_range)

    async def _from_start(self, key: str, byte_range: SuffixByteRequest) -> RangeByteRequest:
        """Return the range of the last bytes of an object for who does not count from the end."""
        size = await super().getsize(key)
        return RangeByteRequest(max(0, size - byte_range.suffix), size)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        self._check_writable()
        if byte_range is not None:
            raise NotImplementedError("objects are written as a whole")
        with self.reported("written", key):
            await self.fs._pipe_file(f"{self.path}/{key}", value.to_bytes(), **self.headers(key))

    def headers(self, key: str) -> dict[str, Any]:
        """Return the arguments with which the file system sets the headers of an object."""
        content_type = _content_type(key)
        is_immutable = self.is_immutable and content_type == CHUNK_TYPE
        return object_headers(self.fs, content_type, is_immutable=is_immutable)

    async def delete(self, key: str) -> None:
        self._check_writable()
        with self.reported("removed", key):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()
        with self.reported("removed", prefix):
            await super().delete_dir(prefix)

    async def clear(self) -> None:
        self._check_writable()
        with self.reported("removed"):
            await super().clear()

    async def exists(self, key: str) -> bool:
        with self.reported("read", key):
            return await super().exists(key)

    async def list(self) -> AsyncIterator[str]:
        with self.reported("listed"):
            self.fs.invalidate_cache()
            async for key in super().list():
                yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        with self.reported("listed", prefix):
            self.fs.invalidate_cache()
            async for key in super().list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with self.reported("listed", prefix):
            self.fs.invalidate_cache()
            async for key in super().list_dir(prefix):
                yield key

    async def getsize(self, key: str) -> int:
        with self.reported("read", key):
            return await super().getsize(key)

    async def info(self, key: str) -> Mapping[str, Any] | None:
        """Return what the file system says of an object now; None if it is not there."""
        self.fs.invalidate_cache()
        with self.reported("read", key):
            try:
                info: Mapping[str, Any] = await self.fs._info(f"{self.path}/{key}")
            except FileNotFoundError as error:
                # So fsspec calls it too if a web server does not answer at all.
                cause = error.__cause__
                if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                    raise cause from None
                return None
        return None if info["type"] == "directory" else info

    async def infos(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what a listing says of every object, by key; at least its ``size``."""
        with self.reported("listed"):
            return await list_objects(self)


def _reconnect(fs: Any) -> Any:
    """Return a file system of this process like one of another process."""
    if hasattr(fs, "sync_fs"):  # Zarr has wrapped one that is not asynchronous
        return type(fs)(_reconnect(fs.sync_fs), asynchronous=True)
    return pickle.loads(pickle.dumps(fs))


def _part(value: Buffer, byte_range: ByteRequest | None) -> Buffer:
    """Return the part that was asked for, of what may be all: some web servers give no parts."""
    match byte_range:
        case RangeByteRequest(start, end) if len(value) > end - start:
            return value[start:end]
        case SuffixByteRequest(n_bytes) if len(value) > n_bytes:
            return value[-n_bytes:]
    return value


def _content_type(key: str) -> str:
    if key.endswith(".json") or is_document(key):
        return "application/json"
    return "text/html; charset=utf-8" if key == PAGE else CHUNK_TYPE


def md5_of(info: Mapping[str, Any]) -> str | None:
    """Return the MD5 that an object store states of an object, in hexadecimal digits.

    S3: the ETag of what was sent in one part and is not encrypted with a key of
    the owner's; Google: base64; Azure: bytes.
    """
    if etag := MD5_ETAG.fullmatch(str(info.get("ETag", ""))):
        return etag[1]
    if encoded := info.get("md5Hash"):
        return base64.b64decode(encoded).hex()
    settings = info.get("content_settings")
    stated = settings.get("content_md5") if isinstance(settings, Mapping) else None
    return bytes(stated).hex() if stated else None


def object_headers(fs: Any, content_type: str, *, is_immutable: bool) -> dict[str, Any]:
    """Return the arguments with which a file system sets the headers of an object it writes."""
    protocols = protocols_of(fs)
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


async def list_objects(store: FsspecStore) -> dict[str, Mapping[str, Any]]:
    """Return what the listing of a store says of every object, by key; at least its ``size``."""
    store.fs.invalidate_cache()
    # In fsspec an underscore marks what is asynchronous, not what is private.
    found = await store.fs._find(store.path, detail=True)
    folder = f"{store.path}/"
    return {path.removeprefix(folder): info for path, info in found.items()}
