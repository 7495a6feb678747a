"""Private folders for what is not finished yet, and what makes it last.

A scratch folder has a name that nobody can foresee and is closed to other users. Its owner holds
the lock inside it; the system releases the lock with the process, however that ends, so that the
next one recognises and removes what a killed process left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"
# In a scratch folder: what is to take its place, and what was there before.
NEW, OLD = "new", "old"
# A folder without a lock is a folder whose owner is just about to take it, unless it is older.
GRACE_SECONDS = 600
# fsync waits for the disk, which serves several requests at once.
FLUSHING_THREADS = 16


@contextlib.contextmanager
def scratch_folder(
    parent: Path, prefix: str, rescue: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Make a scratch folder in ``parent``, and remove it at the end.

    Parameters
    ----------
    parent : pathlib.Path
        An existing folder.
    prefix : str
        How the name begins. Abandoned folders of this prefix are removed first.
    rescue : callable, optional
        Gets each abandoned folder before it is removed.

    Yields
    ------
    pathlib.Path
    """
    _remove_abandoned(parent, prefix, rescue)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = FileLock(folder / LOCK)
    lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        # A worker of a build that was given up may still have written something.
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path, prefix: str, rescue: Callable[[Path], None] | None) -> None:
    for name in os.listdir(parent):
        if not name.startswith(prefix):
            continue
        folder = parent / name
        # Its owner, or another process that removes it, may be faster at every step.
        with contextlib.suppress(OSError, Timeout):
            if not is_own(folder, stat.S_ISDIR):
                continue
            if not (folder / LOCK).exists():
                if time.time() - folder.stat().st_mtime < GRACE_SECONDS:
                    continue
                (folder / LOCK).touch()
            with FileLock(folder / LOCK, blocking=False):
                if rescue:
                    rescue(folder)
                shutil.rmtree(folder)


def is_own(path: Path, has_kind: Callable[[int], bool]) -> bool:
    """Whether the path itself, no link, is of this kind and belongs to this user."""
    status = os.lstat(path)
    is_ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return is_ours and has_kind(status.st_mode)


def flush(folder: Path) -> None:
    """Write everything in a folder to the disk, so that it survives a power cut."""
    folders, files = [folder], list[Path]()
    for root, names, leaves in os.walk(folder):
        folders += (Path(root, name) for name in names)
        files += (Path(root, leaf) for leaf in leaves)
    with ThreadPoolExecutor(FLUSHING_THREADS) as threads:
        list(threads.map(fsync, files))
        list(threads.map(fsync, folders))


def fsync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows does not open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
