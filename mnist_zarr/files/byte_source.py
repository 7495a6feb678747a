"""The interface of files as bytes.

A :class:`ByteSource` answers one question: which bytes are at this offset? It
keeps no file open, so that there can be any number of sources at once, used by
several threads and sent to other processes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

READ_BYTES = 1 << 20
# What is read at once where the length is not known.
STEP_BYTES = 4 << 20


class ByteSource(ABC):
    """Random access to the decoded bytes of one file.

    Attributes
    ----------
    name : str
        What messages call the file.
    size : int or None
        Number of decoded bytes, if known without reading them.
    size_limit : int or None
        An upper bound of that number, if there is one.
    identity : str or None
        What tells this version of the file from any other, if known. What is
        decoded from a file has the identity of the file.
    seeks_cheaply : bool
        Whether any offset costs about the same (false for gzip and pipes).
    """

    name: str
    size: int | None
    size_limit: int | None
    identity: str | None = None
    seeks_cheaply: bool

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; a smaller count means the end."""

    def read(self, offset: int, count: int) -> bytearray:
        """Return ``count`` bytes, or fewer where the file ends.

        Memory grows with the bytes that there are, not with ``count``.
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

    def equals(self, other: ByteSource) -> bool:
        """Whether two files have the same decoded bytes, which are read up to a difference."""
        offset = 0
        while (data := self.read(offset, STEP_BYTES)) == other.read(offset, STEP_BYTES):
            if not data:
                return True
            offset += len(data)
        return False

    def where(self, offset: int) -> str:
        """Name a decoded offset for a message."""
        return f"byte {offset}"

    @property
    def encoded(self) -> ByteSource:
        """The bytes as stored: the encoded ones of a gzip file."""
        return self

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hexadecimal digits."""
        digest = hashlib.sha256()
        offset = 0
        while data := self.encoded.read(offset, READ_BYTES):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()
