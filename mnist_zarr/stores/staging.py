"""Local targets: made in a folder beside their place, and moved there in one step.

::

    data/mnist.zarr             the target: old and whole, or absent
    data/.mnist.zarr.building/  lock         held by the process that builds
                                new-1a2b3c/  the new store, until it is complete

The system releases the lock with the process, however that ends, so what a killed build left
behind is recognised and removed by the next one. Every build has a name of its own for the new
store: what is still being written for a build that was given up, by a worker of a cluster, never
gets into the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_zarr.errors import StoreError, TargetBusyError, already_exists
from mnist_zarr.files.output import wrap_os_errors
from mnist_zarr.stores.keys import METADATA_NAMES
from mnist_zarr.stores.zip_file import holds_store, is_archive, pack

LOCK, OLD, PACKED = "lock", "old", "packed"
# The folder may be removed by the build before, between its making and its locking.
LOCK_ATTEMPTS = 5


@contextlib.contextmanager
def build_beside(target: Path, name: str, *, overwrite: bool) -> Iterator[Path]:
    """Make an empty folder to build in; its content takes the target's place at the end.

    Parameters
    ----------
    target : pathlib.Path
        A folder, or a single file if it ends in ``.zip``. A link is followed.
    name : str
        What messages call the target.
    overwrite : bool
        Whether to replace an existing store.

    Raises
    ------
    TargetExistsError
        If there is something at the target and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.
    StoreError
        If the target is something else than a Zarr store, or cannot be written.
    """
    if "\0" in name or not target.name:
        raise StoreError(f"{name!r}: is no name for a store; choose another one")
    with wrap_os_errors(name, "built", StoreError):
        place = Path(os.path.realpath(target))
        _check_replaceable(place, name, overwrite)
        with _locked(place.with_name(f".{place.name}.building"), name) as workshop:
            old = workshop / OLD
            if old.exists() and not place.exists():
                old.rename(place)  # a killed build had moved it away
                _check_replaceable(place, name, overwrite)
            _clear(workshop)
            fresh = workshop / f"new-{secrets.token_hex(4)}"
            fresh.mkdir()
            yield fresh
            for rest in fresh.rglob("*.partial"):  # of a worker that died while it was writing
                rest.unlink()
            if is_archive(place):
                pack(fresh, workshop / PACKED)
            _check_replaceable(place, name, overwrite)
            if is_archive(place):
                (workshop / PACKED).replace(place)
            elif place.exists():
                _exchange(fresh, place, old)
            else:
                fresh.rename(place)


@contextlib.contextmanager
def _locked(workshop: Path, name: str) -> Iterator[Path]:
    if workshop.is_symlink():  # what it leads to is not ours to clear
        raise StoreError(f"{name}: cannot be built while {workshop} is a link; remove the link")
    made = [parent for parent in workshop.parents if not parent.exists()]
    lock = _acquire(workshop, name)
    try:
        yield workshop
    finally:
        try:
            _clear(workshop)
            (workshop / LOCK).unlink(missing_ok=True)
        finally:
            lock.release()
            for folder in (workshop, *made):
                with contextlib.suppress(OSError):  # there is something in it, the store at best
                    folder.rmdir()


def _acquire(workshop: Path, name: str) -> FileLock:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        workshop.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workshop / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise TargetBusyError(
                f"{name}: another build of this target is under way (it holds {workshop / LOCK}); "
                "wait for it, or choose another name"
            ) from error
        except FileNotFoundError:
            if attempt == LOCK_ATTEMPTS:
                raise
        else:
            break
    return lock


def _clear(workshop: Path) -> None:
    """Remove all but the lock, and what a worker of a build that was given up still writes."""
    for rest in workshop.iterdir():
        if rest.is_dir() and not rest.is_symlink():
            shutil.rmtree(rest, ignore_errors=True)
        elif rest.name != LOCK:
            rest.unlink()


def _check_replaceable(place: Path, name: str, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise already_exists(name)
    if is_archive(place) and place.is_file() and holds_store(place):
        return
    if is_archive(place) or not place.is_dir():
        raise not_a_store(name, "folder" if place.is_dir() else "file")
    names = os.listdir(place)
    if names and not set(names) & set(METADATA_NAMES):
        raise StoreError(
            f"{name}: is a folder but not a Zarr store (it has none of "
            f"{', '.join(METADATA_NAMES)}); remove it yourself or choose another name"
        )
    if place in (here := Path.cwd(), *here.parents):
        raise StoreError(f"{name}: is the folder that you are in; go to another one first")


def not_a_store(name: str, kind: str) -> StoreError:
    """Return the error that says so of a target that will not be replaced."""
    return StoreError(f"{name}: is a {kind}, not a Zarr store; remove it or choose another name")


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
