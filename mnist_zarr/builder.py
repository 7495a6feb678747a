"""From a source to a store, in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr
from zarr.abc.store import Store

if TYPE_CHECKING:
    from distributed import Client
from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.catalog.opening import CatalogSource
from mnist_zarr.errors import SourceNotFoundError
from mnist_zarr.files.sources import PathOrFile
from mnist_zarr.files.urls import is_url
from mnist_zarr.formats.idx_engine import Files, IdxSource
from mnist_zarr.formats.idx_names import parse_name
from mnist_zarr.formats.npz import NpzSource
from mnist_zarr.formats.source import Source
from mnist_zarr.reading.reader import StoreSource
from mnist_zarr.stores.targets import Target
from mnist_zarr.writing.layout import Codec, ZarrFormat
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr


def build(
    target: Target,
    source: Files | Store | xr.Dataset = "mnist",
    *,
    labels: PathOrFile | None = None,
    order: Order = "source",
    chunk_bytes: int | None = None,
    shard_bytes: int | None = None,
    codec: Codec = "zstd",
    level: int = 9,
    zarr_format: ZarrFormat = 3,
    rescale: tuple[float, float] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    client: Client | None = None,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
) -> None:
    """Build a Zarr store from a source, in one pass and bounded memory.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        Where the store shall be: a local folder, an fsspec URL, either of
        them ending in ``.zip``, an Icechunk repository
        (``icechunk+s3://...``), or a Zarr store object. Until it is complete
        no reader can open it; an interrupted upload is gone on with.
    source : optional
        The name of a data set of the catalog (``"mnist"``, the default, comes
        with the package, the others are downloaded: see :func:`open_dataset`);
        an IDX image file; a folder with one pair of IDX files per split; several
        of these as a list; an .npz archive; a Zarr store; or a Dataset. A folder
        that has the name of a data set is written ``"./mnist"``.
    labels : path, URL or open binary file, optional
        The label file of a single image file, where its name does not tell.
    order, chunk_bytes, shard_bytes, codec, level, zarr_format
        How the store is laid out: see :func:`write_zarr`.
    rescale : (low, high), optional
        The range in which the store opens, as float64; it holds the integers
        all the same. See :func:`write_zarr`.
    overwrite, progress, client, storage_options
        How it is written: see there too.
    source_options : dict, optional
        Passed to the fsspec file system of a source behind a URL, such as the
        credentials of a private bucket.

    Raises
    ------
    FileFormatError
        If a source file is not a whole IDX file or .npz archive.
    SourceError
        If the source names nothing, or files that do not fit together.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build(f"{folder}/mnist.zarr")
    ...     dict(xr.open_zarr(f"{folder}/mnist.zarr").sel(label=7).sizes)
    {'sample': 7293, 'row': 28, 'col': 28}
    """
    write_zarr(
        parse_source(source, labels, source_options).open(),
        target,
        order=order,
        chunk_bytes=chunk_bytes,
        shard_bytes=shard_bytes,
        codec=codec,
        level=level,
        zarr_format=zarr_format,
        rescale=rescale,
        overwrite=overwrite,
        progress=progress,
        client=client,
        storage_options=storage_options,
    )


class DatasetSource(Source):
    """A Dataset."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return isinstance(given, xr.Dataset)

    def open(self) -> xr.Dataset:
        self._refuse_labels("a Dataset has its own; use .assign_coords(label=...)")
        self._refuse_options("a Dataset")
        ds: xr.Dataset = self.given
        return ds


# The kinds of sources. The first that recognizes what was given takes it.
KINDS: tuple[type[Source], ...] = (
    DatasetSource,
    CatalogSource,
    StoreSource,
    NpzSource,
    IdxSource,
)


def parse_source(
    given: Files | Store | xr.Dataset,
    labels: PathOrFile | None = None,
    source_options: dict[str, Any] | None = None,
) -> Source:
    """Return the source that was given; see :func:`build`.

    Raises
    ------
    SourceNotFoundError
        If it is a name that no data set, file or folder has.

    Examples
    --------
    >>> type(parse_source("mnist")).__name__
    'CatalogSource'
    """
    kind = next(kind for kind in KINDS if kind.recognizes(given))
    if kind is IdxSource:
        parts = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        for part in parts:
            _check_names_something(part)
    return kind(given, labels, source_options)


def _check_names_something(part: Any) -> None:
    if not isinstance(part, str | os.PathLike) or is_url(part) or os.path.lexists(part):
        return
    name = os.fspath(part)
    if os.path.basename(name) == name and parse_name(name) is None and "." not in name:
        raise SourceNotFoundError(
            f"{name!r}: no such file or folder, and no data set of that name; the catalog has "
            f"{', '.join(CATALOG)}"
        )
