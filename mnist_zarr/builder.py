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
from mnist_zarr.errors import OptionError, SourceNotFoundError
from mnist_zarr.files.output import create_file
from mnist_zarr.files.sources import PathOrFile
from mnist_zarr.files.urls import is_url
from mnist_zarr.formats.idx_engine import Files, IdxSource
from mnist_zarr.formats.idx_names import parse_name
from mnist_zarr.formats.npz import NpzSource
from mnist_zarr.formats.source import Source
from mnist_zarr.hosting.page import make_page
from mnist_zarr.reading.reader import StoreSource
from mnist_zarr.stores.keys import PAGE
from mnist_zarr.stores.local import LocalFolder
from mnist_zarr.stores.targets import Target, parse_target
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
    page: bool = False,
) -> None:
    """Build a Zarr store from a source, in one pass and bounded memory.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object. No
        reader can open the store before it is complete; an interrupted upload
        is resumed.
    source : optional
        The name of a data set of the catalog (``"mnist"``, the default, is
        bundled; the others are downloaded, see :func:`open_dataset`); an IDX
        image file; a folder with one pair of IDX files per split; a list of
        these; an .npz archive; a Zarr store; or a Dataset. Write ``"./mnist"``
        for a folder that has the name of a data set.
    labels : path, URL or open binary file, optional
        The label file of a single image file, if its name does not match.
    order, chunk_bytes, shard_bytes, codec, level, zarr_format
        The layout of the store; see :func:`write_zarr`.
    rescale : (low, high), optional
        The range in which the store opens, as float64; the stored integers do
        not change. See :func:`write_zarr`.
    overwrite, progress, client, storage_options
        How the store is written; see :func:`write_zarr`.
    source_options : dict, optional
        Passed to the fsspec file system of a source behind a URL, such as the
        credentials of a private bucket.
    page : bool
        Whether to add the page that shows the store in the browser,
        ``index.html``, for a folder of this machine that a web server serves.
        :func:`publish` writes it elsewhere.

    Raises
    ------
    FileFormatError
        If a source file is not a complete IDX file or .npz archive.
    SourceError
        If the source cannot be read or takes no ``labels``, or its files do not
        fit together.
    SourceNotFoundError
        If the source names no data set, file or folder.
    StoreNotFoundError
        If the source is a Zarr store, and there is none.
    StoreReplacedError
        If the source is a Zarr store that is replaced while it is read.
    DownloadError
        If a file of the data set is not cached and no mirror has it.
    SchemaError
        If the source is a Dataset that does not follow the data model, or one
        that lacks what ``order`` or ``rescale`` needs.
    OptionError
        If an option is outside its range, the source or the target takes no
        options, or a page is asked for and the target is no folder of this machine.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.
    StoreError
        If the target is something else than a Zarr store, its objects would be
        overwritten while the source reads them, or a store cannot be read or
        written.
    MissingExtraError
        If an optional package is needed and not installed.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build(f"{folder}/mnist.zarr")
    ...     dict(xr.open_zarr(f"{folder}/mnist.zarr").sel(label=7).sizes)
    {'sample': 7293, 'row': 28, 'col': 28}
    """
    place = parse_target(target, storage_options)
    if page and not isinstance(place, LocalFolder):
        raise OptionError(
            f"page: expected a folder of this machine as the target, got {place.name}; 'mnist-zarr "
            "publish' copies a finished store with a page, and 'mnist-zarr view' shows any store"
        )
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
    if page and isinstance(place, LocalFolder):
        with create_file(place.path / PAGE, overwrite=True) as file:
            file.write(make_page())


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


# The kinds of sources; the first that recognizes the argument takes it.
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
    """Return the argument of :func:`build` as a source.

    Raises
    ------
    SourceNotFoundError
        If it names no data set, file or folder.

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
