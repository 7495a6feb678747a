"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fsspec.core import url_to_fs

from mnist_zarr.errors import (
    MnistZarrError,
    OptionError,
    OutputError,
    TargetExistsError,
    already_exists,
)
from mnist_zarr.files.scratch import NEW, OLD, flush, fsync, scratch_folder
from mnist_zarr.files.urls import (
    check_takes_files,
    is_url,
    name_failures,
    path_or_url,
    shown_url,
)


@contextlib.contextmanager
def wrap_os_errors(name: str, what: str, kind: type[MnistZarrError]) -> Iterator[None]:
    """Turn an error of the operating system, such as a full disk, into one of ours."""
    try:
        yield
    except MnistZarrError:
        raise
    except OSError as error:
        # Not the name in it, which may be that of a temporary file.
        reason = error.strerror or str(error)
        raise kind(f"{name}: was not {what}: {reason}") from error


def check_writable(file: BinaryIO) -> BinaryIO:
    """Return a file of the caller's, if bytes can be written to it.

    Raises
    ------
    OptionError
        If they cannot.
    """
    given: object = file
    if not hasattr(given, "write"):
        raise OptionError(
            f"expected a path, a URL or a binary file open for writing, got {type(given).__name__}"
        )
    if isinstance(given, io.TextIOBase) or not getattr(given, "writable", lambda: True)():
        raise OptionError(f"{given!r}: cannot be written to; open the file in mode 'wb'")
    return file


@contextlib.contextmanager
def create_file(target: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that appears under its name only when it is complete.

    A local file is written beside its place, flushed to the disk and then moved
    there; an object store shows an object only once it is closed. What a killed
    process has left is removed by the next one.

    Raises
    ------
    OptionError
        If the target is no path or URL.
    TargetExistsError
        If the file exists and ``overwrite`` is false.
    OutputError
        If it cannot be written, or its folder does not exist.
    MissingExtraError
        If the package that knows the URL is not installed.
    """
    name = path_or_url(target)
    with wrap_os_errors(shown_url(name), "written", OutputError):
        yield from _create_file(name, overwrite)


def _create_file(name: str, overwrite: bool) -> Iterator[BinaryIO]:
    if is_url(name):
        with name_failures(name, "written", OutputError, OutputError):
            fs, path = url_to_fs(name)
            check_takes_files(fs, shown_url(name), OutputError)
            if not overwrite and fs.exists(path):
                raise already_exists(shown_url(name))
        # In a transaction the object appears at the end, and not at all upon an error.
        with fs.transaction, fs.open(path, "wb") as file:
            yield file
        return
    place = Path(name)
    if not overwrite and place.exists():
        raise already_exists(name)
    if not place.parent.is_dir():
        raise OutputError(f"{name}: was not written: there is no folder {str(place.parent)!r}")
    with scratch_folder(place.parent, f".{place.name}.writing-") as scratch:
        beside = scratch / NEW
        with open(beside, "xb") as file:
            yield file
        fsync(beside)
        if overwrite:
            os.replace(beside, place)
        else:
            _move_if_absent(beside, place)
        fsync(place.parent)


@contextlib.contextmanager
def create_files(
    folder: str | os.PathLike[str], names: Sequence[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Create several files in a local folder, which appear together or not at all.

    Yields
    ------
    pathlib.Path
        A hidden folder to write the files of these names into.

    Raises
    ------
    OptionError
        If the folder is a URL.
    TargetExistsError
        If one of the files exists and ``overwrite`` is false, or there is a
        file in place of the folder.
    OutputError
        If they cannot be written.
    """
    name = path_or_url(folder, "a local folder")
    if is_url(name):
        raise OptionError(f"{shown_url(name)!r}: expected a local folder, got a URL")
    with wrap_os_errors(name, "written", OutputError):
        yield from _create_files(Path(name), names, overwrite)


def _create_files(place: Path, names: Sequence[str], overwrite: bool) -> Iterator[Path]:
    if place.exists() and not place.is_dir():
        raise TargetExistsError(f"{place}: is a file; expected a folder, or nothing")
    for name in names:
        if os.path.lexists(place / name) and not overwrite:
            raise already_exists(place / name)
    is_new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    try:
        with scratch_folder(place, ".incomplete-", partial(_put_back, place)) as hidden:
            (hidden / NEW).mkdir()
            (hidden / OLD).mkdir()
            yield hidden / NEW
            flush(hidden / NEW)
            _move_all(hidden, place, names, overwrite)
            fsync(place)
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # not empty
                place.rmdir()


def _move_all(hidden: Path, place: Path, names: Sequence[str], overwrite: bool) -> None:
    with contextlib.ExitStack() as undo:
        for name in names:
            if overwrite and os.path.lexists(place / name):
                (place / name).rename(hidden / OLD / name)
                undo.callback((hidden / OLD / name).rename, place / name)
            _move_if_absent(hidden / NEW / name, place / name)
            undo.callback((place / name).unlink)
        undo.pop_all()


def _put_back(place: Path, abandoned: Path) -> None:
    """Return the files that a killed process had moved aside and not replaced."""
    for old in (abandoned / OLD).glob("*"):
        if not os.path.lexists(place / old.name):
            old.rename(place / old.name)


def _move_if_absent(beside: Path, place: Path) -> None:
    try:
        os.link(beside, place)  # unlike a rename, fails if the name is taken
    except FileExistsError as error:
        raise already_exists(place) from error
    except OSError:  # a file system without hard links
        if place.exists():
            raise already_exists(place) from None
        os.replace(beside, place)
