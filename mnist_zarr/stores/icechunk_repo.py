"""Icechunk repositories, where a build is one commit: ``icechunk+s3://bucket/prefix``.

https://icechunk.io stores versions of Zarr stores. A store is written beside,
in a temporary folder, and copied in one transaction: until the commit, every
reader sees the last one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zarr.abc.store import Store

if TYPE_CHECKING:
    from icechunk import Repository, Storage
from mnist_zarr.errors import StoreError, StoreNotFoundError, TargetBusyError, missing_extra

PREFIX = "icechunk+"
BRANCH = "main"


def is_repository(target: object) -> bool:
    """Whether the target is written ``icechunk+...``."""
    return isinstance(target, str) and target.startswith(PREFIX)


def open_branch(url: str, storage_options: dict[str, Any] | None = None) -> Store:
    """Return the last commit, read-only.

    Raises
    ------
    StoreNotFoundError
        If there is no repository.
    StoreError
        If it cannot be opened.
    """
    import icechunk

    with _reported(url):
        storage = _storage(url, storage_options)
        if not icechunk.Repository.exists(storage):
            raise StoreNotFoundError(f"{url}: there is no Icechunk repository")
        return icechunk.Repository.open(storage).readonly_session(BRANCH).store


class Transaction:
    """A change of a repository that becomes visible as a whole, or never.

    Parameters
    ----------
    url : str
        ``icechunk+s3://bucket/prefix``, ``icechunk+file:///path`` ...
    storage_options : dict, optional
        Keyword arguments of Icechunk's own storage function, such as
        ``icechunk.s3_storage``.

    Raises
    ------
    StoreError
        If there can be no such repository.
    MissingExtraError
        If Icechunk is not installed.
    """

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self._url = url
        with _reported(url):
            self._session = _open_or_create(url, storage_options).writable_session(BRANCH)

    @property
    def store(self) -> Store:
        """The store to write into."""
        return self._session.store

    def commit(self, message: str) -> None:
        """Make the change visible.

        Raises
        ------
        TargetBusyError
            If somebody else has committed meanwhile.
        StoreError
            If the storage fails.
        """
        import icechunk

        with _reported(self._url):
            try:
                self._session.commit(message)
            except icechunk.ConflictError as error:
                raise TargetBusyError(
                    f"{self._url}: somebody else has committed since this build began, and "
                    "nothing of it is visible; run it again"
                ) from error


def _open_or_create(url: str, storage_options: dict[str, Any] | None) -> Repository:
    import icechunk

    return icechunk.Repository.open_or_create(_storage(url, storage_options))


def _storage(url: str, storage_options: dict[str, Any] | None) -> Storage:
    import icechunk

    if "ICECHUNK_LOG" not in os.environ:  # it warns of local repositories on stderr
        icechunk.set_logs_filter("error")
    parts = urlsplit(url.removeprefix(PREFIX))
    options = storage_options or {}
    if parts.scheme == "file" and not parts.netloc:
        return icechunk.local_filesystem_storage(parts.path, **options)
    if parts.scheme == "s3":
        return icechunk.s3_storage(bucket=parts.netloc, prefix=parts.path.strip("/"), **options)
    raise StoreError(
        f"{url}: expected icechunk+file:///path or icechunk+s3://bucket/prefix; for other "
        "storages give the store of an Icechunk session, and commit it yourself"
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
    return ": ".join(dict.fromkeys(parts))
