"""Stores in a single file: ``mnist.zarr.zip``, with uncompressed entries.

Chunks are compressed already, and an entry that is stored as it is can be read
in place, over HTTP too. Equal stores give equal files: entries are sorted and
carry no time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import zipfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from zarr.abc.store import Store

from mnist_zarr.errors import StoreError, already_exists
from mnist_zarr.files.scratch import fsync
from mnist_zarr.files.urls import (
    check_takes_files,
    identity_of,
    name_failures,
    protocol_of,
    shown_url,
)
from mnist_zarr.stores.bucket import BucketStore, object_headers
from mnist_zarr.stores.keys import CARD, METADATA_NAMES
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.snapshot import file_identity
from mnist_zarr.stores.staging import LocalPlace, stage
from mnist_zarr.stores.zip_snapshot import ZipSnapshot

SUFFIX = ".zip"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that the format has
READ_WRITE = 0o644 << 16  # where Unix keeps permissions
# Entries of a zip file are read here and there, but fsspec reads megabytes ahead.
READ_AHEAD_BYTES = 1 << 14
READ_AHEAD_OF_PROTOCOL = {
    "http": {"block_size": READ_AHEAD_BYTES},
    "https": {"block_size": READ_AHEAD_BYTES},
    "s3": {"default_block_size": READ_AHEAD_BYTES},
}


class LocalZip(LocalPlace):
    """``mnist.zarr.zip``: a file, built beside its place and moved there."""

    beside = (CARD,)

    def open(self) -> Store:
        if not self.path.exists():
            raise self.not_found()
        return ZipSnapshot(self.path)

    def identity(self) -> Hashable | None:
        return file_identity(self.path)

    def _check_is_store(self, place: Path) -> None:
        if not (place.is_file() and holds_store(place)):
            raise self.not_a_store("folder" if place.is_dir() else "file")

    def _move(self, fresh: Path, place: Path) -> None:
        packed = fresh.with_suffix(SUFFIX)
        pack(fresh, packed)
        if place.exists():
            packed.chmod(stat.S_IMODE(place.stat().st_mode))
        fsync(packed)
        packed.replace(place)
        fsync(place.parent)


class RemoteZip(Place):
    """``s3://bucket/mnist.zarr.zip``: a single object, packed on this machine and then sent."""

    is_shared = False
    beside = (CARD,)
    opens_one_version = False

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self._url, self.name = url, shown_url(url)
        self._options = storage_options or {}

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        fs, path = self._file_system()
        check_takes_files(fs, self.name, StoreError)
        with name_failures(self.name, "read"):
            if fs.exists(path):
                if not overwrite:
                    raise already_exists(self.name)
                with fs.open(path, "rb") as file:
                    if not holds_store(file):
                        raise self.not_a_store("file")
        with stage() as staged:
            yield staged
            packed = staged.root.with_suffix(SUFFIX)
            pack(staged.root, packed)
            with name_failures(self.name, "written"):
                headers = object_headers(fs, "application/zip", is_immutable=immutable)
                fs.put_file(os.fspath(packed), path, **headers)

    def open(self) -> Store:
        # The options go to the outer file system, not to the one that reads zip files.
        protocol = protocol_of(self._url)
        options = {**READ_AHEAD_OF_PROTOCOL.get(protocol, {}), **self._options}
        return BucketStore.from_url(f"zip::{self._url}", {protocol: options}, read_only=True)

    def identity(self) -> Hashable | None:
        fs, path = self._file_system()
        with name_failures(self.name, "read"):
            fs.invalidate_cache()
            try:
                return identity_of(fs.info(path))
            except FileNotFoundError:
                return None

    def _file_system(self) -> tuple[Any, str]:
        with name_failures(self.name, "used as an address"):
            fs, path = url_to_fs(self._url, **self._options)
        return fs, path


def is_archive(name: str) -> bool:
    """Whether the target is a single file by its name."""
    return name.endswith(SUFFIX)


def pack(folder: Path, place: Path) -> None:
    """Write the files of ``folder`` as the entries of a new zip file at ``place``."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), NO_TIME)
            entry.external_attr = READ_WRITE
            entry.file_size = path.stat().st_size
            with path.open("rb") as content, archive.open(entry, "w") as stored:
                shutil.copyfileobj(content, stored)


def holds_store(place: Path | BinaryIO) -> bool:
    """Whether the file is a zip file with a Zarr store in it."""
    try:
        with zipfile.ZipFile(place) as archive:
            return not set(archive.namelist()).isdisjoint(METADATA_NAMES)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return False
