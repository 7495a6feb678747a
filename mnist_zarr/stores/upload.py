"""Stores written object by object, which do not open before they are complete.

An object store has no folder to rename. While a store is being written, its root document is the
lease of the build (see :mod:`mnist_zarr.stores.lease`), which nothing opens. Chunks come first, the
other metadata when all are there, and last the root document takes the place of the lease, on the
condition that it is still this build's.

Every object besides is created only where there is none, or replaces the version that the build
has seen there. So a request that a build without a lease still has under way cannot change what
another one has written since, and before the root document is written, each object is as it was
sent. What remains possible: a build is halted for longer than its lease between its last look at
the clock and a request about an object that the next one leaves as it is, because its content is
right already, or leaves out, since it is blank in a copy. :func:`mnist_zarr.verify` finds that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Set
from typing import Any, Self

from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from mnist_zarr.errors import StoreError, TargetBusyError, already_exists
from mnist_zarr.files.urls import name_failures
from mnist_zarr.stores.bucket import md5_of
from mnist_zarr.stores.inventory import (
    Inventory,
    Promises,
    arrays_in,
    list_infos,
    open_documents,
)
from mnist_zarr.stores.keys import (
    OPENING_NAMES,
    ROOT,
    foreign_keys,
    is_document,
    keys_of,
    root_first,
    root_last,
    run_on_objects,
    sync,
    unfinished_by,
)
from mnist_zarr.stores.lease import Lease
from mnist_zarr.stores.objects import Found, ObjectChangedError, Version, found_in, objects_of

# Bytes and MD5 of each object that was sent.
Receipt = dict[str, tuple[int, str]]
# How often an object is sent again that another writer, which has lost its lease, has changed.
ATTEMPTS = 5


class Upload(WrapperStore[Store]):
    """A store being written object by object that does not open before it is complete.

    Metadata documents that are set are held back until :meth:`finish`. Chunks
    that the target has already, from an interrupted upload, are not sent again.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The target.
    name : str
        What messages call it.
    """

    # Else, since zarr 3.4, a pipeline of threads writes to the target itself, past `set`.
    _supports_sync_io = False

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store)
        self._name = name
        self._lease = Lease(objects_of(store), name)
        self._is_old_store_closed = self._replaces = self._resumes = False
        # The root document as it was in the beginning.
        self._root_document: bytes | None = None
        self._root_version: Version | None = None
        self._known_documents: set[str] = set()
        self._own_keys: set[str] = set()  # of the store that is replaced
        # What was there in the beginning and has not been replaced yet; None if one has to look.
        self._present: dict[str, Found | None] | None = None
        self._documents: dict[str, Buffer] = {}
        self._sent: Receipt = {}
        self._lock = asyncio.Lock()

    def _with_store(self, store: Store) -> Self:
        same = type(self)(store, self._name)
        same.__dict__.update(self.__dict__, _store=store)
        return same

    def __getstate__(self) -> dict[str, Any]:
        # It travels to workers, which write from now on.
        if not self._is_old_store_closed:
            sync(self._close_old_store())
        # What is there may be too much to travel with every chunk.
        left_here = {"_lock", "_sent", *(["_present"] if self._present else [])}
        return {k: v for k, v in self.__dict__.items() if k not in left_here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_present": None} | state, _sent={}, _lock=asyncio.Lock())

    def begin(self, *, overwrite: bool) -> None:
        """Take the place. A store that is there stays readable until the first chunk is set.

        Raises
        ------
        TargetExistsError
            If there is a whole store and ``overwrite`` is false.
        TargetBusyError
            If another build is under way here.
        StoreError
            If there are objects that are no store, and no unfinished one.
        """
        present = keys_of(self._store)
        if ROOT in present:
            # In this order: what is read is of this version, or the place cannot be taken.
            found = sync(self._lease.objects.look(ROOT))
            self._root_version = found and found.version
            self._root_document = sync(self._lease.objects.read(ROOT))
        self._resumes = unfinished_by(self._root_document) is not None
        self._replaces = not (self._resumes or present.isdisjoint(OPENING_NAMES))
        if self._replaces and not overwrite:
            raise already_exists(self._name)
        if present and not (self._replaces or self._resumes):
            raise StoreError(
                f"{self._name}: has objects, such as {min(present)!r}, but is not a Zarr store; "
                "choose another name, or remove them yourself"
            )
        if self._resumes:
            self._root_version = self._lease.await_place(self._root_version)
            present = keys_of(self._store)
        self._own_keys = present - foreign_keys(present)
        self._known_documents = {key for key in present if is_document(key)}
        if not self._replaces:
            sync(self._lease.take(self._root_version))

    def give_up(self) -> None:
        """End the lease. What was there stays, if it is still as it was."""
        with contextlib.suppress(StoreError):  # the failure that led here matters more
            if self._is_old_store_closed or self._resumes:
                sync(self._lease.give_up())
            else:
                sync(self._lease.end(self._root_document))

    async def _close_old_store(self) -> None:
        """Remove the metadata of the old store: from now on its chunks are overwritten."""
        async with self._lock:
            if self._is_old_store_closed:
                return
            if self._replaces:
                await self._lease.take(self._root_version)
            await self._lease.check()
            self._present = await self._lease.objects.list()
            documents = {key for key in self._present if is_document(key)} - {ROOT}
            if not documents <= self._known_documents:
                raise self._lease.taken_over()
            for key in sorted(documents, key=root_first):
                await self._remove(key, self._present.pop(key))
            self._is_old_store_closed = True

    async def _remove(self, key: str, found: Found | None) -> None:
        await self._lease.check()
        try:
            await self._lease.objects.remove(key, found and found.version)
        except ObjectChangedError as error:
            raise self._lease.taken_over() from error

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if is_document(key):
            self._documents[key] = value
            return
        with name_failures(f"{self._store}/{key}", "written"):
            if not self._is_old_store_closed:
                await self._close_old_store()
            data = value.to_bytes()
            self._sent[key] = len(data), hashlib.md5(data, usedforsecurity=False).hexdigest()
            await self._send(key, data)

    async def _send(self, key: str, data: bytes) -> None:
        """Write an object in the place of what is there, unless that is the same."""
        objects, found = self._lease.objects, None
        if self._present is None or key in self._present:
            known = self._present and self._present.pop(key, None)
            found = known or await objects.look(key)
        for attempt in range(ATTEMPTS):
            if await objects.holds(key, found, data):
                return
            await self._lease.check(afresh=attempt > 0)
            try:
                await objects.put(key, data, found and found.version)
            except ObjectChangedError:
                found = await objects.look(key)
            else:
                return
        raise self._lease.taken_over()

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

    def finish(self) -> None:
        """Remove what is not of this store, then write the metadata, the root's last.

        Raises
        ------
        StoreError
            If an object that the metadata promise is not there, or not as it was sent.
        TargetBusyError
            If another build has taken the place meanwhile.
        """
        sync(self._close_old_store())
        infos = list_infos(self._store)
        stale = self._check_arrived(infos)
        run_on_objects(lambda key: sync(self._remove(key, found_in(infos[key]))), stale)
        for key in sorted(self._documents.keys() - {ROOT}, key=root_last):
            with name_failures(f"{self._store}/{key}", "written"):
                sync(self._send(key, self._documents[key].to_bytes()))
        root = self._documents.get(ROOT)
        sync(self._lease.end(None if root is None else root.to_bytes()))

    def _check_arrived(self, infos: Mapping[str, Mapping[str, Any]]) -> Set[str]:
        """Return the keys of objects that the store does not need any more."""
        sizes = {key: info["size"] for key, info in infos.items()}
        arrays = tuple(arrays_in(open_documents(self._documents)))
        # What lies under a name that this build has not sent is of another one.
        sent_sizes = {key: sizes.get(key, 0) for key in self._sent}
        sent = Inventory(arrays, sent_sizes, Promises(self._documents))
        if missing := sent.describe_missing():
            raise StoreError(f"{self._name}: {missing}, did not arrive; run the same command again")
        changed = [key for key, sent in self._sent.items() if _differs(infos.get(key), *sent)]
        if changed:
            raise TargetBusyError(
                f"{self._name}: {len(changed):,} objects are not as they were sent, such as "
                f"{min(changed)!r}: another build has written here; run the same command again"
            )
        known = set(sizes) | self._documents.keys()
        own = self._own_keys | (known - foreign_keys(known))
        needed = set(sent.promised()) | self._sent.keys() | self._documents.keys() | {ROOT}
        return own & (set(sizes) - needed)


def _differs(info: Mapping[str, Any] | None, size: int, md5: str) -> bool:
    return info is None or info["size"] != size or md5_of(info) not in (None, md5)
