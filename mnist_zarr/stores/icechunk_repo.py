"""Icechunk repositories, where a build is one commit: ``icechunk+s3://bucket/prefix``.

https://icechunk.io stores versions of Zarr stores. A store is written beside,
in a temporary folder, and copied in one transaction: until the commit, every
reader sees the last one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

if TYPE_CHECKING:
    from icechunk import Repository, Session, Storage
from mnist_zarr.errors import (
    StoreError,
    StoreNotFoundError,
    TargetBusyError,
    already_exists,
    missing_extra,
)
from mnist_zarr.files.urls import hide_secrets, name_failures, shown_url
from mnist_zarr.stores.inventory import arrays_in, chunk_keys, open_documents
from mnist_zarr.stores.keys import (
    copy_objects,
    is_document,
    keys_of,
    read_object,
    root_first,
    sync,
)
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.staging import stage

PREFIX = "icechunk+"
BRANCH = "main"
# What Icechunk writes before the branch when it makes a repository.
FIRST_SNAPSHOT = "snapshots/1CECHNKREP0F1RSTCMT0"


def is_repository(name: str) -> bool:
    """Whether the target is written ``icechunk+...``."""
    return name.startswith(PREFIX)


class IcechunkBranch(Place):
    """``icechunk+s3://bucket/mnist``: a build is one commit of a repository."""

    is_shared = False
    beside = ()

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self._url, self.name = url, shown_url(url)
        self._options = storage_options

    @contextlib.contextmanager
    def create(self, *, overwrite: bool = False, immutable: bool = False) -> Iterator[Store]:
        with _reported(self.name):
            session = _open_or_create(self._url, self._options).writable_session(BRANCH)
        store = session.store
        if sync(store.exists("zarr.json")) and not overwrite:
            raise already_exists(self.name)
        with stage() as staged:
            yield staged
            keys = keys_of(staged)
            documents = {key: read_object(staged, key) for key in keys if is_document(key)}
            if "zarr.json" not in documents:
                raise StoreError(f"{self.name}: Icechunk holds stores of Zarr format 3 only")
            with name_failures(self.name, "written"):
                sync(store.clear())
                for key in sorted(documents, key=root_first):  # it knows chunks by their array
                    sync(store.set(key, documents[key]))
                copy_objects(staged, store, chunk_keys(arrays_in(open_documents(documents))))
            _commit(session, _describe(staged), self.name)

    def open(self) -> Store:
        return OfOneProcess(self._session().store, self.name)

    def identity(self) -> Hashable | None:
        try:
            return str(self._session().snapshot_id)
        except StoreNotFoundError:
            return None

    def _session(self) -> Session:
        with _reported(self.name):
            import icechunk

            storage = _storage(self._url, self._options)
            if not icechunk.Repository.exists(storage):
                raise StoreNotFoundError(f"{self.name}: there is no Icechunk repository")
            return icechunk.Repository.open(storage).readonly_session(BRANCH)


class OfOneProcess(WrapperStore[Store]):
    """A store that has threads of its own, which a forked process would wait for in vain."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store)
        self._name = name
        self._pid = os.getpid()

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pid=os.getpid())

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if self._pid != os.getpid():
            raise StoreError(
                f"{self._name}: Icechunk cannot read in a process that was forked after it was "
                "opened; open it again there, or start processes with 'spawn' or 'forkserver'"
            )
        return await super().get(key, prototype, byte_range)


def _describe(store: Store) -> str:
    """Return a line that says what the store is, from its metadata."""
    group = zarr.open_group(store, mode="r")
    said = [group.attrs[name] for name in ("title", "software") if name in group.attrs]
    shapes = [f"{name} {array.shape}" for name, array in group.arrays()]
    return "; ".join([*map(str, said), ", ".join(sorted(shapes))])


def _commit(session: Session, message: str, name: str) -> None:
    import icechunk

    with _reported(name):
        try:
            session.commit(message)
        except icechunk.ConflictError as error:
            raise TargetBusyError(
                f"{name}: somebody else has committed since this build began, and nothing of it is "
                "visible; run it again"
            ) from error


def _open_or_create(url: str, storage_options: dict[str, Any] | None) -> Repository:
    import icechunk

    storage = _storage(url, storage_options)
    try:
        return icechunk.Repository.open_or_create(storage)
    except icechunk.IcechunkError as error:
        if "clean prefixes" not in str(error):
            raise
        # Not removed here: another build may be about to make the branch.
        raise StoreError(
            f"{shown_url(url)}: there are objects, but no repository; if {FIRST_SNAPSHOT} is all "
            "that is there, a build was killed while it made one: remove it, and run the command "
            "again; else choose another place"
        ) from error


def _storage(url: str, storage_options: dict[str, Any] | None) -> Storage:
    import icechunk

    if "ICECHUNK_LOG" not in os.environ:  # it warns of local repositories on stderr
        icechunk.set_logs_filter("error")
    parts = urlsplit(url.removeprefix(PREFIX))
    options = storage_options or {}
    if parts.scheme == "file" and parts.netloc in ("", "~"):
        path = os.path.expanduser(parts.netloc + parts.path)
        return icechunk.local_filesystem_storage(path, **options)
    if parts.scheme == "s3":
        return icechunk.s3_storage(bucket=parts.netloc, prefix=parts.path.strip("/"), **options)
    raise StoreError(
        f"{shown_url(url)}: expected icechunk+file:///path or icechunk+s3://bucket/prefix; for "
        "other storages give the store of an Icechunk session, and commit it yourself"
    )


@contextlib.contextmanager
def _reported(url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise missing_extra(f"{url}: needs Icechunk", "icechunk") from error
    except StoreError:
        raise
    except Exception as error:  # Icechunk's have no base of their own
        raise StoreError(f"{url}: Icechunk says: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    """Return what went wrong and its deepest cause, of a message of many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    causes = [line[4:] for line in lines if line.startswith(("|-> ", "`-> "))]
    parts = [lines[0].removeprefix("x ") if lines else type(error).__name__, *causes[-1:]]
    return hide_secrets(": ".join(dict.fromkeys(parts)))
