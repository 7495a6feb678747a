"""One version of a store in a zip file of this machine.

Unlike zarr's own ``ZipStore`` it keeps no file open: threads, forked processes and workers of a
cluster share no position in a file, and each read is refused once another file has taken the
place of the one that was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from mnist_zarr.errors import FileFormatError, SourceError, StoreError, replaced_while_read
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.files.zip_source import zip_members
from mnist_zarr.stores.keys import check_document_size, is_document
from mnist_zarr.stores.read_only import ReadOnlyStore
from mnist_zarr.stores.snapshot import CheckedStore


class ZipSnapshot(ReadOnlyStore, CheckedStore):
    """The store that a zip file holds now, to read from."""

    def __init__(self, path: Path, *, read_only: bool = True) -> None:
        if not read_only:
            raise ValueError("a snapshot of a store can only be opened to read from")
        super().__init__()
        self._path = path
        try:
            self._members = zip_members(LocalSource(path))
        except FileFormatError as error:
            raise StoreError(f"{path}: cannot be opened as a zip file: {error}") from error

    def __str__(self) -> str:
        return f"zip://{self._path.as_posix()}"

    def __repr__(self) -> str:
        return f"ZipSnapshot('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZipSnapshot) and self._path == other._path

    __hash__ = Store.__hash__

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        member = self._members.get(key)
        if member is None:
            return None
        if is_document(key):
            check_document_size(f"{self._path}/{key}", member.size or 0)
        try:
            data = await asyncio.to_thread(_read, member, byte_range)
        except SourceError as error:
            raise replaced_while_read(self._path) from error
        except FileFormatError as error:
            raise StoreError(str(error)) from error
        return prototype.buffer.from_bytes(data)

    async def exists(self, key: str) -> bool:
        return key in self._members

    async def getsize(self, key: str) -> int:
        if key not in self._members:
            raise FileNotFoundError(key)
        return self._members[key].size or 0

    async def list(self) -> AsyncIterator[str]:
        for key in self._members:
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        inside = (key[len(folder) :] for key in self._members if key.startswith(folder))
        for name in dict.fromkeys(rest.partition("/")[0] for rest in inside):
            yield name


def _read(member: ByteSource, byte_range: ByteRequest | None) -> bytes:
    size: Any = member.size
    match byte_range:
        case RangeByteRequest(start, end):
            first, last = start, min(end, size)
        case OffsetByteRequest(offset):
            first, last = offset, size
        case SuffixByteRequest(suffix):
            first, last = max(0, size - suffix), size
        case None:
            first, last = 0, size
        case _:
            raise ValueError(f"Unexpected byte_range, got {byte_range}.")
    return bytes(member.read(first, max(0, last - first)))
