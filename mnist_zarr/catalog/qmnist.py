"""QMNIST's label tables, which say who wrote each digit of MNIST.

A table has a row per sample and eight columns: label, NIST series (hsf),
writer, number of the digit among the writer's, NIST class, number of the digit
in all of NIST, and two unused ones (C. Yadav, L. Bottou, 2019,
arXiv:1905.10498). One table is of MNIST's training samples, the other of 60,000
test samples, of which MNIST has the first 10,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.catalog.download import fetch
from mnist_zarr.catalog.entries import CATALOG, MNIST, QMNIST, CatalogEntry
from mnist_zarr.dataset import schema
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import LABEL, SAMPLE, SOURCE_INDEX
from mnist_zarr.errors import SourceError
from mnist_zarr.formats.idx import read_idx

WRITER, SERIES = "writer", "series"
N_COLUMNS = 8
SERIES_NAMES = ("hsf_0", "hsf_1", "hsf_2", "hsf_3", "hsf_4")


def join_writers(ds: xr.Dataset) -> xr.Dataset:
    """Add to MNIST who wrote each digit, from QMNIST's label tables.

    The tables (1 MB) are downloaded at first use. Samples are matched by
    ``source_index``, so that ``ds`` can be a selection or in another order. All
    labels are checked.

    Parameters
    ----------
    ds : xarray.Dataset
        MNIST or some of its samples, with ``label`` and ``source_index``.

    Returns
    -------
    xarray.Dataset
        The same with two more coordinates along ``sample``: ``writer``
        (uint16), NIST's number of the person, and ``series`` (uint8), the part
        of NIST's collection: ``hsf_0`` to ``hsf_3`` were written by employees
        of the Census Bureau, ``hsf_4`` by high-school students.

    Raises
    ------
    SourceError
        If the Dataset is not MNIST.
    SchemaError
        If it is not of the data model.
    DownloadError
        If the tables are not cached and cannot be downloaded.
    MissingExtraError
        If they must be downloaded and pooch is not installed.
    OptionError
        If they must be downloaded and ``MNIST_ZARR_MIRROR`` is not a URL.

    Examples
    --------
    >>> ds = join_writers(open_dataset("mnist"))  # doctest: +SKIP
    >>> ds.sel(writer=2154).sizes["sample"]  # doctest: +SKIP
    115
    """
    return join_label_tables(ds, fetch_label_tables(QMNIST))


def fetch_label_tables(entry: CatalogEntry) -> list[npt.NDArray[np.int32]]:
    """Return the label table of each split of QMNIST, shape (sample, 8)."""
    return [read_label_table(fetch(split.labels)) for split in entry.splits]


def read_label_table(path: Path) -> npt.NDArray[np.int32]:
    """Return a label table, shape (sample, 8).

    Raises
    ------
    SourceError
        If the file holds something else.
    """
    table = read_idx(path)
    if table.ndim != 2 or table.shape[1] != N_COLUMNS or table.dtype != np.int32:
        raise SourceError(
            f"{path}: expected a label table of QMNIST, int32 of shape (sample, {N_COLUMNS}), got "
            f"{table.dtype} of shape {table.shape}"
        )
    return table


def label_coords(table: npt.NDArray[np.int32]) -> dict[str, xr.Variable]:
    """Return the coordinates ``label``, ``series`` and ``writer`` of a label table."""
    label, series, writer = table[:, :3].T
    series_attrs = {
        "long_name": "series of NIST's collection",
        "comment": "hsf_0 to hsf_3: employees of the Census Bureau; hsf_4: high-school students",
        **class_attrs(range(len(SERIES_NAMES)), SERIES_NAMES),
    }
    writer_attrs = {"long_name": "number of the writer in NIST's collection"}
    return {
        LABEL: xr.Variable((SAMPLE,), label.astype(np.uint8)),
        SERIES: xr.Variable((SAMPLE,), series.astype(np.uint8), series_attrs),
        WRITER: xr.Variable((SAMPLE,), writer.astype(np.uint16), writer_attrs),
    }


def join_label_tables(ds: xr.Dataset, tables: Sequence[npt.NDArray[np.int32]]) -> xr.Dataset:
    """Add ``writer`` and ``series`` from tables of the training and test samples."""
    schema.validate(ds)
    _refuse_other_data(ds)
    table = np.concatenate(tables)[: MNIST.n_samples]
    positions: npt.NDArray[Any] = ds[SOURCE_INDEX].values
    labels: npt.NDArray[Any] = ds[LABEL].values
    if positions.size and positions.max() >= len(table):
        raise _not_mnist(
            f"source_index goes up to {positions.max():,}, MNIST has {len(table):,} samples"
        )
    table = table[positions]
    wrong = np.flatnonzero(table[:, 0] != labels)
    if len(wrong):
        first = int(wrong[0])
        raise _not_mnist(
            f"{len(wrong):,} of {len(labels):,} labels differ; the first is sample {first} with "
            f"source_index {positions[first]}: label {labels[first]}, in MNIST {table[first, 0]}"
        )
    coords = label_coords(table)
    return ds.assign_coords({name: coords[name] for name in (WRITER, SERIES)})


def _refuse_other_data(ds: xr.Dataset) -> None:
    missing = [name for name in (LABEL, SOURCE_INDEX) if name not in ds.coords]
    if missing:
        raise _not_mnist(f"it has no coordinate {missing[0]!r}")
    title = ds.attrs.get("title")
    if title != MNIST.title and title in {entry.title for entry in CATALOG.values()}:
        raise _not_mnist(f"its title is {title!r}")


def _not_mnist(reason: str) -> SourceError:
    return SourceError(
        "writers are known only of MNIST, with its training samples before its test samples: "
        f"{reason}"
    )
