"""From a Zarr store to a Dataset."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import xarray as xr
import zarr
from zarr.abc.store import Store

from mnist_zarr.dataset.lazy import kept
from mnist_zarr.dataset.schema import SAMPLE
from mnist_zarr.errors import MnistZarrError, OptionError, StoreError
from mnist_zarr.formats.source import Source
from mnist_zarr.reading.threaded_pipeline import pipeline_of
from mnist_zarr.stores.inventory import Promises, read_root
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.snapshot import CheckedStore
from mnist_zarr.stores.targets import Target, names_store, parse_target

# A dask task costs some 0.3 ms: small chunks of a store are read several at once.
DASK_CHUNK_BYTES = 8_000_000


def open_store(
    target: Target, *, chunks: Any = "auto", storage_options: dict[str, Any] | None = None
) -> xr.Dataset:
    """Open a store of which each coordinate is read once, when it is first asked for.

    The same Dataset as :func:`xarray.open_zarr` gives, but ``label``,
    ``split`` and the other one-dimensional coordinates are plain arrays, not of
    dask, so that ``groupby("label")`` and ``where`` work, and they stay in memory
    once they were read, so that selecting again does not fetch them again. A
    chunk that is missing from a store that :func:`build` or :func:`write_zarr` has
    made is an error, not a stretch of black images, and so is a store that another
    version replaces while it is read.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    chunks : optional
        ``"auto"`` gives dask chunks of several whole stored objects, about 8
        MB each; ``None`` lazy arrays without dask; anything else is as in
        :meth:`xarray.Dataset.chunk`.
    storage_options : dict, optional
        Those of the fsspec file system of a URL, such as ``anon`` or
        ``endpoint_url``, or of Icechunk. Where obstore is installed, it reads in
        place of the file system if it understands them all, and fsspec if not.

    Returns
    -------
    xarray.Dataset
        ``image`` lazy, the coordinates along ``sample`` read when they are needed.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreReplacedError
        If the store is replaced while it is opened; afterwards also from the
        Dataset, wherever it reads.
    StoreError
        If what is there cannot be opened.
    OptionError
        If the target is neither a path, a URL nor a store object, takes no
        ``storage_options`` or those of fsspec under another name, or ``chunks`` is
        nothing that xarray understands.

    Examples
    --------
    >>> import tempfile, mnist_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     ds = open_store(f"{folder}/mnist.zarr")
    ...     ds.groupby("label").count().image[:, 0, 0].values[:3]
    array([6903, 7877, 6990])
    """
    place = parse_target(target, storage_options)
    ds, group = open_place(place)
    if chunks is None:
        return ds
    return ds.assign({key: _chunk(array, chunks, place.name, group) for key, array in ds.items()})


class StoreSource(Source):
    """A Zarr store; behind a URL it is known by its name, ``....zarr``."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return names_store(given)

    def open(self) -> xr.Dataset:
        self._refuse_labels("a Zarr store has its own")
        return open_place(self._place())[0]

    def identity(self) -> Hashable:
        return self._place().identity()

    def _place(self) -> Place:
        return parse_target(self.given, self.options, "source_options")


def open_place(place: Place) -> tuple[xr.Dataset, zarr.Group]:
    """Open the store at a place once, as a Dataset without dask and as a group of Zarr.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    StoreError
        If what is there cannot be opened.
    """
    try:
        store = place.open_snapshot()
        if isinstance(store, CheckedStore):
            store.promises = Promises(read_root(store))
        with pipeline_of(store):
            group = _open_group(store)
            ds = xr.open_dataset(group, chunks=None, cache=False)
        ds = ds.assign_coords({key: _keep(coord) for key, coord in ds.coords.items()})
    except (MnistZarrError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise place.not_found(store) from error
    except Exception as error:  # whatever Zarr and xarray make of damaged metadata and chunks
        raise StoreError(f"{place.name}: cannot be opened as a Zarr store: {error}") from error
    return ds, group.zarr_group


def _open_group(store: Store) -> xr.backends.ZarrStore:
    """Do the first half of :func:`xarray.open_zarr`, which does not show the group of Zarr."""
    group: xr.backends.ZarrStore
    try:
        # One request, and none for documents that are not there, which some object stores
        # refuse to answer to readers without credentials.
        group = xr.backends.ZarrStore.open_group(store, consolidated=None, zarr_format=3)
    except FileNotFoundError:
        group = xr.backends.ZarrStore.open_group(store, consolidated=None)
    return group


def _keep(coord: xr.DataArray) -> xr.Variable:
    """Return a coordinate along ``sample`` that is read once; any other as it is."""
    if coord.dims != (SAMPLE,) or isinstance(coord.variable, xr.IndexVariable):
        return coord.variable
    # Before 2026.9 xarray does not say it of strings of format 2.
    (chunk_samples,) = coord.encoding.get("chunks", coord.shape)
    return kept(coord.variable, max(1, chunk_samples))


def _chunk(array: xr.DataArray, chunks: Any, place: str, group: zarr.Group) -> xr.Variable:
    from dask.base import tokenize  # a third of a second, which whoever needs no dask is spared

    if isinstance(chunks, str) and chunks == "auto":
        whole_objects = dict(array.encoding.get("preferred_chunks", {}))
        if SAMPLE in whole_objects:
            object_bytes = max(1, array.nbytes * whole_objects[SAMPLE] // max(1, array.shape[0]))
            whole_objects[SAMPLE] *= max(1, DASK_CHUNK_BYTES // object_bytes)
        chunks = whole_objects
    # dask would name an array by a pickle of its store, for which it opens a remote one again.
    token = tokenize(place, str(group.store), group.attrs.asdict(), array.name, chunks)
    try:
        return array.variable.chunk(chunks, name=f"{array.name}-{token}")
    except (ValueError, TypeError, NotImplementedError) as error:
        raise OptionError(f"`chunks`: {error}") from error
