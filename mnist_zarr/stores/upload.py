"""Stores written object by object, which do not open before they are complete.

An object store has no folder to rename. While a store is being written, the object
``.unfinished`` marks its place and names the build. Chunks come first; the old metadata go when
the first one is ready, and the new metadata come when all are there, the root's last.

Two builds at one place notice each other: each writes its own sign (the marker; the metadata)
before it looks for that of the other, so that at least one of them sees both, and gives up.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping, Set
from typing import Any, Self

from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from mnist_zarr.errors import StoreError, TargetBusyError, already_exists
from mnist_zarr.files.urls import hide_secrets, name_failures
from mnist_zarr.stores.bucket import BucketStore, md5_of
from mnist_zarr.stores.inventory import (
    Inventory,
    Promises,
    arrays_in,
    list_infos,
    open_documents,
)
from mnist_zarr.stores.keys import (
    MARKER,
    OPENING_NAMES,
    as_buffer,
    foreign_keys,
    is_document,
    keys_of,
    reads_as,
    root_first,
    root_last,
    sync,
)

MARKER_TEXT = (
    "A Zarr store is being written here; it is complete when this object is gone.\nBuild {}\n"
)
# Bytes and MD5 of each object that was sent.
Receipt = dict[str, tuple[int, str]]
# How long a build believes that the place is still its own.
TRUST_SECONDS = 1.0


class Marker:
    """The object that says which build writes at a place."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._content = MARKER_TEXT.format(secrets.token_hex(8)).encode()
        self._trusted_until = 0.0

    def put(self) -> None:
        """Mark the place, whoever else has done so."""
        sync(self._store.set(MARKER, as_buffer(self._content)))

    def is_there(self) -> bool:
        """Whether the place is still marked by this build."""
        return sync(reads_as(self._store, MARKER, self._content))

    def remove(self) -> None:
        """Remove the mark."""
        sync(self._store.delete(MARKER))

    async def check(self) -> None:
        """Raise a :class:`TargetBusyError` if another build has begun here, or this one ended."""
        began = time.monotonic()
        if began >= self._trusted_until:
            if not await reads_as(self._store, MARKER, self._content):
                raise _taken_over(self._store)
            self._trusted_until = began + TRUST_SECONDS


class Upload(WrapperStore[Store]):
    """A store being written object by object that does not open before it is complete.

    Metadata documents that are set are held back until :meth:`finish`. Chunks
    that the target has already, from an interrupted upload, are not sent again.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The target.
    """

    # Else, since zarr 3.4, a pipeline of threads writes to the target itself, past `set`.
    _supports_sync_io = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._marker = Marker(store)
        self._may_be_there = self._is_retired = self._replaces = False
        self._own_keys: set[str] = set()  # of the store that is replaced
        self._documents: dict[str, Buffer] = {}
        self._beside: set[str] = set()
        self._sent: Receipt = {}
        self._lock = asyncio.Lock()

    def _with_store(self, store: Store) -> Self:
        same = type(self)(store)
        same.__dict__.update(self.__dict__, _store=store)
        return same

    def __getstate__(self) -> dict[str, Any]:
        # It travels to workers, which write from now on.
        if not self._is_retired:
            sync(self._retire())
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_sent")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _sent={}, _lock=asyncio.Lock())

    def begin(self, name: str, *, overwrite: bool) -> None:
        """Mark the place. What is there stays readable until the first chunk is set.

        Raises
        ------
        TargetExistsError
            If there is a whole store and ``overwrite`` is false.
        StoreError
            If there are objects that are no store, and no unfinished one.
        """
        present = keys_of(self._store)
        self._replaces = not present.isdisjoint(OPENING_NAMES)
        if self._replaces and not overwrite:
            raise already_exists(name)
        if present and not self._replaces and MARKER not in present:
            raise StoreError(
                f"{name}: has objects, such as {min(present)!r}, but is not a Zarr store; choose "
                "another name, or remove them yourself"
            )
        self._may_be_there = bool(present)
        self._own_keys = present - foreign_keys(present)
        with name_failures(name, "written"):
            self._marker.put()

    def give_up(self) -> None:
        """Remove the marker, if what was there is still as it was."""
        if not self._is_retired and self._replaces and self._marker.is_there():
            self._marker.remove()

    async def _retire(self) -> None:
        """Remove the metadata of the old store: from now on its chunks are overwritten."""
        async with self._lock:
            if self._is_retired:
                return
            documents = [key async for key in self._store.list() if is_document(key)]
            if not self._replaces and any(key in OPENING_NAMES for key in documents):
                raise _taken_over(self._store)
            for key in sorted(documents, key=root_first):
                await self._store.delete(key)
            self._is_retired = True

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if is_document(key):
            self._documents[key] = value
            return
        self._beside.add(key)
        with name_failures(f"{self._store}/{key}", "written"):
            if not self._is_retired:
                await self._retire()
            await self._marker.check()
            data = value.to_bytes()
            self._sent[key] = len(data), hashlib.md5(data, usedforsecurity=False).hexdigest()
            if not (self._may_be_there and await self._is_there(key, data)):
                await self._store.set(key, value)

    def receipt(self, keys: Iterable[str]) -> Receipt:
        """Return what was sent under these keys."""
        return {key: self._sent[key] for key in keys}

    def add_receipt(self, receipt: Receipt) -> None:
        """Take note of what a copy of this upload has sent in another process."""
        self._sent.update(receipt)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        # By way of `set`: a WrapperStore passes this on to the target, documents too.
        await Store.set_if_not_exists(self, key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await Store._set_many(self, values)

    async def _is_there(self, key: str, data: bytes) -> bool:
        if isinstance(self._store, BucketStore):
            return await self._store.holds(key, data)
        return await reads_as(self._store, key, data)

    def finish(self, name: str) -> None:
        """Remove what is not of this store, then write the metadata, the root's last.

        Raises
        ------
        StoreError
            If an object that the metadata promise is not there, or not as it was sent.
        TargetBusyError
            If another build has begun here meanwhile.
        """
        sync(self._retire())
        infos = list_infos(self._store)
        stale = self._check_arrived(name, infos)
        with name_failures(name, "written"):
            if not self._marker.is_there():
                raise _taken_over(name)
            for key in stale:
                sync(self._store.delete(key))
            for key in sorted(self._documents, key=root_last):
                sync(self._store.set(key, self._documents[key]))
            if not self._marker.is_there():
                for key in sorted(self._documents, key=root_first):
                    sync(self._store.delete(key))
                raise _taken_over(name)
            self._marker.remove()

    def _check_arrived(self, name: str, infos: Mapping[str, Mapping[str, Any]]) -> Set[str]:
        """Return the keys of objects that the store does not need any more."""
        sizes = {key: info["size"] for key, info in infos.items()}
        arrays = tuple(arrays_in(open_documents(self._documents)))
        # What lies under a name that this build has not sent is of another one.
        sent_sizes = {key: sizes.get(key, 0) for key in self._sent}
        sent = Inventory(arrays, sent_sizes, Promises(self._documents))
        if missing := sent.describe_missing():
            raise StoreError(f"{name}: {missing}, did not arrive; run the same command again")
        changed = [key for key, sent in self._sent.items() if _differs(infos.get(key), *sent)]
        if changed:
            raise TargetBusyError(
                f"{name}: {len(changed):,} objects are not as they were sent, such as "
                f"{min(changed)!r}: another build has written here; run the same command again"
            )
        known = set(sizes) | self._documents.keys()
        own = self._own_keys | (known - foreign_keys(known))
        needed = set(sent.promised()) | self._beside | self._documents.keys() | {MARKER}
        return own & (set(sizes) - needed)


def _differs(info: Mapping[str, Any] | None, size: int, md5: str) -> bool:
    return info is None or info["size"] != size or md5_of(info) not in (None, md5)


def _taken_over(place: object) -> TargetBusyError:
    return TargetBusyError(
        f"{hide_secrets(str(place))}: another build of this target has begun, or ended, since this "
        "one began, and nothing of this one is visible; run it again"
    )
