"""The objects of any kind of store, by key: metadata documents and chunks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Iterable, Set
from typing import Any, TypeVar

from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync as zarr_sync

from mnist_zarr.errors import StoreError
from mnist_zarr.files.urls import hide_secrets, name_failures
from mnist_zarr.pool import open_pool

T = TypeVar("T")

METADATA_NAMES = ("zarr.json", ".zmetadata", ".zgroup")
# Without these at its root a store does not open, whatever else is there.
OPENING_NAMES = ("zarr.json", ".zgroup")
ARRAY_DOCUMENT_NAMES = ("zarr.json", ".zarray")
DOCUMENT_NAMES = ("zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs")
# What says, instead of a group, that the store is still being written: nothing opens it.
ROOT, UNFINISHED = "zarr.json", "unfinished"
MAX_UNFINISHED_BYTES = 1000
# What may lie beside the objects of Zarr: the dataset card and the page of a published store.
CARD, PAGE = "croissant.json", "index.html"
CHUNK_NAME = re.compile(r"c|(?:c/)?\d+(?:[./]\d+)*")
# No metadata document is larger; in a zip file a megabyte can inflate to a thousand.
MAX_DOCUMENT_BYTES = 64 << 20
# How many requests wait for the network at the same time.
PARALLEL_REQUESTS = 16


def sync(request: Coroutine[Any, Any, T]) -> T:
    """Wait for the answer of a store, and return it."""
    # Zarr runs its asynchronous stores in an event loop of its own, and has no public function
    # that waits for it.
    return zarr_sync(request)


def keys_of(store: Store) -> set[str]:
    """Return the keys of all objects."""

    async def collect() -> set[str]:
        return {key async for key in store.list()}

    with name_failures(str(store), "listed"):
        return sync(collect())


def copy_objects(source: Store, target: Store, keys: Iterable[str]) -> None:
    """Copy objects in parallel, a bounded number at a time."""

    def copy(key: str) -> None:
        sync(target.set(key, read_object(source, key)))

    run_on_objects(copy, keys)


def run_on_objects(task: Callable[[str], None], keys: Iterable[str]) -> None:
    """Run ``task`` for every key, in parallel, a bounded number at a time."""
    with open_pool(PARALLEL_REQUESTS, n_threads=PARALLEL_REQUESTS) as pool:
        for key in keys:
            pool.submit(task, key)


def read_object(store: Store, key: str) -> Buffer:
    """Return an object.

    Raises
    ------
    StoreError
        If it is missing or cannot be read.
    """
    with name_failures(f"{store}/{key}", "read"):
        value = sync(store.get(key, default_buffer_prototype()))
    if value is None:
        raise StoreError(f"{hide_secrets(str(store))}: {key}: is missing")
    return value


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def is_document(key: str) -> bool:
    """Whether the object is a metadata document of Zarr."""
    return _name(key) in DOCUMENT_NAMES


def is_reserved(key: str) -> bool:
    """Whether the object is a metadata document, or one that may lie beside those of Zarr."""
    return is_document(key) or key in (CARD, PAGE)


def unfinished_by(document: bytes | None) -> dict[str, Any] | None:
    """Return what a root document says of the store being written there; None if it is whole."""
    if document is None or len(document) > MAX_UNFINISHED_BYTES:
        return None
    try:
        content = json.loads(document)
    except ValueError:
        return None
    is_unfinished = isinstance(content, dict) and content.get("node_type") == UNFINISHED
    return content if is_unfinished else None


def check_document_size(name: str, n_bytes: int) -> None:
    """Check that a metadata document has a size at which it can be read.

    Raises
    ------
    StoreError
        If it is too large.
    """
    if n_bytes > MAX_DOCUMENT_BYTES:
        raise StoreError(
            f"{name}: metadata of {n_bytes:,} bytes, expected {MAX_DOCUMENT_BYTES:,} at most; the "
            "store is damaged, or meant to fill the memory"
        )


def root_first(key: str) -> tuple[int, str]:
    """Sort metadata documents so that the root's come first."""
    return key.count("/"), key


def root_last(key: str) -> tuple[int, bool]:
    """Sort metadata documents so that the one that opens the store comes last."""
    return -key.count("/"), key in OPENING_NAMES


def as_buffer(data: bytes | bytearray) -> Buffer:
    """Return bytes as stores take them."""
    return default_buffer_prototype().buffer.from_bytes(data)


def foreign_keys(present: Set[str]) -> set[str]:
    """Return which of the objects at a place are not part of the store there.

    Part of it are documents, chunks of arrays that have a document, and what
    may lie beside them.

    Examples
    --------
    >>> keys = {"zarr.json", "image/zarr.json", "image/c/0/0/0", "thesis.tex", "reports/2024"}
    >>> sorted(foreign_keys(keys))
    ['reports/2024', 'thesis.tex']
    """
    arrays = {key.rpartition("/")[0] for key in present if _name(key) in ARRAY_DOCUMENT_NAMES}
    return {key for key in present if not (is_reserved(key) or _is_chunk(key, arrays))}


def _is_chunk(key: str, arrays: Set[str]) -> bool:
    return any(
        key.startswith(f"{array}/") and CHUNK_NAME.fullmatch(key[len(array) + 1 :])
        for array in arrays
    )
