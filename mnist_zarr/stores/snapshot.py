"""One version of a local store: a read fails once another version has taken its place.

Zarr reads every chunk by its path, whatever lies there at that moment. A store that is
built anew under the same name appears as a whole, but a reader that opened the old one
would go on with chunks of the new one. As no version ever comes back, it is enough to
look after each read whether the root document is still the one that was opened.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Self

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import LocalStore

from mnist_zarr.errors import StoreError, StoreReplacedError
from mnist_zarr.stores.keys import OPENING_NAMES, is_document

Identity = tuple[int, int, int]


class LocalSnapshot(LocalStore):
    """The store that lies in a folder now, to read from.

    A chunk that is missing is an error: Zarr would fill its place, with black images.
    """

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        if not read_only:
            raise ValueError("a snapshot of a store can only be opened to read from")
        super().__init__(root, read_only=True)
        self._identity = root_identity(self.root)

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return the same version, to read from."""
        if not read_only:
            raise NotImplementedError(
                f"with_read_only is not implemented for the {type(self)} store type."
            )
        return copy.copy(self)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        self.check_read(key, is_there=value is not None)
        return value

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        self.check_read(key, is_there=value is not None)
        return value

    def check_read(self, key: str, *, is_there: bool) -> None:
        """Check, after an object was read, that it is of this version.

        Raises
        ------
        StoreReplacedError
            If another version has taken the place of this one.
        StoreError
            If a chunk is missing.
        """
        if root_identity(self.root) != self._identity:
            raise StoreReplacedError(
                f"{self.root}: the store was replaced while it was being read; open it again"
            )
        if not is_there and not is_document(key):
            raise StoreError(
                f"{self.root / key}: this chunk is missing; the store is damaged: build it again"
            )


def root_identity(root: Path) -> Identity | None:
    """Return what tells the root document from that of any other version."""
    for name in OPENING_NAMES:
        try:
            status = os.stat(root / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        # Not its device: on a shared disk each machine of a cluster has another number of that.
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None
