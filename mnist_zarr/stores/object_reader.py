"""Stores behind URLs, to read from: through obstore, and through fsspec where that cannot.

obstore answers the first requests of a process several times as fast as the file systems of fsspec.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from typing import Any, TypeVar

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from mnist_zarr.errors import MissingExtraError
from mnist_zarr.files.urls import name_failures, protocol_of, shown_url
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import PARALLEL_REQUESTS
from mnist_zarr.stores.obstore_clients import client_for
from mnist_zarr.stores.read_only import ReadOnlyStore

T = TypeVar("T")

# What obstore and what fsspec call the version of an object.
VERSION_NAMES = {"GCSStore": ("version", "generation"), "AzureStore": ("e_tag", "etag")}


def open_reader(url: str, storage_options: dict[str, Any] | None = None) -> Store:
    """Return the objects behind an fsspec URL, to read from. Nothing is asked yet.

    Raises
    ------
    StoreError
        If the options are not those of its file system.
    MissingExtraError
        If no package that knows the address is installed.
    """
    client = client_for(url, storage_options or {})
    if client is None:
        return BucketStore.from_url(url, storage_options, read_only=True)
    return ObjectReader(url, storage_options, client)


class ObjectReader(ReadOnlyStore):
    """Objects that obstore reads. Whatever it cannot do, the file system of fsspec is asked for.

    So there are the same objects and the same errors as of a :class:`BucketStore`. Once fsspec has
    answered a question that obstore could not, it is asked all others as well, and in a process
    that was forked, where the threads of obstore are not, all from the first.

    Parameters
    ----------
    url : str
        An fsspec URL.
    storage_options : dict, optional
        Those of its file system.
    client : obstore.store.ObjectStore
        The objects.
    """

    def __init__(self, url: str, storage_options: dict[str, Any] | None, client: Any) -> None:
        super().__init__()
        self._url, self._options = url, storage_options
        self._objects = _Objects(client)
        self._pid = os.getpid()
        self._needs_fsspec = False
        self.supports_listing = protocol_of(url) not in ("http", "https")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_reader, (self._url, self._options)

    def __str__(self) -> str:
        return shown_url(self._url).rstrip("/")

    def __repr__(self) -> str:
        return f"ObjectReader('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectReader) and self.__reduce__() == other.__reduce__()

    __hash__ = Store.__hash__

    @functools.cached_property
    def through_fsspec(self) -> BucketStore:
        """The same objects, through fsspec."""
        return BucketStore.from_url(self._url, self._options, read_only=True)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return await self._ask("read", key, lambda store: store.get(key, prototype, byte_range))

    async def exists(self, key: str) -> bool:
        return await self.info(key) is not None

    async def getsize(self, key: str) -> int:
        return await self._ask("read", key, lambda store: store.getsize(key))

    async def info(self, key: str) -> Mapping[str, Any] | None:
        """Return size and version of an object, as fsspec calls them; None if it is not there."""
        try:
            return await self._ask("read", key, lambda store: store.info(key))
        except FileNotFoundError:
            return None

    async def infos(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what a listing says of every object, by key; at least its ``size``."""
        return await self._ask("listed", "", lambda store: store.infos())

    async def list(self) -> AsyncIterator[str]:
        for key in await self.infos():
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async def collect(store: Any) -> tuple[str, ...]:
            return tuple([name async for name in store.list_dir(prefix)])

        for name in await self._ask("listed", prefix, collect):
            yield name

    async def _ask(self, what: str, key: str, question: Callable[[Any], Awaitable[T]]) -> T:
        if self._needs_fsspec or self._pid != os.getpid():
            return await question(self.through_fsspec)
        with name_failures(f"{self}/{key}".rstrip("/"), what):
            try:
                return await question(self._objects)
            except Exception as error:
                if _says_absence(error):
                    raise
                try:
                    through_fsspec = self.through_fsspec
                except MissingExtraError:
                    raise error from None
            answer = await question(through_fsspec)
        self._needs_fsspec = True
        return answer


class _Objects:
    """The objects as obstore knows them, asked in threads.

    The threads of its asynchronous functions call Python, which aborts a process that ends at
    that moment.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            data = await _in_thread(self._read, key, byte_range)
        except FileNotFoundError as error:
            if _says_absence(error):
                return None
            raise
        return prototype.buffer.from_bytes(data)

    def _read(self, key: str, byte_range: ByteRequest | None) -> Any:
        import obstore

        match byte_range:
            case RangeByteRequest(start, end):
                return obstore.get_range(self._client, key, start=start, end=end)
            case OffsetByteRequest(offset):
                options: Any = {"range": {"offset": offset}}
            case SuffixByteRequest(n_bytes):
                if type(self._client).__name__ == "AzureStore":  # does not count from the end
                    size = self._head(key)["size"]
                    start = max(0, size - n_bytes)
                    return obstore.get_range(self._client, key, start=start, end=size)
                options = {"range": {"suffix": n_bytes}}
            case _:
                options = {}
        return obstore.get(self._client, key, options=options).bytes()

    def _head(self, key: str) -> Any:
        import obstore

        return obstore.head(self._client, key)

    async def getsize(self, key: str) -> int:
        return int((await _in_thread(self._head, key))["size"])

    async def info(self, key: str) -> Mapping[str, Any]:
        said = await _in_thread(self._head, key)
        name_there, name = VERSION_NAMES.get(type(self._client).__name__, ("e_tag", "ETag"))
        changed = said["last_modified"]
        return {
            name: said.get(name_there),
            # Of a web server that does not say it, it is 1970.
            "Last-Modified": changed.timestamp() and format_datetime(changed, usegmt=True),
            "size": said["size"],
        }

    async def infos(self) -> Mapping[str, Mapping[str, Any]]:
        return await list_client(self._client)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        import obstore

        folder = f"{prefix.strip('/')}/" if prefix else ""
        found = await _in_thread(obstore.list_with_delimiter, self._client, folder or None)
        paths = [*found["common_prefixes"], *(info["path"] for info in found["objects"])]
        for path in paths:
            yield path.removeprefix(folder)


async def list_client(client: Any) -> dict[str, Mapping[str, Any]]:
    """Return what a client of obstore says of every object, by key; at least its ``size``."""
    import obstore

    infos = await asyncio.to_thread(lambda: obstore.list(client).collect())
    return {info["path"]: info for info in infos}


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads(), function, *arguments)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="obstore")


def _says_absence(error: Exception) -> bool:
    """Whether a server said that there is no such object; obstore says it of 405 too."""
    return isinstance(error, FileNotFoundError) and " 404 " in str(error)
