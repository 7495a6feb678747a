"""Which objects a store should have according to its metadata, and which ones it has."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

from mnist_zarr.dataset.records import (
    BLANK_OBJECTS,
    METADATA_SHA256,
    as_recorded,
    blank_objects,
    metadata_sha256,
)
from mnist_zarr.errors import StoreError
from mnist_zarr.files.urls import hide_secrets, name_failures
from mnist_zarr.stores.bucket import BucketStore, list_objects
from mnist_zarr.stores.keys import (
    ARRAY_DOCUMENT_NAMES,
    ROOT,
    is_document,
    keys_of,
    run_on_objects,
    sync,
    unfinished_by,
)
from mnist_zarr.stores.lineage import innermost
from mnist_zarr.stores.object_reader import ObjectReader, list_client

# Of a store that lacks more chunks than this, they are neither asked for nor named one by one:
# metadata of some kilobytes can promise billions.
MAX_MISSING = 10_000


class Promises:
    """Which chunks of a store must exist; one that is missing besides holds the fill value.

    Zarr need not write a chunk that is equal to the fill value. We do, and record the metadata of
    every array that we write, and its blank objects, which whoever copies the store may leave out.
    An array with other metadata was written by somebody else.

    Parameters
    ----------
    documents : mapping
        The metadata documents at the root of the store, by key.

    Raises
    ------
    ValueError
        If they are not JSON.
    """

    def __init__(self, documents: Mapping[str, Buffer]) -> None:
        attrs = json.loads(documents[".zattrs"].to_bytes()) if ".zattrs" in documents else {}
        if "zarr.json" in documents:
            attrs = json.loads(documents["zarr.json"].to_bytes()).get("attributes", {})
        recorded = as_recorded(attrs.get(METADATA_SHA256))
        copies = {
            key: json.dumps(copy).encode() for key, copy in consolidated_copies(documents).items()
        }
        same = as_recorded(metadata_sha256(copies)).items() & recorded.items()
        blank = blank_objects(attrs.get(BLANK_OBJECTS))
        self._optional = {
            array: blank.get(array, [])
            for array, _, name in (key.rpartition("/") for key, _ in same)
            if array and name in ARRAY_DOCUMENT_NAMES
        }

    def optional(self, array: str) -> list[range]:
        """Return which chunks, or shards, of an array may be missing: their first indices."""
        return self._optional.get(array, EVERYTHING)

    def requires(self, key: str) -> bool:
        """Whether this chunk, or shard, must exist."""
        array = key.partition("/")[0]
        return array in self._optional and not _is_in(_index_of(key), self._optional[array])


EVERYTHING = [range(sys.maxsize)]


def _is_in(index: int, ranges: Iterable[range]) -> bool:
    return any(index in indices for indices in ranges)


def _index_of(key: str) -> int:
    """Return the index of a chunk, or shard, along the first dimension of its array."""
    number = re.search(r"\d+", key.partition("/")[2])
    return int(number[0]) if number else 0


@dataclass(frozen=True)
class Inventory:
    """The chunks that arrays promise, and the objects that exist.

    Attributes
    ----------
    arrays : tuple of zarr.Array
        The arrays that the metadata describe.
    sizes : dict
        From the key of each object that exists to its size in bytes.
    promises : Promises, optional
        Which chunks must exist; by default all.
    """

    arrays: tuple[zarr.Array[Any], ...]
    sizes: Mapping[str, int]
    promises: Promises | None = None

    @property
    def n_promised(self) -> int:
        """Return the number of chunks, or shards, that should exist, or do."""
        return sum(
            self._n_required(array)
            + sum(_is_in(_index_of(key), self._optional(array)) for key in self._chunks[array.path])
            for array in self.arrays
        )

    def promised(self) -> Iterator[str]:
        """Yield the key of each chunk, or shard, that should exist, or does."""
        return itertools.chain.from_iterable(map(self._promised, self.arrays))

    def missing(self) -> Iterator[str]:
        """Yield the key of each chunk, or shard, that is missing or empty or cut off."""
        for array in self.arrays:
            least = least_bytes(array)
            yield from (key for key in self._promised(array) if self.sizes.get(key, 0) < least)

    @property
    def n_missing(self) -> int:
        """Return how many chunks are missing or empty, counted by what is there."""
        return self.n_promised - sum(
            self.sizes[key] >= least_bytes(array)
            for array in self.arrays
            for key in self._chunks[array.path]
        )

    def describe_missing(self) -> str | None:
        """Return how many chunks are missing or empty, and the first one; None if none is."""
        if not (n_missing := self.n_missing):
            return None
        return f"{n_missing:,} of {self.n_promised:,} chunks, such as {next(self.missing())!r}"

    def _promised(self, array: zarr.Array[Any]) -> Iterator[str]:
        optional = self._optional(array)
        if optional is EVERYTHING:
            yield from self._chunks[array.path]
            return
        for key in chunk_keys([array]):
            if key in self.sizes or not _is_in(_index_of(key), optional):
                yield key

    def _n_required(self, array: zarr.Array[Any]) -> int:
        first, *others = stored_grid(array) or (1,)
        n_optional = sum(len(range(first)[r.start : r.stop]) for r in self._optional(array))
        return (first - n_optional) * math.prod(others)

    def _optional(self, array: zarr.Array[Any]) -> list[range]:
        return [] if self.promises is None else self.promises.optional(array.path)

    def n_absent(self, array: zarr.Array[Any]) -> int:
        """Return how many chunks, or shards, of an array do not exist, required or not."""
        return math.prod(stored_grid(array)) - len(self._chunks[array.path])

    @functools.cached_property
    def _chunks(self) -> dict[str, list[str]]:
        """The keys of the chunks, or shards, that exist, of each array by its path."""
        return {
            array.path: [key for key in self.sizes_of(array) if _is_chunk_of(array, key)]
            for array in self.arrays
        }

    def sizes_of(self, array: zarr.Array[Any]) -> dict[str, int]:
        """Return the sizes of the objects of one array, including its metadata documents."""
        folder = f"{array.path}/"
        return {key: size for key, size in self.sizes.items() if key.startswith(folder)}


def take_inventory(
    arrays: Iterable[zarr.Array[Any]], store: Store, promises: Promises | None = None
) -> Inventory:
    """List a store once, and compare it with what its arrays promise.

    Web servers do not list: there, the size of each object that may exist is requested, until
    more than ``MAX_MISSING`` are missing.

    Raises
    ------
    StoreError
        If it cannot be told which chunks exist.
    """
    arrays = tuple(arrays)
    store = innermost(store)  # a wrapper would read an object to tell its size
    if store.supports_listing:
        return Inventory(arrays, list_sizes(store), promises)
    documents = (f"{array.path}/{name}" for array in arrays for name in _document_names(array))
    sizes = _ask_sizes(store, itertools.chain(documents, chunk_keys(arrays)))
    inventory = Inventory(arrays, sizes, promises)
    if sum(map(inventory.n_absent, arrays)) > max(MAX_MISSING, inventory.n_missing):
        raise StoreError(
            f"{hide_secrets(str(store))}: lacks many chunks, and cannot be listed to tell which; "
            "use an address that can be listed, such as s3://..."
        )
    return inventory


def list_sizes(store: Store) -> dict[str, int]:
    """Return the size of every object of a store in bytes, by key."""
    return {key: info["size"] for key, info in list_infos(store).items()}


def list_infos(store: Store) -> dict[str, Mapping[str, Any]]:
    """Return what the listing of a store says of every object, by key; at least its ``size``."""
    store = innermost(store)
    if isinstance(store, BucketStore | ObjectReader):
        return dict(sync(store.infos()))
    if isinstance(store, FsspecStore):
        with name_failures(store.fs.unstrip_protocol(store.path), "listed"):
            return sync(list_objects(store))
    if isinstance(store, ObjectStore):
        with name_failures(str(store), "listed"):
            return sync(list_client(store.store))
    sizes = (
        dict(_walk(store.root))
        if isinstance(store, LocalStore)
        else _ask_sizes(store, keys_of(store))
    )
    return {key: {"size": size} for key, size in sizes.items()}


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
    root = _read_present(store, [ROOT])
    if _are_unfinished(root):
        return {}
    return root or _read_present(store, names_of_format_2)


def is_unfinished(store: Store) -> bool:
    """Whether a build writes here, or has been interrupted."""
    return _are_unfinished(_read_present(store, [ROOT]))


def _are_unfinished(root: Mapping[str, Buffer]) -> bool:
    return ROOT in root and unfinished_by(root[ROOT].to_bytes()) is not None


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


def _is_chunk_of(array: zarr.Array[Any], key: str) -> bool:
    """Whether this is the key of a chunk, or shard, of the array."""
    numbers = re.findall(r"\d+", key.removeprefix(f"{array.path}/")) if array.ndim else []
    index, grid = tuple(map(int, numbers)), stored_grid(array)
    is_inside = len(index) == len(grid) and all(i < n for i, n in zip(index, grid, strict=True))
    return is_inside and chunk_key(array, index) == key


def _document_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    return ("zarr.json",) if array.metadata.zarr_format == 3 else (".zarray", ".zattrs")
