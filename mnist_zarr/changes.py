"""Changes of a store that exists: it is written anew, as it was laid out, and takes its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import numcodecs
import xarray as xr
import zarr
from zarr.codecs import GzipCodec, ZstdCodec

if TYPE_CHECKING:
    from distributed import Client
from mnist_zarr.dataset.concatenation import Part, concat_samples
from mnist_zarr.dataset.scaling import copy_packing
from mnist_zarr.dataset.schema import IMAGE, SAMPLE, validate
from mnist_zarr.errors import OptionError
from mnist_zarr.reading.reader import open_place
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.writing.layout import LEVELS_OF_CODEC, Codec, Compression, Layout
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_store

OWN_CODECS = (ZstdCodec, GzipCodec, numcodecs.Zstd, numcodecs.GZip)


def update(
    target: Target,
    change: Callable[[xr.Dataset], xr.Dataset],
    *,
    progress: bool | None = None,
    client: Client | None = None,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Replace a store by what a function makes of it, such as one with another variable.

    Unlike :meth:`xarray.Dataset.to_zarr` with ``mode="a"``, this brings hashes,
    flags and titles up to date, and readers see the old store until the new one
    is complete. The whole store is written anew, in bounded memory, with the
    order, chunks, codec and format that it has.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        The store: a local folder or zip file, or an Icechunk repository. (Other
        stores would be overwritten object by object while they are read:
        update a copy, and :func:`mnist_zarr.publish` it.)
    change : callable
        Gets the Dataset, lazy except for its coordinates, and returns another.
    progress, client, storage_options
        As of :func:`mnist_zarr.write_zarr`.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreError
        If the store cannot be read, or would be overwritten while it is read.
    SchemaError
        If what ``change`` returns is not of the data model, or cannot be stored.
    OptionError
        If ``change`` is no function, or the target takes no ``storage_options``.
    TargetBusyError
        If another process is building the same target.

    Examples
    --------
    >>> import tempfile, mnist_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     update(f"{folder}/mnist.zarr", lambda ds: ds.assign_coords(is_even=ds.label % 2 == 0))
    ...     mnist_zarr.open_store(f"{folder}/mnist.zarr").is_even.values[:3]
    array([False,  True,  True])
    """
    if not callable(change):
        raise OptionError(
            f"`change`: expected a function from Dataset to Dataset, got {type(change).__name__}"
        )
    place = parse_target(target, storage_options)
    ds, group = open_place(place)
    layout = _layout_of(group, ds)
    write_store(change(ds), place, layout, overwrite=True, progress=progress, client=client)


def append(
    target: Target,
    ds: xr.Dataset,
    *,
    progress: bool | None = None,
    client: Client | None = None,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Add samples to a store, after those that it has.

    Unlike :meth:`xarray.Dataset.to_zarr` with ``append_dim="sample"``, this
    keeps a store in label order in that order, and brings hashes, flags and
    titles up to date: a store of MNIST with more samples is no longer called
    MNIST. The store is replaced as by :func:`update`.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        The store: a local folder or zip file, or an Icechunk repository.
    ds : xarray.Dataset
        The samples to add, with the variables of the store, of the same types and
        shapes. ``source_index`` continues from the store's; samples without
        ``split`` are of split ``"unknown"`` if the store has splits. Names of
        classes are those of the store, unless ``ds`` has its own.
    progress, client, storage_options
        As of :func:`mnist_zarr.write_zarr`.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreError
        If the store cannot be read, or would be overwritten while it is read.
    SchemaError
        If ``ds`` is not of the data model, or has labels that are not among the
        named classes of the store.
    SourceError
        If ``ds`` does not fit to the store: in variables, shapes or types, in the
        range of its pixels, or in the names of its classes.
    OptionError
        If the target takes no ``storage_options``.
    TargetBusyError
        If another process is building the same target.

    Examples
    --------
    >>> import tempfile, mnist_zarr
    >>> mnist = mnist_zarr.open_dataset("mnist")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.write_zarr(mnist.isel(sample=slice(0, 100)), f"{folder}/some.zarr")
    ...     append(f"{folder}/some.zarr", mnist.isel(sample=slice(100, 105)))
    ...     mnist_zarr.open_store(f"{folder}/some.zarr").sizes["sample"]
    105
    """

    def with_more_samples(stored: xr.Dataset) -> xr.Dataset:
        validate(ds)
        added = ds.copy()
        for name, variable in added.variables.items():
            if name in stored.variables:
                variable.attrs = {**stored[name].attrs, **variable.attrs}
        parts = [Part("the store", stored, is_as_opened=True), Part("the Dataset", added)]
        joined = concat_samples(parts).drop_attrs(deep=False)
        if IMAGE in stored.variables:
            copy_packing(joined[IMAGE].variable, stored[IMAGE].variable)
        # What the store says of itself, which is written as far as it is true of all samples.
        return joined.assign_attrs(stored.attrs)

    update(
        target,
        with_more_samples,
        progress=progress,
        client=client,
        storage_options=storage_options,
    )


def _layout_of(group: zarr.Group, ds: xr.Dataset) -> Layout:
    """Return how a store was laid out, as far as it tells."""
    order = group.attrs.get("order")
    known: dict[str, Any] = {"order": order} if order in get_args(Order) else {}
    image = group.get(IMAGE)
    if isinstance(image, zarr.Array) and ds[IMAGE].dims[0] == SAMPLE:
        sample_bytes = max(1, image.dtype.itemsize * math.prod(image.shape[1:]))
        known["chunk_bytes"] = image.chunks[0] * sample_bytes
        known["shard_bytes"] = image.shards[0] * sample_bytes if image.shards else 0
        for codec in image.compressors:
            name: Codec = "gzip" if isinstance(codec, GzipCodec | numcodecs.GZip) else "zstd"
            level: Any = getattr(codec, "level", None)
            if level in LEVELS_OF_CODEC[name] and type(codec) in OWN_CODECS:
                known["compression"] = Compression(name, level)
    return Layout(zarr_format=group.metadata.zarr_format, **known)
