"""Bytes of files: from a path, an fsspec URL or an open file; raw or gzip.

A :class:`ByteSource` answers one question: which bytes stand at this offset?
It keeps no file open, so any number of sources can be alive at once, be used
from several threads, and travel to other processes. Gzip is recognised by its
first two bytes, never by the name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.core import url_to_fs
from zlib_ng import zlib_ng

from mnist_zarr.errors import (
    IdxFormatError,
    MissingExtraError,
    MnistZarrError,
    OptionError,
    OutputError,
    SourceError,
    SourceNotFoundError,
    StoreError,
    StoreNotFoundError,
    TargetExistsError,
)

PathOrFile = str | os.PathLike[str] | BinaryIO

# The stubs of zlib-ng declare it as an instance.
InflateError = cast(type[Exception], zlib_ng.error)
GZIP_MAGIC = b"\x1f\x8b"
EXTRA_OF_PROTOCOL = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}
READ_BYTES = 1 << 20
# What is read at once where nobody knows how much there is.
STEP_BYTES = 4 << 20
# One symbol of deflate is at least one bit and gives at most 258 bytes, a
# match needs two symbols: 258 bytes from two bits (RFC 1951, section 3.2.5).
MAX_DEFLATE_RATIO = 1032


def is_url(path: object) -> bool:
    """Whether ``path`` is an fsspec URL (``s3://...``, ``simplecache::...``)."""
    return isinstance(path, str) and ("://" in path or "::" in path)


def protocol_of(url: str) -> str:
    """Return what stands before ``://``, of the last file system in a chain of them."""
    return url.rpartition("::")[2].partition("://")[0]


@contextlib.contextmanager
def failures_named(
    place: str,
    what: str,
    kind: type[MnistZarrError] = StoreError,
    kind_if_absent: type[MnistZarrError] = StoreNotFoundError,
) -> Iterator[None]:
    """Turn whatever a file system raises into our own error, which names the place."""
    try:
        yield
    except MnistZarrError:
        raise
    except ImportError as error:
        extra = EXTRA_OF_PROTOCOL.get(protocol_of(place))
        hint = f"pip install 'mnist-zarr[{extra}]'" if extra else str(error)
        raise MissingExtraError(f"{place}: needs a package that is missing: {hint}") from error
    except FileNotFoundError as error:
        reason = _sentence(error)
        if place.startswith(reason) and error.__cause__:  # so fsspec says what a server answered
            reason = _sentence(error.__cause__)
        raise kind_if_absent(f"{place}: cannot be {what}: {reason}") from error
    except Exception as error:  # each file system has kinds of its own
        raise kind(f"{place}: cannot be {what}: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def describe(source: PathOrFile) -> str:
    """Return the name by which messages call ``source``."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"<{type(source).__name__}>"


class ByteSource(ABC):
    """Random access to the decoded bytes of one file.

    Attributes
    ----------
    name : str
        What messages call the file.
    size : int or None
        Number of decoded bytes where that is known without reading them.
    size_limit : int or None
        A number of bytes that the decoded file certainly does not exceed.
    seeks_cheaply : bool
        Whether any offset costs about the same (false for gzip and pipes).
    """

    name: str
    size: int | None
    size_limit: int | None
    seeks_cheaply: bool

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; a smaller count means the end."""

    def read(self, offset: int, count: int) -> bytearray:
        """Return ``count`` bytes, or fewer where the file ends.

        Memory grows with the bytes that are there, not with ``count``.
        """
        data, filled = bytearray(min(count, STEP_BYTES)), 0
        while filled < count:
            with memoryview(data) as whole, whole[filled:] as step:
                filled += self.read_into(offset + filled, step)
            if filled < len(data):
                del data[filled:]
                break
            data += bytes(min(count - filled, STEP_BYTES))
        return data

    def where(self, offset: int) -> str:
        """Name a decoded offset for a message."""
        return f"byte {offset}"

    @property
    def stored(self) -> ByteSource:
        """The bytes as stored: the encoded ones of a gzip file."""
        return self

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hexadecimal digits."""
        digest = hashlib.sha256()
        offset = 0
        while data := self.stored.read(offset, READ_BYTES):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()


class LocalSource(ByteSource):
    """A file of the local file system, opened anew for every read."""

    seeks_cheaply = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        # Workers of a cluster may run in another folder.
        self._path = os.path.abspath(self.name)
        try:
            with open(self._path, "rb") as file:
                self._identity = _identity(file)
        except FileNotFoundError as error:
            raise SourceNotFoundError(f"{self.name}: there is no such file") from error
        except IsADirectoryError as error:
            raise IdxFormatError(f"{self.name}: expected an IDX file, got a folder") from error
        self.size = self.size_limit = self._identity[0]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        try:
            with open(self._path, "rb", buffering=0) as file:
                if _identity(file) != self._identity:
                    raise IdxFormatError(
                        f"{self.name}: the file was changed while it was being read; "
                        "open it again when nothing writes to it"
                    )
                file.seek(offset)
                return _fill(file, buffer)
        except FileNotFoundError as error:
            raise SourceNotFoundError(
                f"{self.name}: the file has vanished while it was being read"
            ) from error


class RemoteSource(ByteSource):
    """A file behind an fsspec URL, read by byte ranges."""

    seeks_cheaply = True

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self.name = url
        self._storage_options = storage_options
        with self._failures_named("opened"):
            try:
                self._fs, self._path = url_to_fs(url, **(storage_options or {}))
                info = self._fs.info(self._path)
            except FileNotFoundError as error:
                raise SourceNotFoundError(f"{url}: there is no such file") from error
            except ValueError as error:  # unknown protocol
                raise SourceNotFoundError(f"{url}: cannot be opened: {error}") from error
        self.size = self.size_limit = info.get("size")
        self._local_copy: LocalSource | None = None
        is_http = "http" in self._fs.protocol or "https" in self._fs.protocol
        if is_http and not _sends_ranges(self._fs, self._path):
            # Without byte ranges every read would send the whole file again.
            self._local_copy = LocalSource(_temporary_copy(self, self._fs, self._path))
            self.size = self.size_limit = self._local_copy.size

    def _failures_named(self, what: str) -> contextlib.AbstractContextManager[None]:
        return failures_named(self.name, what, SourceError, SourceNotFoundError)

    def __reduce__(self) -> tuple[type[RemoteSource], tuple[Any, ...]]:
        # Another machine does not see a local copy: it makes its own.
        return RemoteSource, (self.name, self._storage_options)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if self._local_copy is not None:
            return self._local_copy.read_into(offset, buffer)
        stop = offset + len(buffer)
        if self.size is not None:
            stop = min(stop, self.size)
        if stop <= offset:
            return 0
        with self._failures_named("read"):
            data = self._fs.cat_file(self._path, start=offset, end=stop)
        if len(data) > len(buffer):
            raise IdxFormatError(
                f"{self.name}: asked for bytes {offset} to {stop}, got {len(data)} bytes; "
                f"the server ignores byte ranges: open 'simplecache::{self.name}'"
            )
        buffer[: len(data)] = data
        return len(data)


class FileObjectSource(ByteSource):
    """An open binary file, from its present position on.

    A file that cannot seek (a pipe) can only be read forwards. The file stays
    the caller's: it is not closed here.
    """

    def __init__(self, file: BinaryIO) -> None:
        if isinstance(cast(object, file), io.TextIOBase):
            raise IdxFormatError(f"{describe(file)}: opened as text; open it in mode 'rb'")
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
            file.seek(self._start)
        else:
            self._position = 0
            self.size = self.size_limit = None

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._lock:
            if self.seeks_cheaply:
                self._file.seek(self._start + offset)
                return _fill(self._file, buffer)
            return self._read_forwards(offset, buffer)

    def _read_forwards(self, offset: int, buffer: memoryview) -> int:
        # The head is asked for twice: to tell gzip from raw, then to be parsed.
        if not self._head:
            head = bytearray(4096)
            self._head = bytes(head[: _fill(self._file, memoryview(head))])
            self._position = len(self._head)
        got = max(min(len(self._head) - offset, len(buffer)), 0)
        buffer[:got] = self._head[offset : offset + got]
        if got == len(buffer):
            return got
        if offset + got < self._position:
            raise IdxFormatError(
                f"{self.name}: cannot go back to byte {offset} of a file that cannot seek; "
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


@dataclass
class _GzipCursor:
    """How far the decompression has come; copied to make a checkpoint."""

    offset: int  # of the next decoded byte
    raw_offset: int  # of the next encoded byte that was not fetched
    pending: bytes  # fetched, but not decoded
    inflate: Any  # a zlib decompressobj, or None between two gzip members

    def copy(self) -> _GzipCursor:
        inflate = None if self.inflate is None else self.inflate.copy()
        return _GzipCursor(self.offset, self.raw_offset, self.pending, inflate)


class GzipSource(ByteSource):
    """The decoded bytes of a gzip file (RFC 1952, several members allowed).

    Decoding is sequential. A read that goes on where the last one ended costs
    nothing extra; going back starts from one of at most ``MAX_CHECKPOINTS``
    remembered states of the decompressor (some 40 kB each), so that reading
    out of order costs at most a small part of the file again.
    """

    MAX_CHECKPOINTS = 64
    FIRST_SPACING_BYTES = 4 << 20
    ENCODING = "gzip"  # as messages call it
    # Kept, since it is asked for several times: to tell what it is, then to be parsed.
    HEAD_BYTES = 4096
    seeks_cheaply = False

    def __init__(self, encoded: ByteSource) -> None:
        self.name = encoded.name
        self.size = None
        self.size_limit = None if encoded.size is None else encoded.size * MAX_DEFLATE_RATIO
        self._encoded = encoded
        self._restart()

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._cursor = _GzipCursor(0, 0, b"", None)
        self._spacing = self.FIRST_SPACING_BYTES
        self._checkpoints = [self._cursor.copy()]
        self._head: bytes | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A decompressor cannot travel to another process: start anew there.
        kept = ("name", "size", "size_limit", "_encoded")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def where(self, offset: int) -> str:
        return f"byte {offset} of the gunzipped data"

    @property
    def stored(self) -> ByteSource:
        return self._encoded

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._lock:
            if self._head is None:
                head = bytearray(self.HEAD_BYTES)
                self._head = bytes(head[: self._decode_into(0, memoryview(head))])
            part = self._head[offset : offset + len(buffer)]
            buffer[: len(part)] = part
            return len(part) + self._decode_into(offset + len(part), buffer[len(part) :])

    def _decode_into(self, offset: int, buffer: memoryview) -> int:
        if not buffer:
            return 0
        if offset < self._cursor.offset:
            before = [point for point in self._checkpoints if point.offset <= offset]
            self._cursor = before[-1].copy()
        while self._cursor.offset < offset:
            if not self._decode(min(offset - self._cursor.offset, READ_BYTES)):
                return 0
        filled = 0
        while filled < len(buffer):
            data = self._decode(min(len(buffer) - filled, READ_BYTES))
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def _decode(self, max_bytes: int) -> bytes:
        """Decode between 1 and ``max_bytes`` bytes; none at the end of the file."""
        cursor = self._cursor
        while True:
            if not cursor.pending:
                cursor.pending = bytes(self._encoded.read(cursor.raw_offset, READ_BYTES // 4))
                cursor.raw_offset += len(cursor.pending)
            if not cursor.pending:
                if cursor.inflate is None:
                    return b""
                raise IdxFormatError(
                    f"{self.name}: the {self.ENCODING} data end at byte {cursor.raw_offset}, "
                    f"in the middle of a {self.ENCODING} member, after {cursor.offset} decoded "
                    "bytes; "
                    "the file is truncated: fetch it again"
                )
            if cursor.inflate is None:
                cursor.pending = cursor.pending.lstrip(b"\0")  # padding is allowed
                if not cursor.pending:
                    continue
                cursor.inflate = zlib_ng.decompressobj(wbits=31)
            data = self._inflate(cursor, max_bytes)
            if data:
                cursor.offset += len(data)
                self._remember()
                return data

    def _inflate(self, cursor: _GzipCursor, max_bytes: int) -> bytes:
        here = cursor.raw_offset - len(cursor.pending)
        try:
            data = cast(bytes, cursor.inflate.decompress(cursor.pending, max_bytes))
        except InflateError as error:
            reason = str(error).rpartition(": ")[2]
            raise IdxFormatError(
                f"{self.name}: damaged {self.ENCODING} data at or after byte {here} ({reason}), "
                f"after {cursor.offset} decoded bytes; fetch the file again"
            ) from error
        if cursor.inflate.eof:
            cursor.pending = cursor.inflate.unused_data
            cursor.inflate = None
        else:
            cursor.pending = cursor.inflate.unconsumed_tail
        return data

    def _remember(self) -> None:
        if self._cursor.offset - self._checkpoints[-1].offset < self._spacing:
            return
        self._checkpoints.append(self._cursor.copy())
        if len(self._checkpoints) > self.MAX_CHECKPOINTS:
            self._checkpoints = self._checkpoints[::2]
            self._spacing *= 2


def open_bytes(source: PathOrFile, *, storage_options: dict[str, Any] | None = None) -> ByteSource:
    """Open a path, an fsspec URL or a binary file; decode gzip if that is what it is.

    Parameters
    ----------
    source : str, os.PathLike or binary file
        What to read.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    IdxFormatError
        If it is gzip inside gzip.
    """
    encoded: ByteSource
    if is_url(source):
        encoded = RemoteSource(cast(str, source), storage_options)
    elif isinstance(source, str | os.PathLike):
        encoded = LocalSource(source)
    else:
        encoded = FileObjectSource(source)
    if encoded.read(0, 2) != GZIP_MAGIC:
        return encoded
    decoded = GzipSource(encoded)
    if decoded.read(0, 2) == GZIP_MAGIC:
        raise IdxFormatError(
            f"{encoded.name}: byte 0 of the gunzipped data: gzip inside gzip; "
            "the file was compressed twice: gunzip it once"
        )
    return decoded


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
    with _reported(name):
        yield from _create_file(name, overwrite)


def _create_file(name: str, overwrite: bool) -> Iterator[BinaryIO]:
    exists = _exists(name)
    if is_url(name):
        with failures_named(name, "written", OutputError, OutputError):
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
    with _reported(os.fspath(folder)):
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


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except MnistZarrError:
        raise
    except OSError as error:
        raise OutputError(f"{name}: was not written: {error}") from error


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


def _fill(file: Any, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer):
        got = file.readinto(buffer[filled:])
        if not got:
            break
        filled += got
    return filled


def _identity(file: BinaryIO | io.RawIOBase) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _sends_ranges(fs: fsspec.AbstractFileSystem, url: str) -> bool:
    try:
        with fs.open(url, cache_type="none") as file:
            file.seek(1)
            file.read(1)
    except ValueError:  # this is how fsspec says that the server sends whole files only
        return False
    return True


def _temporary_copy(owner: object, fs: fsspec.AbstractFileSystem, path: str) -> str:
    handle, copy = tempfile.mkstemp(prefix="mnist-zarr-")
    os.close(handle)
    weakref.finalize(owner, Path(copy).unlink, missing_ok=True)
    fs.get_file(path, copy)
    return copy
