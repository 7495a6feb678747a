"""Stores written object by object, which do not open before they are complete."""

from __future__ import annotations

from collections.abc import Iterable

from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from mnist_zarr.errors import StoreError, already_exists
from mnist_zarr.files.urls import name_failures
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.inventory import arrays_in, chunk_keys, open_documents, take_inventory
from mnist_zarr.stores.keys import (
    MARKER,
    OPENING_NAMES,
    as_buffer,
    is_document,
    keys_of,
    reads_as,
    root_first,
    root_last,
    sync,
)

MARKER_TEXT = b"A Zarr store is being written here; it is complete when this object is gone.\n"


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
            raise already_exists(name)
        if present and not is_whole and MARKER not in present:
            raise StoreError(
                f"{name}: has objects, such as {min(present)!r}, but is not a Zarr store; choose "
                "another name, or remove them yourself"
            )
        self._may_be_there = bool(present)
        with name_failures(name, "written"):
            if MARKER not in present:
                sync(self._store.set(MARKER, as_buffer(MARKER_TEXT)))
            for key in sorted(filter(is_document, present), key=root_first):
                sync(self._store.delete(key))

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if is_document(key):
            self._documents[key] = value
            return
        self._beside.add(key)
        with name_failures(f"{self._store}/{key}", "written"):
            if not (self._may_be_there and await self._is_there(key, value.to_bytes())):
                await self._store.set(key, value)

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
            If an object that the metadata promise is not there.
        """
        inventory = take_inventory(arrays_in(open_documents(self._documents)), self._store)
        if missing := inventory.describe_missing():
            raise StoreError(f"{name}: {missing}, did not arrive; run the same command again")
        others = set(inventory.sizes).difference(chunk_keys(inventory.arrays))
        with name_failures(name, "written"):
            for key in others - self._beside - {MARKER}:
                sync(self._store.delete(key))
            for key in sorted(self._documents, key=root_last):
                sync(self._store.set(key, self._documents[key]))
            sync(self._store.delete(MARKER))
