"""Folders of files: those of this machine, and zip archives, which are read in place.

Hidden files do not count (``.DS_Store``, ``._001.jpg``), nor what other programs keep beside
files (``__MACOSX``, ``@eaDir``).
"""

from __future__ import annotations

import copy
import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from mnist_zarr.errors import FileFormatError, SourceError, SourceNotFoundError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.files.urls import is_url
from mnist_zarr.files.zip_source import ZIP_MAGIC, open_member, read_directory

# Of Mac's zip files, and of Synology's thumbnails.
FOREIGN_FOLDERS = ("__MACOSX", "@eaDir")
# A few bytes of an archive can claim to inflate to any number of bytes.
MAX_MEMBER_BYTES = 256 << 20


def is_archive(path: str) -> bool:
    """Whether a path or URL is that of a zip archive, by its name or the start of a local file."""
    if path.lower().endswith(".zip"):
        return is_url(path) or os.path.isfile(path)
    if is_url(path) or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


class FileFolder(ABC):
    """Files by their paths inside, with ``/``. Can be sent to other processes.

    Attributes
    ----------
    name : str
        What messages call it.
    archive : ByteSource or None
        The one file that all others are in.
    """

    name: str
    archive: ByteSource | None = None

    @abstractmethod
    def paths(self) -> Iterator[str]:
        """Yield the path of each file."""

    @abstractmethod
    def open(self, path: str) -> ByteSource:
        """Return the bytes of a file; one that is inflated is of bounded length.

        Raises
        ------
        SourceError
            If there is no such file, or it cannot be read.
        FileFormatError
            If it is a member of an archive that cannot be inflated.
        """


class LocalFiles(FileFolder):
    """A folder of this machine; links are followed."""

    def __init__(self, path: str) -> None:
        self.name = path
        # Workers of a cluster may run in another folder.
        self._path = os.path.abspath(path)

    def paths(self) -> Iterator[str]:
        yield from _walk(self.name, self._path)

    def open(self, path: str) -> ByteSource:
        return LocalSource(os.path.join(self._path, path))


def _walk(name: str, folder: str, inside: str = "", above: tuple[Any, ...] = ()) -> Iterator[str]:
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that it is in
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{name}: there is no such folder") from error
    except NotADirectoryError as error:
        raise SourceError(f"{name}: expected a folder or a zip archive, got a file") from error
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error.strerror}") from error
    for entry in found:
        if not _counts(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, entry.path, f"{inside}{entry.name}/", (*above, here))
        else:
            yield inside + entry.name


class ZipFiles(FileFolder):
    """The members of a zip archive.

    Only the directory is read before a member is opened, and nothing is ever written, so
    that members that lead out of the archive, are encrypted or claim to be huge do no harm.

    Raises
    ------
    FileFormatError
        If it is not a whole zip archive, or members have paths that no archive has.
    SourceError
        If it is read from a pipe, or is itself compressed.
    """

    def __init__(self, archive: ByteSource) -> None:
        self.name = archive.name
        self.archive: ByteSource = archive
        members: dict[str, zipfile.ZipInfo] = {}
        for written, info in read_directory(archive).items():
            path = _without_here(written)
            if not all(map(_counts, path.split("/"))):
                continue
            if path.startswith("/") or ".." in path.split("/") or "\\" in path:
                raise FileFormatError(
                    f"{self.name}: {path!r}: a path that leads out of the archive, or is of "
                    "another system; make the archive anew"
                )
            if path in members or not path.isprintable():
                what = "is there twice" if path in members else "has characters that no file has"
                raise FileFormatError(f"{self.name}: {path!r}: {what}; make the archive anew")
            members[path] = info
        self._members: Mapping[str, zipfile.ZipInfo] = members

    def paths(self) -> Iterator[str]:
        yield from self._members

    def below(self, folder: str) -> ZipFiles:
        """Return the members in a folder of the archive, by their paths in it."""
        chosen = copy.copy(self)
        chosen._members = {
            path.removeprefix(folder): info
            for path, info in self._members.items()
            if path.startswith(folder)
        }
        return chosen

    def content_of(self, path: str) -> tuple[int, int]:
        """Return checksum and length of a member: those of copies are equal."""
        info = self._members[path]
        return info.CRC, info.file_size

    def open(self, path: str) -> ByteSource:
        info = self._members[path]
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SourceError(
                f"{self.name}: {path}: is a symbolic link, which is not followed in archives"
            )
        return open_member(self.archive, info)


def _without_here(path: str) -> str:
    """Return a path without its parts that lead nowhere, as "./" of tar."""
    root = "/" if path.startswith("/") else ""
    return root + "/".join(part for part in path.split("/") if part not in ("", "."))


def _counts(name: str) -> bool:
    # "." and ".." are no names of hidden files: they lead elsewhere.
    return name == ".." or not (name.startswith(".") or name in FOREIGN_FOLDERS)
