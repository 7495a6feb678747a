"""Places whose objects are written one by one: buckets, and stores that the caller opened."""

from __future__ import annotations

import contextlib
import hashlib
from abc import abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from mnist_zarr.errors import StoreError
from mnist_zarr.files.urls import check_takes_files, hide_secrets, identity_of, shown_url
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import (
    MAX_UNFINISHED_BYTES,
    OPENING_NAMES,
    ROOT,
    sync,
    unfinished_by,
)
from mnist_zarr.stores.lineage import same_objects
from mnist_zarr.stores.object_reader import ObjectReader, open_reader
from mnist_zarr.stores.objects import is_in_memory
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.snapshot import file_identity
from mnist_zarr.stores.upload import Upload


class ObjectPlace(Place):
    """A place whose objects are written one by one."""

    opens_one_version = False

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        return not is_in_memory(self._store())

    @abstractmethod
    def _store(self) -> Store:
        """Return the store to write into."""

    def identity(self) -> Hashable | None:
        return identity_of_root(self.open())

    def changes_under(self, store: Store) -> bool:
        return same_objects(self._store(), store)

    def check_complete(self, store: Store) -> None:
        """Leave it to the end of the upload, which lists the objects anyway."""


class BucketFolder(ObjectPlace):
    """``s3://bucket/mnist.zarr``, any fsspec URL: objects, which do not open before the last."""

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self._url, self.name = url, shown_url(url)
        self._options = storage_options
        self._reader: Store | None = None

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

    def _store(self) -> BucketStore:
        return BucketStore.from_url(self._url, self._options)


class GivenStore(ObjectPlace):
    """A Zarr store object, which the caller has opened."""

    def __init__(self, store: Store) -> None:
        self.name = hide_secrets(str(store))
        self._given = store

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        with _upload(self.name, self._given, overwrite) as upload:
            yield upload

    def open(self) -> Store:
        return self._given

    def _store(self) -> Store:
        return self._given


@contextlib.contextmanager
def _upload(name: str, store: Store, overwrite: bool) -> Iterator[Upload]:
    upload = Upload(store, name)
    try:
        upload.begin(overwrite=overwrite)
        yield upload
        upload.finish()
    except BaseException:
        upload.give_up()
        raise


def identity_of_root(store: Store) -> Hashable | None:
    """Return what tells this version of a store from any other: that of its root document."""
    for name in OPENING_NAMES:
        identity, size = _identity_and_size(store, name)
        if identity is not None:
            is_small = name == ROOT and size <= MAX_UNFINISHED_BYTES
            return None if is_small and unfinished_by(_read(store, name)) else identity
    return None


def _identity_and_size(store: Store, key: str) -> tuple[Hashable | None, int]:
    if isinstance(store, LocalStore):
        status = file_identity(store.root / key)
        return status, status[2] if status else 0
    if isinstance(store, BucketStore | ObjectReader):
        info = sync(store.info(key))
        # Some web servers do not say how long a file is.
        return (identity_of(info), info["size"] or 0) if info else (None, 0)
    document = _read(store, key)
    return (hashlib.sha256(document).hexdigest(), len(document)) if document else (None, 0)


def _read(store: Store, key: str) -> bytes | None:
    document = sync(store.get(key, default_buffer_prototype()))
    return None if document is None else document.to_bytes()
