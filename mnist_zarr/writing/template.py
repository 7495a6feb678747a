"""The metadata of a store, made in memory before anything is written.

A :class:`Template` holds the metadata documents of all arrays. ``bind`` gives
arrays that write chunks into a store that has no metadata yet, which
``write_metadata`` adds at the end. Attributes and dimension names are as xarray
writes them, see https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from mnist_zarr.dataset.records import METADATA_SHA256, metadata_sha256
from mnist_zarr.dataset.schema import STRING_DTYPE, is_string
from mnist_zarr.errors import SchemaError
from mnist_zarr.stores.keys import is_reserved, sync
from mnist_zarr.writing.attributes import as_json
from mnist_zarr.writing.chunks import ArrayWriter, bind_array
from mnist_zarr.writing.layout import Compression, ZarrFormat
from mnist_zarr.writing.plan import Chunking
from mnist_zarr.writing.shards import OpenShards

# Codes of NumPy: booleans, integers, floats and complex numbers that Zarr has as well.
STORED_TYPES = "?bhilqBHILQefdFD"


class Template:
    """The metadata documents of a store of one group.

    Parameters
    ----------
    compression : Compression
        Of all arrays.
    zarr_format : {2, 3}
        The format of the store.
    """

    def __init__(self, compression: Compression, zarr_format: ZarrFormat) -> None:
        self._documents: dict[str, Buffer] = {}
        self._compression = compression
        self._zarr_format = zarr_format
        self._group = zarr.create_group(MemoryStore(self._documents), zarr_format=zarr_format)

    def add(
        self, name: str, variable: xr.Variable, chunking: Chunking | None, attrs: Mapping[Any, Any]
    ) -> None:
        """Add the array of a variable, in one chunk if there is no ``chunking``.

        Raises
        ------
        SchemaError
            If Zarr has no such type or name of a dimension, or JSON no such attribute.
        """
        chunks, shards = tuple(max(1, size) for size in variable.shape), None
        if chunking is not None:
            chunks = (chunking.chunk_samples, *chunks[1:])
            if chunking.shard_samples:
                shards = (chunking.shard_samples, *chunks[1:])
        for dim in variable.dims:
            if not isinstance(dim, str):
                raise SchemaError(
                    f"{name!r}: the name of dimension {dim!r} is no string; use .rename(...)"
                )
        dtype, dims = stored_dtype(name, variable.dtype), [str(dim) for dim in variable.dims]
        is_v2 = self._zarr_format == 2
        self._group.create_array(
            name,
            shape=variable.shape,
            dtype=dtype,
            chunks=chunks,
            shards=shards,
            compressors=self._compression.for_format(self._zarr_format),
            # In format 2 xarray takes elements equal to the fill value for missing ones.
            fill_value=None if is_v2 else "" if dtype == STRING_DTYPE else dtype.type(0),
            attributes=as_json(attrs, repr(name)) | ({"_ARRAY_DIMENSIONS": dims} if is_v2 else {}),
            dimension_names=None if is_v2 else dims,
        )

    def bind(self, store: Store) -> dict[str, ArrayWriter]:
        """Return writers of chunks into ``store``, which stays without metadata."""
        return {
            name: ArrayWriter(
                bind_array(array.metadata, store, name), self._compression, _shards_of(array)
            )
            for name, array in self._group.arrays()
        }

    def write_metadata(self, store: Store, attrs: Mapping[str, Any]) -> None:
        """Write the metadata, with these attributes of the root."""
        self._group.attrs.update(attrs)
        documents = {key: document.to_bytes() for key, document in self._documents.items()}
        self._group.attrs[METADATA_SHA256] = metadata_sha256(documents)
        with warnings.catch_warnings():
            # Readers over HTTP need consolidated metadata; zarr-python, xarray and others agree
            # on its form in format 3, but the specification has not got it yet.
            warnings.filterwarnings(
                "ignore", "Consolidated metadata is currently not part", ZarrUserWarning
            )
            zarr.consolidate_metadata(self._group.store, zarr_format=self._zarr_format)
        for key, document in self._documents.items():
            sync(store.set(key, document))


def _shards_of(array: zarr.Array[Any]) -> OpenShards | None:
    if array.shards is None:
        return None
    chunk_samples = array.chunks[0]
    return OpenShards(array.shards[0] // chunk_samples, -(-array.shape[0] // chunk_samples))


def check_name(name: object) -> str:
    """Return the name of a variable, if Zarr can have an array of that name.

    Raises
    ------
    SchemaError
        If it cannot (Zarr 3 core specification, "Node names").
    """
    # Control characters and backslashes are none of Zarr's concern, but of file systems.
    is_node_name = isinstance(name, str) and name.strip(".") and not set("/\\") & set(name)
    if is_node_name and str(name).isprintable() and not is_reserved(str(name)):
        return str(name)
    raise SchemaError(
        f"{name!r}: is no name for an array of Zarr; choose another one with .rename(...)"
    )


def stored_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that Zarr has for a variable.

    Raises
    ------
    SchemaError
        If it has none.
    """
    if isinstance(dtype, np.dtype):  # not one of the extension types of pandas
        if dtype.char in STORED_TYPES:
            return dtype.newbyteorder("=")
        if is_string(dtype):
            return STRING_DTYPE
    raise SchemaError(
        f"{name!r}: expected numbers, booleans or strings that Zarr holds, got {dtype}; "
        f"convert it or drop it with .drop_vars({name!r})"
    )
