"""Stores in a folder of this machine."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Hashable
from pathlib import Path

from zarr.abc.store import Store

from mnist_zarr.errors import StoreError
from mnist_zarr.stores.keys import METADATA_NAMES
from mnist_zarr.stores.snapshot import LocalSnapshot, root_identity
from mnist_zarr.stores.staging import OLD, LocalPlace


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
        names = os.listdir(place)
        if names and not set(names) & set(METADATA_NAMES):
            raise StoreError(
                f"{self.name}: is a folder but not a Zarr store (it has none of "
                f"{', '.join(METADATA_NAMES)}); remove it yourself or choose another name"
            )
        if place in (here := Path.cwd(), *here.parents):
            raise StoreError(f"{self.name}: is the folder that you are in; go to another one first")

    def _move(self, fresh: Path, place: Path) -> None:
        if place.exists():
            _exchange(fresh, place, fresh.with_name(OLD))
        else:
            fresh.rename(place)


def _exchange(fresh: Path, place: Path, old: Path) -> None:
    """Put ``fresh`` at ``place`` and what was there at ``old``."""
    if _exchange_at_once(fresh, place):
        return
    place.rename(old)
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
