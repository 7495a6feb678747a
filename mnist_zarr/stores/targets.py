"""Targets: what the caller names becomes a place where a store is, or will be.

========================================== ==================================================
target                                     place
========================================== ==================================================
``mnist.zarr``, ``file:///mnist.zarr``     a folder, built beside its place and moved there
``mnist.zarr.zip``                         a single file, likewise
``s3://bucket/mnist.zarr``, any fsspec URL objects; unreadable until the last one is written
``s3://bucket/mnist.zarr.zip``             a single object
``icechunk+s3://bucket/mnist``             one commit of an Icechunk repository
a Zarr store object                        its objects; unreadable until the last one is written
========================================== ==================================================
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

from mnist_zarr.errors import OptionError
from mnist_zarr.files.urls import check_options, is_url, path_or_url
from mnist_zarr.stores.icechunk_repo import IcechunkBranch, is_repository
from mnist_zarr.stores.keys import METADATA_NAMES
from mnist_zarr.stores.local import LocalFolder
from mnist_zarr.stores.object_places import BucketFolder, GivenStore
from mnist_zarr.stores.obstore_clients import check_words
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.zip_file import LocalZip, RemoteZip, holds_store, is_archive

Target = str | os.PathLike[str] | Store


def parse_target(
    target: Target,
    storage_options: dict[str, Any] | None = None,
    option_name: str = "storage_options",
) -> Place:
    """Return the place that a target names. Nothing is opened yet.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    storage_options : dict, optional
        Those of the fsspec file system of a URL, or of Icechunk.
    option_name : str
        What the caller calls them.

    Raises
    ------
    OptionError
        If it is none of these, takes no ``storage_options``, or takes them in the
        words of fsspec and not in those of obstore.

    Examples
    --------
    >>> type(parse_target("mnist.zarr")).__name__
    'LocalFolder'
    >>> type(parse_target("s3://bucket/mnist.zarr")).__name__
    'BucketFolder'
    """
    check_options(storage_options, option_name)
    if isinstance(target, Store):
        _refuse_options(str(target), "a store object", storage_options, option_name)
        return GivenStore(target)
    name = path_or_url(target, "a path, a URL or a Zarr store")
    if is_repository(name):
        return IcechunkBranch(name, storage_options)
    if (path := local_path(name)) is not None:
        _refuse_options(name, "a path of this machine", storage_options, option_name)
        kind = LocalZip if is_archive(path) else LocalFolder
        return kind(Path(path), name)
    check_words(name, storage_options, option_name)
    if is_archive(name):
        return RemoteZip(name, storage_options)
    return BucketFolder(name, storage_options)


def names_store(target: object) -> bool:
    """Whether a store is there; of what lies behind a URL the name tells, no server is asked."""
    if isinstance(target, Store):
        return True
    if not isinstance(target, str | os.PathLike):
        return False
    name = path_or_url(target)
    if (path := local_path(name)) is None:
        return is_repository(name) or name.rstrip("/").endswith((".zarr", ".zarr.zip"))
    if is_archive(path):
        return os.path.isfile(path) and holds_store(Path(path))
    return any(os.path.exists(os.path.join(path, document)) for document in METADATA_NAMES)


def local_path(name: str) -> str | None:
    """Return the path of a target on this machine's disk, None of any other."""
    if name.startswith(("file://", "local://")):
        return str(LocalFileSystem._strip_protocol(name))
    return None if is_url(name) else name


def _refuse_options(name: str, kind: str, options: dict[str, Any] | None, option_name: str) -> None:
    if options:
        raise OptionError(
            f"{name}: is {kind}, which takes no `{option_name}`, got "
            f"{', '.join(map(str, options))}; is the 's3://' missing?"
        )
