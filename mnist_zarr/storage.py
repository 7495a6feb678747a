"""Where stores live: a target becomes a Zarr store to write into.

The only module that knows a local folder from an object store. A local build
happens in a folder beside the target::

    data/mnist.zarr             the target: old and whole, or absent
    data/.mnist.zarr.building/  lock    held by the process that builds
                                store/  the new store, until it is complete

and takes the target's place in one step. The system releases the lock with the
process, however that ends, so what a killed build left behind is recognised
and removed by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from mnist_zarr.errors import StoreError, TargetBusyError, TargetExistsError
from mnist_zarr.files import is_url

Target = str | os.PathLike[str] | Store

METADATA_NAMES = ("zarr.json", ".zmetadata", ".zgroup")


@contextlib.contextmanager
def create_store(
    target: Target, *, overwrite: bool = False, storage_options: dict[str, Any] | None = None
) -> Iterator[Store]:
    """Open an empty store to write into; it takes the target's place at the end.

    Whoever writes puts the root metadata last, so that a target that cannot be
    moved into place as a whole (an object store) is unreadable until complete.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, or a Zarr store object.
    overwrite : bool
        Whether to replace an existing store.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

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
    """
    if isinstance(target, Store):
        yield _emptied(target, str(target), overwrite)
    elif is_url(target):
        remote = FsspecStore.from_url(os.fspath(target), storage_options=storage_options)
        yield _emptied(remote, os.fspath(target), overwrite)
    else:
        with _build_beside(Path(os.path.realpath(target)), os.fspath(target), overwrite) as store:
            yield store


def _emptied(store: Store, name: str, overwrite: bool) -> Store:
    if not sync(store.is_empty("")):
        if not overwrite:
            raise _exists(name)
        for metadata in METADATA_NAMES:  # first, so that nobody opens what is being removed
            sync(store.delete(metadata))
        sync(store.clear())
    return store


def _exists(name: str) -> TargetExistsError:
    return TargetExistsError(
        f"{name}: exists already; choose another name, or replace it with overwrite=True"
    )


@contextlib.contextmanager
def _build_beside(place: Path, name: str, overwrite: bool) -> Iterator[Store]:
    _check_replaceable(place, name, overwrite)
    workshop = place.with_name(f".{place.name}.building")
    with _locked(workshop, name):
        fresh, old = workshop / "store", workshop / "old"
        if old.exists() and not place.exists():
            old.rename(place)  # a killed build had moved it away
            _check_replaceable(place, name, overwrite)
        _remove(fresh)
        _remove(old)
        fresh.mkdir()
        yield LocalStore(fresh)
        for rest in fresh.rglob("*.partial"):  # of a worker that died while it was writing
            rest.unlink()
        if place.exists():
            _check_replaceable(place, name, overwrite)
            _exchange(fresh, place, old)
        else:
            fresh.rename(place)


@contextlib.contextmanager
def _locked(workshop: Path, name: str) -> Iterator[None]:
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workshop / "lock", blocking=False)
        lock.acquire()
    except Timeout as error:
        raise TargetBusyError(
            f"{name}: another build of this target is under way (it holds {workshop / 'lock'}); "
            "wait for it, or choose another name"
        ) from error
    except OSError as error:
        raise StoreError(f"{name}: cannot be written: {error}") from error
    try:
        yield
    finally:
        for part in ("store", "old"):
            _remove(workshop / part)
        (workshop / "lock").unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # the next build may have begun
            workshop.rmdir()


def _check_replaceable(place: Path, name: str, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise _exists(name)
    if not place.is_dir():
        raise StoreError(f"{name}: is a file, not a Zarr store; remove it or choose another name")
    names = os.listdir(place)
    if names and not set(names) & set(METADATA_NAMES):
        raise StoreError(
            f"{name}: is a folder but not a Zarr store (it has none of "
            f"{', '.join(METADATA_NAMES)}); remove it yourself or choose another name"
        )


def _exchange(fresh: Path, place: Path, old: Path) -> None:
    """Put ``fresh`` at ``place`` and what was there at ``old``."""
    if _exchange_at_once(fresh, place):
        fresh.rename(old)
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


def _remove(path: Path) -> None:
    if os.path.lexists(path):
        shutil.rmtree(path)
