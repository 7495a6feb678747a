"""Stores in a folder of this machine."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Hashable
from pathlib import Path

from zarr.abc.store import Store

from mnist_zarr.errors import StoreError
from mnist_zarr.files.scratch import OLD, flush, fsync
from mnist_zarr.stores.keys import METADATA_NAMES, OPENING_NAMES, foreign_keys
from mnist_zarr.stores.snapshot import LocalSnapshot, root_identity
from mnist_zarr.stores.staging import LocalPlace


class LocalFolder(LocalPlace):
    """``mnist.zarr``: a folder, built beside its place and moved there."""

    def open(self) -> Store:
        if not self.path.exists():
            raise self.not_found()
        return LocalSnapshot(self.path)

    def identity(self) -> Hashable | None:
        return root_identity(self.path)

    def _check_is_store(self, place: Path) -> None:
        if not place.is_dir():
            raise self.not_a_store("file")
        files = (path for path in place.rglob("*") if path.is_symlink() or not path.is_dir())
        keys = {path.relative_to(place).as_posix() for path in files}
        if keys and keys.isdisjoint(METADATA_NAMES):
            raise StoreError(
                f"{self.name}: is a folder but not a Zarr store (it has none of "
                f"{', '.join(METADATA_NAMES)}); remove it yourself or choose another name"
            )
        if foreign := foreign_keys(keys):
            raise StoreError(
                f"{self.name}: holds {len(foreign):,} files that are not part of the store, such "
                f"as {min(foreign)!r}; move them elsewhere, or choose another name"
            )
        if place in (here := Path.cwd(), *here.parents):
            raise StoreError(f"{self.name}: is the folder that you are in; go to another one first")

    def _move(self, fresh: Path, place: Path) -> None:
        if place.exists():
            _keep_modes(place, fresh)
        flush(fresh)
        if not place.exists():
            fresh.rename(place)
        elif not _exchange_at_once(fresh, place):
            _exchange_in_two_steps(fresh, place, self.name)
        fsync(place.parent)


def _keep_modes(old: Path, fresh: Path) -> None:
    """Give a new store the permissions of the old one."""
    folder_mode = stat.S_IMODE(old.stat().st_mode)
    documents = (old / name for name in OPENING_NAMES)
    file_mode = next((stat.S_IMODE(d.stat().st_mode) for d in documents if d.exists()), None)
    for path in (fresh, *fresh.rglob("*")):
        mode = folder_mode if path.is_dir() else file_mode
        if mode is not None:
            path.chmod(mode)


def _exchange_in_two_steps(fresh: Path, place: Path, name: str) -> None:
    old = fresh.with_name(OLD)
    try:
        place.rename(old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise StoreError(
            f"{name}: the file system cannot rename this folder, as it is part of a lower layer, "
            "such as a Docker image; remove it first, or choose another name"
        ) from error
    try:
        fresh.rename(place)
    except OSError:
        old.rename(place)
        raise


def _exchange_at_once(one: Path, other: Path) -> bool:
    """Swap two names in one step, where the system can: Linux, most file systems."""
    if sys.platform != "linux":
        return False
    at_fdcwd, rename_exchange = -100, 2  # fcntl.h, linux/fs.h
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    done = renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange)
    return bool(done == 0)
