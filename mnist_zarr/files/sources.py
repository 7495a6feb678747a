"""Bytes of a path, an fsspec URL or an open file; raw or gzip.

Gzip is recognised by its first two bytes, never by the name.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.core import url_to_fs

from mnist_zarr.errors import FileFormatError, SourceError, SourceNotFoundError
from mnist_zarr.files.byte_source import READ_BYTES, ByteSource
from mnist_zarr.files.gzip_source import GZIP_MAGIC, GzipSource
from mnist_zarr.files.scratch import scratch_folder
from mnist_zarr.files.urls import (
    check_options,
    identity_of,
    is_url,
    is_web_server,
    name_failures,
    path_or_url,
    says_absence,
    shown_url,
)

PathOrFile = str | os.PathLike[str] | BinaryIO


def describe(source: PathOrFile) -> str:
    """Return the name by which messages call ``source``."""
    if isinstance(source, str | os.PathLike):
        return shown_url(os.fspath(source))
    name = getattr(source, "name", None)
    return shown_url(name) if isinstance(name, str) else f"<{type(source).__name__}>"


class LocalSource(ByteSource):
    """One version of a file of the local file system, opened anew for every read."""

    seeks_cheaply = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        # Workers of a cluster may run in another folder.
        self._path = os.path.abspath(self.name)
        with self._open("there is no such file") as file:
            self.identity = _identity_of_open(file)
            self.size = self.size_limit = os.fstat(file.fileno()).st_size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._open("the file vanished while it was being read") as file:
            if _identity_of_open(file) != self.identity:
                raise _changed(self.name)
            file.seek(offset)
            return _fill(file, buffer)

    @contextlib.contextmanager
    def _open(self, if_absent: str) -> Iterator[io.FileIO]:
        try:
            with open(self._path, "rb", buffering=0, opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceError(
                        f"{self.name}: expected a file, got a pipe or device; open it yourself, "
                        "and give the open file"
                    )
                yield file
        except FileNotFoundError as error:
            raise SourceNotFoundError(f"{self.name}: {if_absent}") from error
        except IsADirectoryError as error:
            raise SourceError(f"{self.name}: expected a file, got a folder") from error
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read: {error.strerror}") from error


class RemoteSource(ByteSource):
    """One version of a file behind an fsspec URL, read by byte ranges.

    Every read is followed by a request for the identity of the file: as an old
    version never comes back, the bytes are those of the version that was
    opened if that is still there afterwards.

    Parameters
    ----------
    url : str
        The URL.
    storage_options : dict, optional
        Passed to its file system.
    identity : str, optional
        The version to read; by default the present one.
    """

    seeks_cheaply = True

    def __init__(
        self, url: str, storage_options: dict[str, Any] | None = None, identity: str | None = None
    ) -> None:
        self._url, self.name = url, shown_url(url)
        self._storage_options = storage_options
        with self._name_failures("opened"):
            try:
                self._fs, self._path = url_to_fs(url, **(storage_options or {}))
                info = self._info()
            except FileNotFoundError as error:
                if not says_absence(error):
                    raise
                raise SourceNotFoundError(f"{self.name}: there is no such file") from error
            except ValueError as error:  # unknown protocol
                raise SourceNotFoundError(f"{self.name}: cannot be opened: {error}") from error
        self.identity = identity_of(info)
        if identity not in (None, self.identity):
            raise _changed(self.name)
        self.size = self.size_limit = info.get("size")
        self._local_copy: LocalSource | None = None
        if is_web_server(self._fs) and not _sends_ranges(self._fs, self._path):
            # Without byte ranges every read would send the whole file again.
            self._local_copy = LocalSource(_temporary_copy(self, self._fs, self._path))
            self.size = self.size_limit = self._local_copy.size
            self._check_unchanged()

    def __reduce__(self) -> tuple[type[RemoteSource], tuple[Any, ...]]:
        # Another machine does not see a local copy: it makes its own.
        return RemoteSource, (self._url, self._storage_options, self.identity)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if self._local_copy is not None:
            return self._local_copy.read_into(offset, buffer)
        stop = offset + len(buffer)
        if self.size is not None:
            stop = min(stop, self.size)
        if stop <= offset:
            return 0
        with self._name_failures("read"):
            data = self._fs.cat_file(self._path, start=offset, end=stop)
            self._check_unchanged()
        if len(data) > len(buffer):
            raise SourceError(
                f"{self.name}: asked for bytes {offset} to {stop}, got {len(data)} bytes; "
                f"the server ignores byte ranges: open 'simplecache::{self.name}'"
            )
        buffer[: len(data)] = data
        return len(data)

    def _check_unchanged(self) -> None:
        if identity_of(self._info()) != self.identity:
            raise _changed(self.name)

    def _info(self) -> Mapping[str, Any]:
        # An earlier listing may be out of date. Of all paths, as adlfs keeps that of the folder.
        self._fs.invalidate_cache()
        info: Mapping[str, Any] = self._fs.info(self._path)
        return info

    def _name_failures(self, what: str) -> contextlib.AbstractContextManager[None]:
        return name_failures(self.name, what, SourceError, SourceNotFoundError)


class FileObjectSource(ByteSource):
    """An open binary file, from its present position on.

    A file that cannot seek (a pipe) can only be read forwards. The file is not
    closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        if isinstance(cast(object, file), io.TextIOBase):
            raise SourceError(f"{describe(file)}: opened as text; open it in mode 'rb'")
        if not hasattr(cast(object, file), "readinto"):
            raise SourceError(
                f"expected a path, a URL or an open binary file, got {type(file).__name__}"
            )
        self.name = describe(file)
        self._file = file
        self._lock = threading.Lock()
        self._head = b""
        self.seeks_cheaply = file.seekable()
        if self.seeks_cheaply:
            self._start = file.tell()
            self.size = self.size_limit = max(file.seek(0, io.SEEK_END) - self._start, 0)
            self.identity = f"size {self.size}"
            file.seek(self._start)
        else:
            self._position = 0
            self.size = self.size_limit = None

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._lock:
            if self.seeks_cheaply:
                self._file.seek(self._start + offset)
                return _fill(self._file, buffer)
            try:
                return self._read_forwards(offset, buffer)
            except SourceError:
                raise
            except BaseException:
                self._position = sys.maxsize  # what was read is lost
                raise

    def _read_forwards(self, offset: int, buffer: memoryview) -> int:
        # The head is read twice: to tell gzip from raw, and to be parsed.
        if not (self._head or self._position):
            head = bytearray(4096)
            self._head = bytes(head[: _fill(self._file, memoryview(head))])
            self._position = len(self._head)
        got = max(min(len(self._head) - offset, len(buffer)), 0)
        buffer[:got] = self._head[offset : offset + got]
        if got == len(buffer):
            return got
        if offset + got < self._position:
            raise SourceError(
                f"{self.name}: cannot go back to byte {offset} in a file that cannot seek; "
                "save it to disk first"
            )
        while self._position < offset + got:
            skipped = self._file.read(min(offset + got - self._position, READ_BYTES))
            if not skipped:
                return got
            self._position += len(skipped)
        more = _fill(self._file, buffer[got:])
        self._position += more
        return got + more


def open_bytes(
    source: PathOrFile | ByteSource, *, storage_options: dict[str, Any] | None = None
) -> ByteSource:
    """Open a path, an fsspec URL or a binary file, and decode gzip.

    Parameters
    ----------
    source : str, os.PathLike, binary file or ByteSource
        What to read.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    SourceError
        If it cannot be read.
    FileFormatError
        If it is gzip inside gzip, or the first gzip data are damaged.
    OptionError
        If it is no path or URL, or ``storage_options`` is no dictionary.
    MissingExtraError
        If the package that knows the URL is not installed.
    """
    check_options(storage_options)
    encoded: ByteSource
    if isinstance(source, ByteSource):
        encoded = source
    elif not isinstance(source, str | os.PathLike):
        encoded = FileObjectSource(source)
    elif is_url(name := path_or_url(source)):
        encoded = RemoteSource(name, storage_options)
    else:
        encoded = LocalSource(name)
    if encoded.read(0, 2) != GZIP_MAGIC:
        return encoded
    decoded = GzipSource(encoded)
    if decoded.read(0, 2) == GZIP_MAGIC:
        raise FileFormatError(
            f"{encoded.name}: byte 0 of the gunzipped data: gzip inside gzip; "
            "the file was compressed twice: gunzip it once"
        )
    return decoded


def _open_without_waiting(path: str, flags: int) -> int:
    # Else a pipe that nobody writes to would be waited for.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _fill(file: Any, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer):
        got = file.readinto(buffer[filled:])
        if not got:
            break
        filled += got
    return filled


def _identity_of_open(file: io.FileIO) -> str:
    # Not its inode: workers of a cluster may have copies of their own, with the same times.
    status = os.fstat(file.fileno())
    return f"mtime {status.st_mtime_ns} ns, size {status.st_size}"


def _changed(name: str) -> SourceError:
    return SourceError(
        f"{name}: the file was changed while it was being read; open it again when nothing "
        "writes to it"
    )


def _sends_ranges(fs: fsspec.AbstractFileSystem, url: str) -> bool:
    try:
        with fs.open(url, cache_type="none") as file:
            file.seek(1)
            file.read(1)
    except ValueError:  # fsspec's answer for a server that only sends whole files
        return False
    return True


def _temporary_copy(owner: object, fs: fsspec.AbstractFileSystem, path: str) -> Path:
    with contextlib.ExitStack() as stack:
        folder = scratch_folder(Path(tempfile.gettempdir()), "mnist-zarr-")
        copy = stack.enter_context(folder) / "copy"
        fs.get_file(path, os.fspath(copy))
        weakref.finalize(owner, stack.pop_all().close)
    return copy
