"""The members of a zip archive, each a source of bytes like a file.

The format is that of PKWARE's APPNOTE.TXT 6.3.10: sections 4.3.7 (local file
header), 4.4.4 (flags) and 4.4.5 (compression method).
"""

from __future__ import annotations

import io
import struct
import threading
import zipfile
from typing import Any

from zlib_ng import zlib_ng

from mnist_zarr.errors import FileFormatError, SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.gzip_source import MAX_DEFLATE_RATIO, GzipSource

ZIP_MAGIC = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30
# Bits 0 and 6: encrypted; bit 5: a patch of another file (section 4.4.4).
UNREADABLE_FLAGS = 0b110_0001
# What RFC 1952 puts around deflated data: magic, method, no flags, no time, no system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def zip_members(archive: ByteSource) -> dict[str, ByteSource]:
    """Return the files of an archive by name; see :func:`open_member`."""
    return {name: open_member(archive, info) for name, info in read_directory(archive).items()}


def read_directory(archive: ByteSource) -> dict[str, zipfile.ZipInfo]:
    """Return what the directory of an archive says of its files, by name.

    Raises
    ------
    FileFormatError
        If it is not a whole zip archive, or two members have one name or share bytes.
    SourceError
        If the archive is read from a pipe, or is itself compressed.
    """
    if archive.size is None:
        raise SourceError(
            f"{archive.name}: a zip archive has its directory at the end, which cannot be reached "
            "here; save it to disk (and gunzip it) first"
        )
    try:
        with zipfile.ZipFile(io.BufferedReader(SourceFile(archive))) as directory:
            infos = directory.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"{archive.name}: not a whole zip archive ({error}); if it was downloaded, fetch it "
            "again"
        ) from error
    _check_places(archive.name, infos, archive.size)
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.filename in found:
            raise FileFormatError(
                f"{archive.name}: {info.filename}: there are two members of this name; expected one"
            )
        if not info.filename.endswith("/"):
            found[info.filename] = info
    return found


def _check_places(name: str, infos: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    """Check that no two members share bytes: together they are no larger than the archive."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered[1:]), archive_bytes]
    for info, end in zip(ordered, ends, strict=False):
        least_end = info.header_offset + LOCAL_HEADER_BYTES + info.compress_size
        if info.header_offset < 0 or least_end > end:
            raise FileFormatError(
                f"{name}: {info.filename}: the directory of the archive says bytes "
                f"{info.header_offset:,} to {least_end:,} or more, but this member ends by byte "
                f"{end:,}; the directory is damaged"
            )


def open_member(archive: ByteSource, info: zipfile.ZipInfo) -> ByteSource:
    """Return a file of an archive, stored or deflated; of the latter only the header is read.

    The checksum is checked when the end of the file is reached.

    Raises
    ------
    FileFormatError
        If it is encrypted or compressed in another way, or cannot be as long as it says.
    """
    name = f"{archive.name}: {info.filename}"
    if info.flag_bits & UNREADABLE_FLAGS:
        raise FileFormatError(f"{name}: encrypted or a patch; expected plain data")
    if info.compress_type == zipfile.ZIP_STORED:
        if info.file_size != info.compress_size:
            raise FileFormatError(
                f"{name}: stored uncompressed, {info.file_size:,} bytes in {info.compress_size:,}; "
                "the directory of the archive is damaged"
            )
        return _StoredMember(archive, info)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return _DeflatedMember(archive, info)
    raise FileFormatError(
        f"{name}: zip compression method {info.compress_type}; expected 0 (stored) or 8 (deflated)"
    )


def _data_offset(archive: ByteSource, info: zipfile.ZipInfo) -> int:
    """Return where the data of a member begin, after its local header."""
    header = archive.read(info.header_offset, LOCAL_HEADER_BYTES)
    if len(header) < LOCAL_HEADER_BYTES or header[:4] != ZIP_MAGIC:
        raise FileFormatError(
            f"{archive.name}: byte {info.header_offset}: expected the local header of "
            f"{info.filename!r}, got {header[:4].hex(' ')}; the file is damaged"
        )
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    return int(info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes)


class _StoredMember(ByteSource):
    """A member that is stored in the archive without compression.

    Its checksum covers all its bytes: it is checked once they have been read in
    order up to the end.
    """

    def __init__(self, archive: ByteSource, info: zipfile.ZipInfo) -> None:
        self.name = f"{archive.name}: {info.filename}"
        self.identity = archive.identity
        self.size = self.size_limit = self._size = info.file_size
        self.seeks_cheaply = archive.seeks_cheaply
        self._archive = archive
        self._info = info
        self._start: int | None = None
        self._restart()

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._bytes_in_order, self._crc = 0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    @property
    def encoded(self) -> ByteSource:
        return self._archive

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = buffer[: max(0, self._size - offset)]
        if self._start is None:
            self._start = _data_offset(self._archive, self._info)
        got = self._archive.read_into(self._start + offset, wanted)
        with self._lock:
            if got and offset <= self._bytes_in_order < offset + got:
                new = wanted[self._bytes_in_order - offset : got]
                self._crc = zlib_ng.crc32(new, self._crc)
                self._bytes_in_order = offset + got
            if self._bytes_in_order == self._size and self._crc != self._info.CRC:
                raise FileFormatError(
                    f"{self.name}: checksum (CRC-32) {self._crc:08x}, expected "
                    f"{self._info.CRC:08x}: the data are damaged; fetch the file again"
                )
        return got


class _DeflatedMember(GzipSource):
    """A deflated member, read as a gzip file."""

    ENCODING = "deflate"

    def __init__(self, archive: ByteSource, info: zipfile.ZipInfo) -> None:
        super().__init__(_GzipFrame(archive, info))
        self.size = self.size_limit = info.file_size
        if info.file_size > info.compress_size * MAX_DEFLATE_RATIO:
            raise FileFormatError(
                f"{self.name}: {info.compress_size:,} deflated bytes cannot hold "
                f"{info.file_size:,}; the directory of the archive is damaged"
            )

    @property
    def encoded(self) -> ByteSource:
        return self._encoded.encoded

    def where(self, offset: int) -> str:
        return f"byte {offset} of the unzipped data"


class _GzipFrame(ByteSource):
    """A deflated member with the header and trailer that make it a gzip file."""

    def __init__(self, archive: ByteSource, info: zipfile.ZipInfo) -> None:
        self.name = f"{archive.name}: {info.filename}"
        self.identity = archive.identity
        self.seeks_cheaply = archive.seeks_cheaply
        self._archive = archive
        self._trailer = struct.pack("<II", info.CRC, info.file_size % 2**32)
        self._start = _data_offset(archive, info) - len(GZIP_HEADER)
        self._data_end = len(GZIP_HEADER) + info.compress_size
        self.size = self.size_limit = self._data_end + len(self._trailer)

    @property
    def encoded(self) -> ByteSource:
        return self._archive

    def read_into(self, offset: int, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            position = offset + filled
            rest = buffer[filled:]
            if position < len(GZIP_HEADER):
                got = _copy(GZIP_HEADER[position:], rest)
            elif position < self._data_end:
                deflated = rest[: self._data_end - position]
                got = self._archive.read_into(self._start + position, deflated)
            else:
                got = _copy(self._trailer[position - self._data_end :], rest)
            if not got:
                break
            filled += got
        return filled


def _copy(data: bytes, buffer: memoryview) -> int:
    count = min(len(data), len(buffer))
    buffer[:count] = data[:count]
    return count


class SourceFile(io.RawIOBase):
    """A source as a file, for the standard library."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size or 0}
        if base[whence] + offset < 0:
            raise OSError(f"{self._source.name}: cannot seek before the start")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        got = self._source.read_into(self._position, memoryview(buffer).cast("B"))
        self._position += got
        return got
