"""Which objects a store should have according to its metadata, and which ones it has."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from mnist_zarr.errors import StoreError
from mnist_zarr.files.urls import name_failures
from mnist_zarr.stores.keys import (
    is_document,
    keys_of,
    run_on_objects,
    sync,
)
from mnist_zarr.stores.lineage import innermost

# Of a store that lacks more chunks than this, they are neither asked for nor named one by one:
# metadata of some kilobytes can promise billions.
MAX_MISSING = 10_000


@dataclass(frozen=True)
class Inventory:
    """The chunks that arrays promise, and the objects that exist.

    Attributes
    ----------
    arrays : tuple of zarr.Array
        The arrays that the metadata describe.
    sizes : dict
        From the key of each object that exists to its size in bytes.
    """

    arrays: tuple[zarr.Array[Any], ...]
    sizes: Mapping[str, int]

    @property
    def n_promised(self) -> int:
        """Return the number of chunks, or shards, that should exist."""
        return sum(math.prod(stored_grid(array)) for array in self.arrays)

    def promised(self) -> Iterator[str]:
        """Yield the key of each chunk, or shard, that should exist."""
        return chunk_keys(self.arrays)

    def missing(self) -> Iterator[str]:
        """Yield the key of each chunk, or shard, that is missing or empty or cut off."""
        return (
            key
            for array in self.arrays
            for key in chunk_keys([array])
            if self.sizes.get(key, 0) < least_bytes(array)
        )

    @property
    def n_missing(self) -> int:
        """Return how many chunks are missing or empty, counted by what is there."""
        return self.n_promised - sum(
            size >= least_bytes(array) and _promises(array, key)
            for array in self.arrays
            for key, size in self.sizes_of(array).items()
        )

    def describe_missing(self) -> str | None:
        """Return how many chunks are missing or empty, and the first one; None if none is."""
        if not (n_missing := self.n_missing):
            return None
        return f"{n_missing:,} of {self.n_promised:,} chunks, such as {next(self.missing())!r}"

    def sizes_of(self, array: zarr.Array[Any]) -> dict[str, int]:
        """Return the sizes of the objects of one array, including its metadata documents."""
        folder = f"{array.path}/"
        return {key: size for key, size in self.sizes.items() if key.startswith(folder)}


def take_inventory(arrays: Iterable[zarr.Array[Any]], store: Store) -> Inventory:
    """List a store once, and compare it with what its arrays promise.

    Web servers do not list: there, the size of each object that should exist is requested,
    until more than ``MAX_MISSING`` are missing.
    """
    arrays = tuple(arrays)
    if store.supports_listing:
        return Inventory(arrays, list_sizes(store))
    documents = (f"{array.path}/{name}" for array in arrays for name in _document_names(array))
    return Inventory(arrays, _ask_sizes(store, itertools.chain(documents, chunk_keys(arrays))))


def list_sizes(store: Store) -> dict[str, int]:
    """Return the size of every object of a store in bytes, by key."""
    return {key: info["size"] for key, info in list_infos(store).items()}


def list_infos(store: Store) -> dict[str, Mapping[str, Any]]:
    """Return what the listing of a store says of every object, by key; at least its ``size``."""
    store = innermost(store)
    if not isinstance(store, FsspecStore):
        sizes = _walk(store.root) if isinstance(store, LocalStore) else _ask_all(store)
        return {key: {"size": size} for key, size in sizes}
    with name_failures(store.fs.unstrip_protocol(store.path), "listed"):
        store.fs.invalidate_cache()
        # In fsspec an underscore marks what is asynchronous, not what is private.
        found = sync(store.fs._find(store.path, detail=True))
    folder = f"{store.path}/"
    return {path.removeprefix(folder): info for path, info in found.items()}


def _ask_all(store: Store) -> Iterable[tuple[str, int]]:
    return _ask_sizes(store, keys_of(store)).items()


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    entered: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # links may go round in circles
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                yield path.relative_to(root).as_posix(), path.stat().st_size


def check_links(store: Store, keys: Iterable[str]) -> None:
    """Check that no object is a link to a file outside of the store.

    Raises
    ------
    StoreError
        If one is: who copies the store would copy that file.
    """
    store = innermost(store)
    if isinstance(store, LocalStore):
        root = os.path.realpath(store.root)
    elif isinstance(store, FsspecStore) and _is_local(store):
        root = os.path.realpath(store.path)
    else:
        return
    for key in keys:
        place = os.path.realpath(os.path.join(root, key))
        if not place.startswith(os.path.join(root, "")):
            raise StoreError(
                f"{root}: {key} is a link to {place}, outside of the store; if that file shall be "
                "part of it, copy the store without its links ('cp -rL') first"
            )


def _is_local(store: FsspecStore) -> bool:
    return isinstance(getattr(store.fs, "sync_fs", store.fs), LocalFileSystem)


def _ask_sizes(store: Store, keys: Iterable[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    missing: list[str] = []

    def ask(key: str) -> None:
        try:
            with name_failures(f"{store}/{key}", "read"):
                sizes[key] = sync(store.getsize(key))
        except FileNotFoundError:
            missing.append(key)

    run_on_objects(ask, itertools.takewhile(lambda _: len(missing) <= MAX_MISSING, keys))
    return sizes


def read_root(store: Store) -> dict[str, Buffer]:
    """Return the metadata documents at the root of a store, by key; none without a store."""
    # Some object stores answer a request for a missing object with "forbidden".
    names_of_format_2 = (".zmetadata", ".zgroup", ".zattrs")
    return _read_present(store, ["zarr.json"]) or _read_present(store, names_of_format_2)


def read_documents(store: Store, root: Mapping[str, Buffer]) -> dict[str, Buffer]:
    """Return every metadata document of a store, by key, including those at its root.

    The consolidated metadata name them; a store without consolidated metadata is listed.
    """
    keys = set(consolidated_copies(root)) or (keys_of(store) if store.supports_listing else set())
    # Damaged or malicious metadata may name anything.
    named = {key for key in keys if is_document(key) and ".." not in key.split("/")}
    return {**root, **_read_present(store, sorted(named - root.keys()))}


def consolidated_copies(root: Mapping[str, Buffer]) -> dict[str, Any]:
    """Return the copies of all other documents that the consolidated metadata hold, by key.

    Raises
    ------
    ValueError
        If the documents at the root are not JSON.
    """
    if "zarr.json" in root:
        consolidated = json.loads(root["zarr.json"].to_bytes()).get("consolidated_metadata")
        copies = consolidated["metadata"] if consolidated else {}
        return {f"{path}/zarr.json": copy for path, copy in copies.items()}
    if ".zmetadata" in root:
        return dict(json.loads(root[".zmetadata"].to_bytes())["metadata"])
    return {}


def _read_present(store: Store, keys: Iterable[str]) -> dict[str, Buffer]:
    documents: dict[str, Buffer] = {}

    def read(key: str) -> None:
        if (document := sync(store.get(key, default_buffer_prototype()))) is not None:
            documents[key] = document

    run_on_objects(read, keys)
    return {key: documents[key] for key in sorted(documents)}


def open_documents(documents: Mapping[str, Buffer]) -> zarr.Group:
    """Return the group that metadata documents describe, without its chunks."""
    return zarr.open_group(MemoryStore(dict(documents)), mode="r")


def arrays_in(group: zarr.Group) -> Iterator[zarr.Array[Any]]:
    """Yield the arrays of a group and of its subgroups."""
    return (node for _, node in group.members(max_depth=None) if isinstance(node, zarr.Array))


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the dimension names that xarray has written for an array; () if there are none."""
    if array.metadata.zarr_format == 2:
        return tuple(array.attrs.get("_ARRAY_DIMENSIONS", ()))  # type: ignore[arg-type]
    return tuple(map(str, array.metadata.dimension_names or ()))


def stored_grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the number of chunks, or shards, along each dimension of an array."""
    sizes = array.shards or array.chunks
    return tuple(-(-length // size) for length, size in zip(array.shape, sizes, strict=True))


def least_bytes(array: zarr.Array[Any]) -> int:
    """Return how large a chunk, or shard, is at least: a shard has 16 bytes for each chunk in it.

    Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/.
    """
    if not array.shards:
        return 1
    return 16 * math.prod(s // c for s, c in zip(array.shards, array.chunks, strict=True))


def chunk_keys(arrays: Iterable[zarr.Array[Any]]) -> Iterator[str]:
    """Yield the key of each chunk, or shard, of these arrays; there may be millions."""
    for array in arrays:
        yield from (chunk_key(array, index) for index in iter_grid(stored_grid(array)))


def iter_grid(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of a grid in C order.

    Unlike ``numpy.ndindex`` it does not hold the indices along each dimension in memory.

    Examples
    --------
    >>> list(iter_grid((2, 2)))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        yield from ((first, *rest) for rest in iter_grid(shape[1:]))


def chunk_key(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
    """Return the key of the chunk, or shard, at this index of the grid of an array."""
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def _promises(array: zarr.Array[Any], key: str) -> bool:
    """Whether this is the key of a chunk, or shard, of the array."""
    numbers = re.findall(r"\d+", key.removeprefix(f"{array.path}/")) if array.ndim else []
    index, grid = tuple(map(int, numbers)), stored_grid(array)
    is_inside = len(index) == len(grid) and all(i < n for i, n in zip(index, grid, strict=True))
    return is_inside and chunk_key(array, index) == key


def _document_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    return ("zarr.json",) if array.metadata.zarr_format == 3 else (".zarray", ".zattrs")
