"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fsspec.core import url_to_fs

from mnist_zarr.errors import OptionError, OutputError, TargetExistsError
from mnist_zarr.files.failures import name_failures, wrap_os_errors
from mnist_zarr.files.urls import is_url


@contextlib.contextmanager
def create_file(target: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that appears under its name only when it is complete.

    A local file is written beside its place and then moved there; an object of
    an object store appears at its closing in any case.

    Raises
    ------
    TargetExistsError
        If there is such a file and ``overwrite`` is false.
    OutputError
        If it cannot be written.
    """
    name = os.fspath(target)
    with wrap_os_errors(name, "written", OutputError):
        yield from _create_file(name, overwrite)


def _create_file(name: str, overwrite: bool) -> Iterator[BinaryIO]:
    exists = _exists(name)
    if is_url(name):
        with name_failures(name, "written", OutputError, OutputError):
            fs, path = url_to_fs(name)
            if not overwrite and fs.exists(path):
                raise exists
        # In a transaction the object appears at the end, and not at all upon an error.
        with fs.transaction, fs.open(path, "wb") as file:
            yield file
        return
    place = Path(name)
    if not overwrite and place.exists():
        raise exists
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            yield file
        if overwrite:
            os.replace(beside, place)
        else:
            _move_if_absent(beside, place, exists)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def create_files(
    folder: str | os.PathLike[str], names: Sequence[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Create several files of a local folder, which appear together or not at all.

    Yields
    ------
    pathlib.Path
        A hidden folder to write the files into, by their names.

    Raises
    ------
    OptionError
        If the folder is a URL.
    TargetExistsError
        If one of the files exists and ``overwrite`` is false, or the folder is
        a file.
    OutputError
        If they cannot be written.
    """
    if is_url(folder):
        raise OptionError(f"{folder!r}: expected a local folder, got a URL")
    with wrap_os_errors(os.fspath(folder), "written", OutputError):
        yield from _create_files(Path(folder), names, overwrite)


def _create_files(place: Path, names: Sequence[str], overwrite: bool) -> Iterator[Path]:
    if place.exists() and not place.is_dir():
        raise TargetExistsError(f"{place}: is a file; expected a folder, or nothing")
    for name in names:
        if os.path.lexists(place / name) and not overwrite:
            raise _exists(place / name)
    is_new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=place))
    try:
        (hidden / "new").mkdir()
        (hidden / "old").mkdir()
        yield hidden / "new"
        _move_all(hidden, place, names, overwrite)
    finally:
        shutil.rmtree(hidden)
        if is_new:
            with contextlib.suppress(OSError):  # it has files in it
                place.rmdir()


def _move_all(hidden: Path, place: Path, names: Sequence[str], overwrite: bool) -> None:
    with contextlib.ExitStack() as undo:
        for name in names:
            if overwrite and os.path.lexists(place / name):
                (place / name).rename(hidden / "old" / name)
                undo.callback((hidden / "old" / name).rename, place / name)
            _move_if_absent(hidden / "new" / name, place / name, _exists(place / name))
            undo.callback((place / name).unlink)
        undo.pop_all()


def _exists(place: str | Path) -> TargetExistsError:
    return TargetExistsError(f"{place}: exists already; give overwrite=True to replace it")


def _move_if_absent(beside: Path, place: Path, exists: TargetExistsError) -> None:
    try:
        os.link(beside, place)  # unlike a rename it fails where something is
    except FileExistsError as error:
        raise exists from error
    except OSError:  # a file system without hard links
        if place.exists():
            raise exists from None
        os.replace(beside, place)
