"""One version of a store: a read fails once another version has taken its place.

Zarr reads every chunk by its key, whatever is there at that moment. A reader that opened a store
would go on with the chunks of another one that is built under the same name. As no version ever
comes back, it is enough to look after a read whether the root document is still the one that was
opened: of a local folder after each object, elsewhere, where that is a request, after each array.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Self

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import LocalStore, WrapperStore

from mnist_zarr.errors import StoreError, replaced_while_read
from mnist_zarr.stores.inventory import Promises
from mnist_zarr.stores.keys import OPENING_NAMES, is_document

Identity = tuple[int, int, int]


class CheckedStore(Store):
    """A store that knows which of its chunks must be there.

    Attributes
    ----------
    promises : Promises, optional
        Of which chunks it is an error that they are missing: others hold the fill value.
    """

    promises: Promises | None = None


class LocalSnapshot(LocalStore, CheckedStore):
    """The store that lies in a folder now, to read from."""

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
        same = type(self)(self.root)
        same._identity, same.promises = self._identity, self.promises
        return same

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        self.check_version()
        return value

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        self.check_version()
        return value

    def check_version(self) -> None:
        """Check, after an object was read, that it is of this version.

        Raises
        ------
        StoreReplacedError
            If another version has taken the place of this one.
        """
        if root_identity(self.root) != self._identity:
            raise replaced_while_read(self.root)


def root_identity(root: Path) -> Identity | None:
    """Return what tells the root document from that of any other version."""
    identities = (file_identity(root / name) for name in OPENING_NAMES)
    return next((identity for identity in identities if identity is not None), None)


def file_identity(path: Path) -> Identity | None:
    """Return what tells a file from any that takes its place; None if there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Not its device: on a shared disk each machine of a cluster has another number of that.
    return status.st_ino, status.st_mtime_ns, status.st_size


class OneVersion(WrapperStore[Store], CheckedStore):
    """A store that is not on this disk, of which one version is read.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    name : str
        What messages call it.
    identify : callable
        Returns what tells the present version from any other.
    """

    # Else, since zarr 3.4, a pipeline of threads reads past this class.
    _supports_sync_io = False

    def __init__(self, store: Store, name: str, identify: Callable[[], Hashable | None]) -> None:
        super().__init__(store)
        self._name = name
        self._identify = identify
        self._identity = identify()
        self._root: dict[str, Buffer | None] = {}

    def __str__(self) -> str:
        return self._name

    def _with_store(self, store: Store) -> Self:
        same = copy.copy(self)
        same._store = store
        return same

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key in self._root and byte_range is None:
            return self._root[key]
        try:
            value = await super().get(key, prototype, byte_range)
        except StoreError:  # of an object that is gone with its version, perhaps
            await self.check_version()
            raise
        if is_document(key) and "/" not in key and byte_range is None:
            self._root[key] = value  # to be asked for once, whoever reads it
        return value

    async def check_version(self) -> None:
        """Check, after an array was read, that it is of the version that was opened.

        Raises
        ------
        StoreReplacedError
            If another version has taken its place.
        """
        if await asyncio.to_thread(self._identify) != self._identity:
            raise replaced_while_read(self._name)
