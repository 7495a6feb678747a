"""Places whose objects are written one by one: buckets, and stores that the caller opened."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Hashable, Iterator
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from mnist_zarr.errors import StoreError
from mnist_zarr.files.urls import check_takes_files, hide_secrets, shown_url
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import OPENING_NAMES, sync
from mnist_zarr.stores.lineage import same_objects
from mnist_zarr.stores.object_reader import ObjectReader, open_reader
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.snapshot import root_identity
from mnist_zarr.stores.upload import Upload


class ObjectPlace(Place):
    """A place whose objects are written one by one."""

    opens_one_version = False

    def check_complete(self, store: Store) -> None:
        """Leave it to the end of the upload, which lists the objects anyway."""


class BucketFolder(ObjectPlace):
    """``s3://bucket/mnist.zarr``, any fsspec URL: objects, which do not open before the last."""

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self._url, self.name = url, shown_url(url)
        self._options = storage_options
        self._reader: Store | None = None

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        return not _is_in_memory(self._store())

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        store = self._store()
        check_takes_files(store.fs, self.name, StoreError)
        if "//" in store.path:
            raise StoreError(f"{self.name}: has nothing between two slashes; leave one out")
        store.is_immutable = immutable
        with _upload(self.name, store, overwrite) as upload:
            yield upload

    def open(self) -> Store:
        if self._reader is None:
            self._reader = open_reader(self._url, self._options)
        return self._reader

    def identity(self) -> Hashable | None:
        return identity_of_root(self.open())

    def changes_under(self, store: Store) -> bool:
        return same_objects(self._store(), store)

    def _store(self) -> BucketStore:
        return BucketStore.from_url(self._url, self._options)


class GivenStore(ObjectPlace):
    """A Zarr store object, which the caller has opened."""

    def __init__(self, store: Store) -> None:
        self.name = hide_secrets(str(store))
        self._store = store
        self.is_shared = not _is_in_memory(store)

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        with _upload(self.name, self._store, overwrite) as upload:
            yield upload

    def open(self) -> Store:
        return self._store

    def identity(self) -> Hashable | None:
        return identity_of_root(self._store)

    def changes_under(self, store: Store) -> bool:
        return same_objects(self._store, store)


@contextlib.contextmanager
def _upload(name: str, store: Store, overwrite: bool) -> Iterator[Upload]:
    upload = Upload(store)
    upload.begin(name, overwrite=overwrite)
    try:
        yield upload
    except BaseException:
        upload.give_up()
        raise
    upload.finish(name)


def identity_of_root(store: Store) -> Hashable | None:
    """Return what tells this version of a store from any other: that of its root document."""
    if isinstance(store, LocalStore):
        return root_identity(store.root)
    for name in OPENING_NAMES:
        if isinstance(store, BucketStore | ObjectReader):
            identity = sync(store.identity(name))
        else:
            document = sync(store.get(name, default_buffer_prototype()))
            identity = document and hashlib.sha256(document.to_bytes()).hexdigest()
        if identity is not None:
            return identity
    return None


def _is_in_memory(store: Store) -> bool:
    """Whether no other process can write to the store."""
    if isinstance(store, FsspecStore):
        return isinstance(getattr(store.fs, "sync_fs", store.fs), MemoryFileSystem)
    return isinstance(store, MemoryStore)
