"""The data sets known by name, as Datasets and as a table."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import xarray as xr

from mnist_zarr.catalog.download import fetch, is_here
from mnist_zarr.catalog.entries import CATALOG, BundledFile, CatalogEntry
from mnist_zarr.catalog.qmnist import fetch_label_tables, label_coords
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.records import AS_OPENED, DATASET_ID, content_records
from mnist_zarr.dataset.schema import IMAGE, LABEL, SOURCE_INDEX
from mnist_zarr.errors import MissingExtraError, SourceError
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_names import IdxPair
from mnist_zarr.formats.npz import open_npz
from mnist_zarr.formats.source import Source
from mnist_zarr.terminal import align_columns


def open_dataset(name: str, *, chunks: Any = None) -> xr.Dataset:
    """Open a data set by its name, lazily. MNIST comes with the package.

    Parameters
    ----------
    name : str
        ``"mnist"``, ``"fashion-mnist"``, ``"kmnist"``, ``"k49"``, ``"qmnist"``,
        or ``"emnist-balanced"``, ``-byclass``, ``-bymerge``, ``-digits``,
        ``-letters``, ``-mnist``. All but the first are downloaded when they are
        first opened, and cached (see :mod:`mnist_zarr.catalog.download`).
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col) uint8, with the coordinates ``label``
        (uint8), ``split`` (string) and ``source_index`` (uint32); the training
        samples first, then the test samples. QMNIST also has ``writer`` and
        ``series``, see :func:`mnist_zarr.join_writers`.

    Raises
    ------
    SourceError
        If there is no data set of that name.
    DownloadError
        If a file is not cached and no mirror has it with the right checksum, or
        the cache folder cannot be written.
    MissingExtraError
        If a download is needed and pooch is not installed.
    OptionError
        If a download is needed and ``MNIST_ZARR_MIRROR`` is not a URL.

    Notes
    -----
    EMNIST's files have rows and columns swapped. The Dataset has the images
    upright; the attribute ``source_dims`` of ``image`` records the order in the
    files. The labels of EMNIST Letters are 1 to 26, as in the files.

    Examples
    --------
    >>> dict(open_dataset("mnist").sizes)
    {'sample': 70000, 'row': 28, 'col': 28}
    """
    entry = CATALOG.get(name) if isinstance(cast(object, name), str) else None
    if entry is None:
        raise SourceError(f"{name!r}: no data set of that name; choose from {', '.join(CATALOG)}")
    return open_entry(entry, chunks=chunks)


class CatalogSource(Source):
    """The name of a data set of the catalog."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return isinstance(given, str) and given in CATALOG

    def open(self) -> xr.Dataset:
        self._refuse_labels(f"the data set {self.given!r} of the catalog has its own")
        self._refuse_options("a data set of the catalog")
        return open_dataset(self.given)


def describe_catalog() -> str:
    """Return a table of the data sets: name, size, licence, origin, where the files are.

    Examples
    --------
    >>> describe_catalog().splitlines()[1].split()[:4]
    ['mnist', '70,000', '10', 'CC-BY-SA-3.0']
    """
    rows = [("name", "samples", "classes", "licence", "from", "here")]
    rows += [
        (
            entry.name,
            f"{entry.n_samples:,}",
            str(len(entry.class_names)),
            entry.license,
            entry.publisher,
            _where(entry),
        )
        for entry in CATALOG.values()
    ]
    return "\n".join(align_columns(rows, right=(1, 2)))


def _where(entry: CatalogEntry) -> str:
    if all(isinstance(file, BundledFile) for file in entry.files):
        return "bundled"
    try:
        return "cached" if all(map(is_here, entry.files)) else "to download"
    except MissingExtraError:
        return "to download"


def open_entry(entry: CatalogEntry, *, chunks: Any = None) -> xr.Dataset:
    """Open the data set that an entry describes; see :func:`open_dataset`."""
    pairs = [
        IdxPair(str(fetch(split.images)), str(fetch(split.labels)), split.name)
        for split in entry.splits
    ]
    if entry.kind == "npz":
        ds = open_npz(pairs, chunks=chunks)
    else:
        ds = open_idx(pairs, chunks=chunks, transposed=entry.kind == "idx transposed")
    if entry.kind == "qmnist":
        coords = label_coords(np.concatenate(fetch_label_tables(entry)))
        coords[LABEL].attrs = ds[LABEL].attrs
        ds = ds.assign_coords(coords)
    ds[IMAGE].attrs["comment"] = entry.image_comment
    labels = range(entry.first_label, entry.first_label + len(entry.class_names))
    ds[LABEL].attrs |= class_attrs(labels, entry.class_names)
    ds.attrs |= {
        DATASET_ID: entry.name,
        "title": entry.title,
        "license": entry.license_details,
        "references": entry.citation,
    }
    known = {IMAGE: entry.image_sha256, LABEL: entry.label_sha256}
    hashes = {name: sha256 for name, sha256 in known.items() if sha256}
    ds.attrs |= content_records(SOURCE_INDEX, entry.n_samples, hashes)
    ds.encoding[AS_OPENED] = {name: ds[name].variable for name in known}
    return ds
