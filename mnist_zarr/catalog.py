"""The data sets known by name: their files, class names, licences and citations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mnist_zarr import schema
from mnist_zarr.backend import open_idx
from mnist_zarr.errors import SourceError
from mnist_zarr.schema import IMAGE, LABEL

BUNDLED_FILES = Path(__file__).parent / "data"


@dataclass(frozen=True)
class CatalogEntry:
    """A data set known by name.

    Attributes
    ----------
    name : str
        What ``open_catalog`` calls it.
    title : str
        A line that says what it is.
    images : tuple of str
        The image files, in the order in which they are concatenated.
    class_names : tuple of str
        The name of each label, from 0 on.
    image_comment : str
        What the pixel values mean.
    license : str
        Of the data, as their publishers state it.
    citation : str
        How to cite the data.
    """

    name: str
    title: str
    images: tuple[str, ...]
    class_names: tuple[str, ...]
    image_comment: str
    license: str
    citation: str


MNIST = CatalogEntry(
    name="mnist",
    title="MNIST database of handwritten digits",
    images=("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"),
    class_names=tuple("0123456789"),
    image_comment="0 is background (white), 255 is foreground (black)",
    license=(
        "stated differently by its distributors: CC BY-SA 3.0 (Keras; copyright Y. LeCun and "
        "C. Cortes), MIT (dataset card on the Hugging Face hub)"
    ),
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document "
        "recognition. Proceedings of the IEEE 86(11), 2278-2324, 1998. doi:10.1109/5.726791"
    ),
)

CATALOG = {entry.name: entry for entry in (MNIST,)}


def open_catalog(name: str, *, chunks: Any = None) -> xr.Dataset:
    """Open a data set by its name, lazily. MNIST comes with the package.

    Parameters
    ----------
    name : str
        ``"mnist"``.
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col) uint8, with the coordinates ``label``
        (uint8), ``split`` (string) and ``source_index`` (uint32); the training
        samples first, then the test samples.

    Raises
    ------
    SourceError
        If there is no data set of that name.

    Examples
    --------
    >>> dict(open_catalog("mnist").sizes)
    {'sample': 70000, 'row': 28, 'col': 28}
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise SourceError(f"{name!r}: no data set of that name; choose from {', '.join(CATALOG)}")
    ds = open_idx([BUNDLED_FILES / file for file in entry.images], chunks=chunks)
    ds[IMAGE].attrs["comment"] = entry.image_comment
    ds[LABEL].attrs |= schema.class_attrs(range(len(entry.class_names)), entry.class_names)
    ds.attrs |= {"title": entry.title, "license": entry.license, "references": entry.citation}
    return ds
