"""Data sets of OpenML (openml.org), through scikit-learn."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.classes import MAX_CLASSES, class_attrs
from mnist_zarr.errors import DownloadError, SourceError, missing_extra

# Numbers as categories break scikit-learn 1.9 with pandas 3.1 (scikit-learn#34892), so let pandas
# infer the types.
READ_CSV_OPTIONS = {"dtype": None}


def open_openml(
    name: str = "mnist_784",
    *,
    version: int = 1,
    data_home: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Open an image data set of OpenML with :func:`sklearn.datasets.fetch_openml`.

    OpenML stores images as rows of a text table, which is parsed at every call:
    the whole data set is read into memory. There is no split into training and
    test samples.

    Parameters
    ----------
    name : str
        The name of the data set on OpenML: ``"mnist_784"``,
        ``"Fashion-MNIST"``, ``"Kuzushiji-MNIST"``, ...
    version : int
        Its version.
    data_home : str or os.PathLike, optional
        The folder in which scikit-learn caches downloads, by default
        ``~/scikit_learn_data``.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col) uint8 if the number of features is a
        square, otherwise (sample, dim_1); ``label`` (sample,) uint8 or larger,
        and ``source_index``. Labels that are words are numbered in alphabetical
        order; ``flag_meanings`` has the words.

    Raises
    ------
    SourceError
        If OpenML has no such data set, or its values are not whole numbers
        from 0 to 255.
    DownloadError
        If OpenML cannot be reached, or the download cannot be stored.
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> ds = open_openml("mnist_784")  # doctest: +SKIP
    >>> dict(ds.sizes)  # doctest: +SKIP
    {'sample': 70000, 'row': 28, 'col': 28}
    """
    bunch = _fetch(name, version, data_home)
    source = f"OpenML {name!r}, version {version}"
    pixels = _as_pixels(bunch.data, source)
    label, label_attrs = _as_labels(bunch, source)
    return schema.make_dataset(
        pixels,
        label=label,
        source_index=np.arange(len(pixels), dtype=schema.source_index_dtype(len(pixels))),
        label_attrs=label_attrs,
        attrs=_attrs(bunch, source),
    )


def _fetch(name: str, version: int, data_home: str | os.PathLike[str] | None) -> Any:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise missing_extra("OpenML needs scikit-learn", "sklearn") from error
    try:
        with warnings.catch_warnings():
            # Each of its retries warns; if the last one fails, it raises.
            warnings.simplefilter("ignore")
            return fetch_openml(
                name,
                version=version,
                data_home=data_home,
                as_frame=False,
                parser="pandas",
                read_csv_kwargs=READ_CSV_OPTIONS,
            )
    except OSError as error:  # of the network, or of the folder
        raise DownloadError(
            f"OpenML {name!r}, version {version}: {error}; try again later, or use "
            "open_dataset('mnist'), which needs no network"
        ) from error
    except ValueError as error:
        raise SourceError(f"OpenML {name!r}, version {version}: {error}") from error


def _as_pixels(data: Any, source: str) -> npt.NDArray[np.uint8]:
    """Return the table as images, if its width is a square number."""
    table = np.asarray(data)
    if table.ndim != 2 or table.dtype.kind not in "uif":
        raise SourceError(
            f"{source}: expected a dense table of numbers, got {type(data).__name__} of "
            f"{table.dtype}"
        )
    pixels = np.empty(table.shape, np.uint8)
    with np.errstate(invalid="ignore"):
        np.copyto(pixels, table, casting="unsafe")
    wrong = np.argwhere(pixels != table)
    if len(wrong):
        sample, feature = wrong[0].tolist()
        raise SourceError(
            f"{source}: expected whole numbers from 0 to 255, got {table[sample, feature]} at "
            f"sample {sample}, feature {feature}; this is no data set of 8-bit images"
        )
    side = math.isqrt(table.shape[1])
    return pixels.reshape(-1, side, side) if side * side == table.shape[1] else pixels


def _as_labels(bunch: Any, source: str) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Return the label of each sample, and attributes with the names of the classes."""
    target = np.asarray(bunch.target)
    if target.ndim != 1:
        raise SourceError(f"{source}: expected one column of labels, got shape {target.shape}")
    words, codes = np.unique(np.strings.strip(target.astype(str), "'"), return_inverse=True)
    try:
        values = np.array([int(float(word)) for word in words])
        is_numeric = all(float(word) == value for word, value in zip(words, values, strict=True))
    except ValueError:
        is_numeric = False
    if not is_numeric:
        values = np.arange(len(words))
    label = values.astype(_smallest_dtype(values))[codes]
    if len(values) > MAX_CLASSES:
        return label, {}
    by_value = np.argsort(values)
    names = [str(value) for value in (values if is_numeric else words)[by_value]]
    return label, class_attrs(values[by_value].tolist(), names)


def _smallest_dtype(values: npt.NDArray[Any]) -> np.dtype[Any]:
    extremes = (values.min(), values.max()) if values.size else (0,)
    return np.result_type(*(np.min_scalar_type(value) for value in extremes))


def _attrs(bunch: Any, source: str) -> dict[str, Any]:
    details = bunch.details
    known = {
        "title": details.get("name"),
        "source": f"{source}: {bunch.url}",
        "license": details.get("licence"),
        "references": details.get("citation"),
        "creator": _join(details.get("creator")),
    }
    return {name: value for name, value in known.items() if value}


def _join(names: str | Sequence[str] | None) -> str | None:
    return names if isinstance(names, str) or names is None else ", ".join(names)
