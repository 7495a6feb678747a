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
import os
import secrets
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import LocalStore

from mnist_zarr.errors import StoreError, TargetBusyError
from mnist_zarr.files.failures import wrap_os_errors
from mnist_zarr.stores.place import Place

LOCK, OLD = "lock", "old"
# The folder may be removed by the build before, between its making and its locking.
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
        """Raise a :class:`StoreError` if what is there is not a store of this kind."""

    @abstractmethod
    def _move(self, fresh: Path, place: Path) -> None:
        """Put the finished store at its place, in one step where the system can."""

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        if "\0" in self.name or not self.path.name:
            raise StoreError(f"{self.name!r}: is no name for a store; choose another one")
        with wrap_os_errors(self.name, "built", StoreError):
            place = Path(os.path.realpath(self.path))
            self._check_replaceable(place, overwrite)
            with _locked(place.with_name(f".{place.name}.building"), self.name) as workshop:
                old = workshop / OLD
                if old.exists() and not place.exists():
                    old.rename(place)  # a killed build had moved it away
                    self._check_replaceable(place, overwrite)
                _clear(workshop)
                fresh = workshop / f"new-{secrets.token_hex(4)}"
                fresh.mkdir()
                yield LocalStore(fresh)
                for rest in fresh.rglob("*.partial"):  # of a worker that died while it was writing
                    rest.unlink()
                self._check_replaceable(place, overwrite)
                self._move(fresh, place)

    def _check_replaceable(self, place: Path, overwrite: bool) -> None:
        if os.path.lexists(place):
            if not overwrite:
                raise self.already_exists()
            self._check_is_store(place)


class TemporaryStore(LocalStore):
    """A store in a temporary folder, which other machines of a cluster do not see."""


@contextlib.contextmanager
def stage() -> Iterator[TemporaryStore]:
    """Open an empty store in a temporary folder, from which it is sent elsewhere."""
    with tempfile.TemporaryDirectory(prefix="mnist-zarr-") as folder:
        yield TemporaryStore(folder)


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
