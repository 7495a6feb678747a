"""The metadata of a store, made in memory before anything is written.

A :class:`Template` holds the metadata documents of all arrays. ``bind`` gives
arrays that write chunks into a store that has no metadata yet; ``publish``
writes the documents, the root's last, which makes the store one that readers
open. Attributes and dimension names are as xarray writes them, see
https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from mnist_zarr.dataset.records import METADATA_SHA256, metadata_sha256
from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.stores.keys import sync
from mnist_zarr.writing.chunks import ArrayWriter, bind_array
from mnist_zarr.writing.layout import Compression, ZarrFormat


@dataclass(frozen=True)
class ArraySpec:
    """What the metadata of one array says."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


class Template:
    """The metadata documents of a store of one group.

    Parameters
    ----------
    specs : sequence of ArraySpec
        The arrays.
    compression : Compression
        Of all arrays.
    zarr_format : {2, 3}
        The format of the store.
    """

    def __init__(
        self, specs: Sequence[ArraySpec], compression: Compression, zarr_format: ZarrFormat
    ) -> None:
        self._documents: dict[str, Buffer] = {}
        self._compression = compression
        self._zarr_format = zarr_format
        self._group = zarr.create_group(MemoryStore(self._documents), zarr_format=zarr_format)
        for spec in specs:
            self._create(spec)

    def _create(self, spec: ArraySpec) -> None:
        attrs = {name: jsonable(value) for name, value in spec.attrs.items()}
        is_v2 = self._zarr_format == 2
        if is_v2:
            attrs["_ARRAY_DIMENSIONS"] = list(spec.dims)
        self._group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            compressors=self._compression.for_format(self._zarr_format),
            # In format 2 xarray takes elements equal to the fill value for missing ones.
            fill_value=None if is_v2 else zarr_default_fill(spec),
            attributes=attrs,
            dimension_names=None if is_v2 else spec.dims,
        )

    def bind(self, store: Store) -> dict[str, ArrayWriter]:
        """Return writers of chunks into ``store``, which stays without metadata."""
        return {
            name: ArrayWriter(bind_array(array.metadata, store, name), self._compression)
            for name, array in self._group.arrays()
        }

    def publish(self, store: Store, attrs: Mapping[str, Any]) -> None:
        """Write the metadata with these root attributes: from then on the store opens."""
        self._group.attrs.update({name: jsonable(value) for name, value in attrs.items()})
        documents = {key: document.to_bytes() for key, document in self._documents.items()}
        self._group.attrs[METADATA_SHA256] = metadata_sha256(documents)
        with warnings.catch_warnings():
            # Readers over HTTP need consolidated metadata; zarr-python, xarray and others agree
            # on its form in format 3, but the specification has not got it yet.
            warnings.filterwarnings(
                "ignore", "Consolidated metadata is currently not part", ZarrUserWarning
            )
            zarr.consolidate_metadata(self._group.store, zarr_format=self._zarr_format)
        for key in sorted(self._documents, key=lambda key: ("/" not in key, key)):
            sync(store.set(key, self._documents[key]))


def zarr_default_fill(spec: ArraySpec) -> Any:
    """Return zero, or what stands for it in the type of the array."""
    return "" if spec.dtype == STRING_DTYPE else spec.dtype.type(0)


def jsonable(value: Any) -> Any:
    """Return an attribute value as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    return value
