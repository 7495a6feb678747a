"""Where stores live: a target becomes a Zarr store to write into, or to read from.

The only module that tells the kinds of targets apart:

========================================== ============================================
``mnist.zarr``, ``file:///mnist.zarr``     a folder, made beside its place and moved there
``mnist.zarr.zip``                         a single file, likewise
``s3://bucket/mnist.zarr``, any fsspec URL objects; unreadable until the last one is written
``s3://bucket/mnist.zarr.zip``             a single object
``icechunk+s3://bucket/mnist``             one commit of an Icechunk repository
a Zarr store object                        as objects
========================================== ============================================
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore, ZipStore

from mnist_zarr.errors import OptionError, StoreError, StoreNotFoundError, already_exists
from mnist_zarr.files.urls import is_url, name_failures, protocol_of
from mnist_zarr.stores.bucket import BucketStore, object_headers
from mnist_zarr.stores.icechunk_repo import Transaction, is_repository, open_branch
from mnist_zarr.stores.keys import (
    copy_objects,
    is_document,
    keys_of,
    object_keys,
    read_object,
    root_first,
    sync,
)
from mnist_zarr.stores.snapshot import LocalSnapshot
from mnist_zarr.stores.staging import build_beside, not_a_store
from mnist_zarr.stores.upload import Upload
from mnist_zarr.stores.zip_file import holds_store, is_archive, pack

# Entries of a zip file are read here and there, but fsspec reads megabytes ahead.
READ_AHEAD_BYTES = 1 << 14
READ_AHEAD_OF_PROTOCOL = {
    "http": {"block_size": READ_AHEAD_BYTES},
    "https": {"block_size": READ_AHEAD_BYTES},
    "s3": {"default_block_size": READ_AHEAD_BYTES},
}
Target = str | os.PathLike[str] | Store


def name_of(target: Target) -> str:
    """Return what messages call the target."""
    return str(target) if isinstance(target, Store) else os.fspath(target)


@contextlib.contextmanager
def create_store(
    target: Target,
    *,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    immutable: bool = False,
) -> Iterator[Store]:
    """Open an empty store to write into; it takes the target's place at the end.

    Where nothing can be moved into place, as in an object store, the metadata
    documents are held back until the end, and what an interrupted writer of
    the same content has left is not sent again.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    overwrite : bool
        Whether to replace an existing store.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL, or to Icechunk.
    immutable : bool
        Whether caches may keep the chunks of an object store for ever.

    Yields
    ------
    zarr.abc.store.Store

    Raises
    ------
    TargetExistsError
        If there is something at the target and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.
    StoreError
        If the target is a folder that is not a Zarr store, or cannot be written.
    MissingExtraError
        If the package that knows the address is not installed.
    """
    name = name_of(target)
    _check_options(target, storage_options)
    if isinstance(target, Store):
        way = _upload(target, name, overwrite)
    elif is_repository(target):
        way = _commit(name, overwrite, storage_options)
    elif (place := local_path(target)) is not None:
        way = _build_locally(Path(place), name, overwrite)
    elif is_archive(target):
        way = _send_file(name, overwrite, storage_options, immutable)
    else:
        bucket = BucketStore.from_url(name, storage_options=storage_options)
        if "//" in bucket.path:
            raise StoreError(f"{name}: has nothing between two slashes; leave one out")
        bucket.is_immutable = immutable
        way = _upload(bucket, name, overwrite)
    with way as store:
        yield store


def open_readable(target: Target, storage_options: dict[str, Any] | None = None) -> Store:
    """Return the store at the target, to read from.

    Raises
    ------
    StoreNotFoundError
        If there is nothing.
    StoreError
        If it cannot be reached.
    MissingExtraError
        If the package that knows the address is not installed.
    """
    _check_options(target, storage_options)
    if isinstance(target, Store):
        return target
    name = name_of(target)
    if is_repository(target):
        return open_branch(name, storage_options)
    if (place := local_path(target)) is not None:
        if not os.path.exists(place):
            raise _not_found(name)
        if is_archive(place):
            return _open_zip(place, name)
        return LocalSnapshot(place)
    if not is_archive(target):
        return BucketStore.from_url(name, storage_options=storage_options, read_only=True)
    # The options go to the outer file system, not to the one that reads zip files.
    protocol = protocol_of(name)
    options = {**READ_AHEAD_OF_PROTOCOL.get(protocol, {}), **(storage_options or {})}
    return BucketStore.from_url(f"zip::{name}", {protocol: options}, read_only=True)


def _check_options(target: Target, storage_options: dict[str, Any] | None) -> None:
    if storage_options and (isinstance(target, Store) or local_path(target) is not None):
        kind = "a store object" if isinstance(target, Store) else "a path of this machine"
        raise OptionError(
            f"{name_of(target)}: is {kind}, which takes no storage_options, got "
            f"{', '.join(storage_options)}; is the 's3://' missing?"
        )


def _open_zip(place: str, name: str) -> Store:
    try:
        return sync(ZipStore.open(place, mode="r"))
    except (OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{name}: cannot be opened as a zip file: {error}") from error


def _not_found(name: str) -> StoreNotFoundError:
    return StoreNotFoundError(f"{name}: there is no Zarr store; make one with 'mnist-zarr build'")


def local_path(target: str | os.PathLike[str]) -> str | None:
    """Return the path of a target on this machine's disk, None of any other."""
    name = os.fspath(target)
    if name.startswith(("file://", "local://")):
        return str(LocalFileSystem._strip_protocol(name))
    return None if is_url(name) else name


def is_place_of(
    target: Target, store: Store, storage_options: dict[str, Any] | None = None
) -> bool:
    """Whether to write to the target is to change the objects of ``store`` one by one."""
    if isinstance(target, Store):
        return target is store
    if local_path(target) is not None or is_repository(target) or is_archive(target):
        return False  # what is there is replaced at the end
    place = BucketStore.from_url(name_of(target), storage_options)
    return isinstance(store, FsspecStore) and (place.fs, place.path) == (store.fs, store.path)


def is_of_this_process(store: Store) -> bool:
    """Whether the store is in memory or in a temporary folder: no other machine can write to it."""
    inner = store._store if isinstance(store, WrapperStore) else store
    if isinstance(inner, FsspecStore):
        return isinstance(getattr(inner.fs, "sync_fs", inner.fs), MemoryFileSystem)
    return isinstance(inner, MemoryStore | _StagedStore)


@contextlib.contextmanager
def _upload(place: Store, name: str, overwrite: bool) -> Iterator[Store]:
    upload = Upload(place)
    upload.begin(name, overwrite=overwrite)
    yield upload
    upload.finish(name)


class _StagedStore(LocalStore):
    """A store in a temporary folder, which other machines of a cluster do not see."""


@contextlib.contextmanager
def _staging() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mnist-zarr-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _send_file(
    name: str, overwrite: bool, storage_options: dict[str, Any] | None, immutable: bool
) -> Iterator[Store]:
    with name_failures(name, "used as an address"):
        fs, path = url_to_fs(name, **(storage_options or {}))
    with name_failures(name, "read"):
        if fs.exists(path):
            _check_archive_replaceable(fs, path, name, overwrite)
    with _staging() as folder:
        fresh, packed = folder / "store", folder / "packed"
        fresh.mkdir()
        yield _StagedStore(fresh)
        pack(fresh, packed)
        with name_failures(name, "written"):
            headers = object_headers(fs, "application/zip", is_immutable=immutable)
            fs.put_file(os.fspath(packed), path, **headers)


@contextlib.contextmanager
def _commit(name: str, overwrite: bool, storage_options: dict[str, Any] | None) -> Iterator[Store]:
    transaction = Transaction(name, storage_options)
    if sync(transaction.store.exists("zarr.json")) and not overwrite:
        raise already_exists(name)
    with _staging() as folder:
        staged = _StagedStore(folder)
        yield staged
        documents = {key: read_object(staged, key) for key in keys_of(staged) if is_document(key)}
        if "zarr.json" not in documents:
            raise StoreError(f"{name}: Icechunk holds stores of Zarr format 3 only")
        with name_failures(name, "written"):
            sync(transaction.store.clear())
            for key in sorted(documents, key=root_first):  # it takes chunks of known arrays only
                sync(transaction.store.set(key, documents[key]))
            copy_objects(staged, transaction.store, object_keys(documents))
        transaction.commit(_describe(staged))


def _check_archive_replaceable(fs: Any, path: str, name: str, overwrite: bool) -> None:
    if not overwrite:
        raise already_exists(name)
    with fs.open(path, "rb") as file:
        if not holds_store(file):
            raise not_a_store(name, "file")


def _describe(store: Store) -> str:
    """Return a line that says what the store is, from its metadata."""
    group = zarr.open_group(store, mode="r")
    said = [group.attrs[name] for name in ("title", "software") if name in group.attrs]
    shapes = [f"{name} {array.shape}" for name, array in group.arrays()]
    return "; ".join([*map(str, said), ", ".join(sorted(shapes))])


@contextlib.contextmanager
def _build_locally(place: Path, name: str, overwrite: bool) -> Iterator[Store]:
    with build_beside(place, name, overwrite=overwrite) as folder:
        yield LocalStore(folder)
