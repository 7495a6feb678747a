"""The interface of targets: a place where a Zarr store is, or will be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager

from zarr.abc.store import Store

from mnist_zarr.errors import StoreError, StoreNotFoundError
from mnist_zarr.stores.inventory import (
    arrays_in,
    is_unfinished,
    open_documents,
    read_documents,
    read_root,
    take_inventory,
)
from mnist_zarr.stores.keys import CARD, PAGE
from mnist_zarr.stores.snapshot import OneVersion


class Place(ABC):
    """A place where a Zarr store is, or will be. One class per kind of target.

    Attributes
    ----------
    name : str
        What messages call the place.
    is_shared : bool
        Whether the workers of a cluster can write into a store that is created here.
    beside : tuple of str
        Keys of what can be published beside the objects of Zarr: the dataset card, and the page,
        where a browser finds it.
    opens_one_version : bool
        Whether what :meth:`open` returns never reads objects of a later version.
    """

    name: str
    is_shared: bool = True
    beside: tuple[str, ...] = (CARD, PAGE)
    opens_one_version: bool = True

    @abstractmethod
    def create(
        self, *, overwrite: bool = False, immutable: bool = False
    ) -> AbstractContextManager[Store]:
        """Open an empty store to write into, which takes its place when the context ends.

        Until then a reader finds the old store or none. If the context ends with an
        error, nothing takes its place.

        Parameters
        ----------
        overwrite : bool
            Whether to replace an existing store.
        immutable : bool
            Whether caches may keep the chunks for ever, where readers use HTTP.

        Raises
        ------
        TargetExistsError
            If there is something here and ``overwrite`` is false.
        TargetBusyError
            If another process is building a store here.
        StoreError
            If what is here is not a Zarr store, or the store cannot be written.
        MissingExtraError
            If the package that knows the address is not installed.
        """

    @abstractmethod
    def open(self) -> Store:
        """Return the store that is here now, to read from.

        Raises
        ------
        StoreNotFoundError
            If there is none.
        StoreError
            If it cannot be reached.
        MissingExtraError
            If the package that knows the address is not installed.
        """

    def open_snapshot(self) -> Store:
        """Return the same; a read raises once another version has taken its place."""
        store = self.open()
        return store if self.opens_one_version else OneVersion(store, self.name, self.identity)

    @abstractmethod
    def identity(self) -> Hashable | None:
        """Return what tells the version that is here now from any other; None if there is none.

        Raises
        ------
        StoreError
            If the place cannot be reached.
        """

    def check_complete(self, store: Store) -> None:
        """Check a created store before it takes its place: all that it promises is there.

        Raises
        ------
        StoreError
            If a chunk is missing or empty, as of workers that do not share the disk.
        """
        arrays = arrays_in(open_documents(read_documents(store, read_root(store))))
        if missing := take_inventory(arrays, store).describe_missing():
            raise StoreError(
                f"{self.name}: {missing}, were not written; do all workers of the cluster share "
                "this disk?"
            )

    def changes_under(self, store: Store) -> bool:
        """Whether to create a store here changes the objects of ``store`` one by one."""
        return False

    def not_found(self, store: Store | None = None) -> StoreNotFoundError:
        """Return the error for a place without a store, or with one that is not finished."""
        if store is not None and is_unfinished(store):
            return StoreNotFoundError(
                f"{self.name}: a store is being written here, or its build was interrupted; it "
                "opens when it is complete"
            )
        return StoreNotFoundError(
            f"{self.name}: there is no Zarr store; make one with 'mnist-zarr build'"
        )

    def not_a_store(self, kind: str) -> StoreError:
        """Return the error for a file or folder that is something else than a store."""
        return StoreError(
            f"{self.name}: is a {kind}, not a Zarr store; remove it or choose another name"
        )
