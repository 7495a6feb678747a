"""Which stores lazy arrays are read from."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore

from mnist_zarr.stores.object_reader import ObjectReader

# What leads to no array, or to all of Python.
LEAVES = (str, bytes, int, float, complex, type(None), type, ModuleType)

# Options of fsspec that say which server a bucket is on.
SERVER_OPTIONS = ("endpoint_url", "account_name", "connection_string")


def stores_behind(arrays: Iterable[Any]) -> Iterator[Store]:
    """Yield the stores that lazy arrays read from, of dask or of xarray, whatever wraps them.

    Examples
    --------
    >>> import xarray as xr
    >>> store = MemoryStore()
    >>> _ = xr.Dataset({"x": ("sample", [1, 2])}).to_zarr(store, consolidated=False)
    >>> ds = xr.open_zarr(store, consolidated=False)
    >>> [same_objects(found, store) for found in stores_behind([(ds.x + 1).data])]
    [True]
    """
    waiting, seen = list(arrays), set[int]()
    kept = []  # an object that is freed would give its number to another
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, LEAVES):
            continue
        seen.add(id(thing))
        kept.append(thing)
        if isinstance(thing, Store):
            yield thing
        elif isinstance(thing, FunctionType):
            waiting += thing.__closure__ or ()
            waiting += thing.__defaults__ or ()
        elif not isinstance(thing, np.ndarray) or thing.dtype.hasobject:
            waiting += gc.get_referents(thing)


def same_objects(one: Store, other: Store) -> bool:
    """Whether two stores read and write the same objects."""
    one, other = _through_fsspec(innermost(one)), _through_fsspec(innermost(other))
    if isinstance(one, FsspecStore) and isinstance(other, FsspecStore):
        return _address(one) == _address(other)
    if isinstance(one, LocalStore) and isinstance(other, LocalStore):
        return one.root.resolve() == other.root.resolve()
    if isinstance(one, MemoryStore) and isinstance(other, MemoryStore):
        # Two read-only views of one store are two objects; only this tells.
        return one._store_dict is other._store_dict
    return one is other or bool(one == other)


def _through_fsspec(store: Store) -> Store:
    return store.through_fsspec if isinstance(store, ObjectReader) else store


def _address(store: FsspecStore) -> tuple[Any, ...]:
    """Return where the objects are, whoever asks: credentials are no part of it."""
    fs = getattr(store.fs, "sync_fs", store.fs)  # Zarr wraps a file system that is not asynchronous
    options = {**fs.storage_options, **fs.storage_options.get("client_kwargs", {})}
    return (fs.protocol, store.path.strip("/"), *(options.get(name) for name in SERVER_OPTIONS))


def innermost(store: Store) -> Store:
    """Return the store inside of stores that wrap it."""
    while isinstance(store, WrapperStore):
        store = store._store
    return store
