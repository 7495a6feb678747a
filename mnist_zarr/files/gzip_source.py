"""Gzip files, decoded at any offset, in bounded memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast

from zlib_ng import zlib_ng

from mnist_zarr.errors import FileFormatError
from mnist_zarr.files.byte_source import READ_BYTES, ByteSource

# The stubs of zlib-ng declare it as an instance.
InflateError = cast(type[Exception], zlib_ng.error)
GZIP_MAGIC = b"\x1f\x8b"
FETCH_BYTES, INFLATE_BYTES = 1 << 19, 1 << 16
# One symbol of deflate is at least one bit and gives at most 258 bytes, a
# match needs two symbols: 258 bytes from two bits (RFC 1951, section 3.2.5).
MAX_DEFLATE_RATIO = 1032


@dataclass
class _GzipCursor:
    """A state of the decompression; a copy is a checkpoint."""

    offset: int  # of the next decoded byte
    raw_offset: int  # of the next encoded byte
    inflate: Any  # a zlib decompressobj, or None between two gzip members

    def copy(self) -> _GzipCursor:
        inflate = None if self.inflate is None else self.inflate.copy()
        return _GzipCursor(self.offset, self.raw_offset, inflate)


class GzipSource(ByteSource):
    """The decoded bytes of a gzip file (RFC 1952, several members allowed).

    Decoding is sequential. A read that continues where the last one ended costs
    nothing extra. Going back starts from one of at most ``MAX_CHECKPOINTS``
    copies of the decompressor (some 40 kB each), so that reading out of order
    decodes only a small part of the file again.
    """

    MAX_CHECKPOINTS = 64
    FIRST_SPACING_BYTES = 4 << 20
    ENCODING = "gzip"  # as messages call it
    # Kept, since it is read several times: to tell the format, and to be parsed.
    HEAD_BYTES = 4096
    seeks_cheaply = False

    def __init__(self, encoded: ByteSource) -> None:
        self.name = encoded.name
        self.identity = encoded.identity
        self.size = None
        self.size_limit = None if encoded.size is None else encoded.size * MAX_DEFLATE_RATIO
        self._encoded = encoded
        self._restart()

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._cursor = _GzipCursor(0, 0, None)
        self._fetched, self._fetched_at = b"", 0  # encoded bytes, and their offset
        self._spacing = self.FIRST_SPACING_BYTES
        self._checkpoints = [self._cursor.copy()]
        self._head: bytes | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A decompressor cannot be pickled: start again.
        kept = ("name", "identity", "size", "size_limit", "_encoded")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def where(self, offset: int) -> str:
        return f"byte {offset} of the gunzipped data"

    @property
    def encoded(self) -> ByteSource:
        return self._encoded

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._lock:
            try:
                return self._read_into(offset, buffer)
            except BaseException:
                # The next read would take for whole what is half done.
                self._cursor = self._checkpoints[0].copy()
                self._fetched, self._fetched_at = b"", 0
                raise

    def _read_into(self, offset: int, buffer: memoryview) -> int:
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
        while piece := self._next_encoded():
            if cursor.inflate is None:
                if padding := len(piece) - len(piece.lstrip(b"\0")):
                    cursor.raw_offset += padding
                    continue
                cursor.inflate = zlib_ng.decompressobj(wbits=31)
            if data := self._inflate(piece, max_bytes):
                cursor.offset += len(data)
                self._remember()
                return data
        if cursor.inflate is not None:
            raise FileFormatError(
                f"{self.name}: the {self.ENCODING} data end at byte {cursor.raw_offset}, in the "
                f"middle of a {self.ENCODING} member, after {cursor.offset} decoded bytes; the "
                "file is truncated: fetch it again"
            )
        return b""

    def _next_encoded(self) -> bytes:
        """Return some of the encoded bytes that come next; none at the end of the file."""
        start = self._cursor.raw_offset - self._fetched_at
        if not 0 <= start < len(self._fetched):
            # Opening a file takes its head only.
            count = FETCH_BYTES if self._fetched else INFLATE_BYTES
            fetched = bytes(self._encoded.read(self._cursor.raw_offset, count))
            self._fetched, self._fetched_at, start = fetched, self._cursor.raw_offset, 0
        # In small pieces, since what a step does not consume is copied.
        return self._fetched[start : start + INFLATE_BYTES]

    def _inflate(self, piece: bytes, max_bytes: int) -> bytes:
        cursor = self._cursor
        try:
            data = cast(bytes, cursor.inflate.decompress(piece, max_bytes))
        except InflateError as error:
            reason = str(error).rpartition(": ")[2]
            raise FileFormatError(
                f"{self.name}: damaged {self.ENCODING} data at or after byte {cursor.raw_offset} "
                f"({reason}), after {cursor.offset} decoded bytes; fetch the file again"
            ) from error
        is_at_end = cursor.inflate.eof
        rest = cursor.inflate.unused_data if is_at_end else cursor.inflate.unconsumed_tail
        cursor.raw_offset += len(piece) - len(rest)
        if is_at_end:
            cursor.inflate = None
        return data

    def _remember(self) -> None:
        if self._cursor.offset - self._checkpoints[-1].offset < self._spacing:
            return
        self._checkpoints.append(self._cursor.copy())
        if len(self._checkpoints) > self.MAX_CHECKPOINTS:
            self._checkpoints = self._checkpoints[::2]
            self._spacing *= 2
