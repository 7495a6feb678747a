"""Stores in the making: beside their place on a disk, or in a temporary folder.

::

    data/mnist.zarr                the target: old and whole, or absent
    data/.mnist.zarr.lock          held by the process that builds
    data/.mnist.zarr.building-k3x/ a scratch folder: random name, closed to other users
        new/                       the new store, until it is complete
        old/                       the old one, for a moment, where two names cannot be swapped

Everything is on the disk before a name changes, and the old store is removed last.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import LocalStore

from mnist_zarr.errors import StoreError, TargetBusyError, already_exists
from mnist_zarr.files.output import wrap_os_errors
from mnist_zarr.files.scratch import NEW, OLD, is_own, scratch_folder
from mnist_zarr.stores.place import Place

# The folder may be removed by the build before, between its making and the locking.
LOCK_ATTEMPTS = 5


class LocalPlace(Place):
    """A place on the disk of this machine. A link is followed.

    Parameters
    ----------
    path : pathlib.Path
        Where the store is.
    name : str
        What messages call it.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    @abstractmethod
    def _check_is_store(self, place: Path) -> None:
        """Raise a :class:`StoreError` if what is there is not a store of this kind, and no more."""

    @abstractmethod
    def _move(self, fresh: Path, place: Path) -> None:
        """Put the finished store at its place, in one step where the system can."""

    def _rescue(self, place: Path, scratch: Path) -> None:
        """Finish what a killed build had begun to move, before its folder is removed."""
        if (scratch / OLD).exists() and not place.exists():
            (scratch / OLD).rename(place)

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        if not self.path.name:
            raise StoreError(f"{self.name!r}: is no name for a store; choose another one")
        with wrap_os_errors(self.name, "built", StoreError):
            place = Path(os.path.realpath(self.path))
            self._check_replaceable(place, overwrite)
            prefix, rescue = f".{place.name}.building-", partial(self._rescue, place)
            with (
                _target_lock(place, self.name),
                scratch_folder(place.parent, prefix, rescue) as scratch,
            ):
                self._check_replaceable(place, overwrite)
                fresh = scratch / NEW
                fresh.mkdir()
                yield LocalStore(fresh)
                for rest in fresh.rglob("*.partial"):  # of a worker that died while it was writing
                    rest.unlink()
                self._check_replaceable(place, overwrite)
                self._move(fresh, place)

    def _check_replaceable(self, place: Path, overwrite: bool) -> None:
        if os.path.lexists(place):
            if not overwrite:
                raise already_exists(self.name)
            self._check_is_store(place)


@contextlib.contextmanager
def stage() -> Iterator[LocalStore]:
    """Open an empty store in a temporary folder, from which it is sent elsewhere."""
    with scratch_folder(Path(tempfile.gettempdir()), "mnist-zarr-") as scratch:
        (scratch / NEW).mkdir()
        yield LocalStore(scratch / NEW)


@contextlib.contextmanager
def _target_lock(place: Path, name: str) -> Iterator[None]:
    """Hold the lock of a target; make the folder that it is in."""
    made = [parent for parent in place.parents if not parent.exists()]
    path = place.with_name(f".{place.name}.lock")
    lock = _acquire(path, name)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        for folder in made:
            with contextlib.suppress(OSError):  # there is something in it, the store at best
                folder.rmdir()


def _acquire(path: Path, name: str) -> FileLock:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        try:
            if os.path.lexists(path) and not is_own(path, stat.S_ISREG):
                raise StoreError(
                    f"{name}: cannot be built while {path} is a link or belongs to somebody else; "
                    "remove it"
                )
            lock.acquire()
        except Timeout as error:
            raise TargetBusyError(
                f"{name}: another build of this target is under way (it holds {path}); wait for "
                "it, or choose another name"
            ) from error
        except FileNotFoundError:
            if attempt == LOCK_ATTEMPTS:
                raise
        else:
            break
    return lock
