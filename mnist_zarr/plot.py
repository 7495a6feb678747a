"""Pictures of samples, with matplotlib.

Each function reads only the samples that it shows, returns the
:class:`matplotlib.figure.Figure` and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.figure import Figure

from mnist_zarr import schema
from mnist_zarr.errors import OptionError, SchemaError, SelectionError
from mnist_zarr.schema import COL, IMAGE, LABEL, ROW, SAMPLE
from mnist_zarr.selection import select

INCHES_PER_IMAGE = 1.2
# Ink on paper: 0 is white, as the data sets of this family mean it.
COLOR_MAP = "gray_r"
# Samples that lie this close are read together with what is between them.
MAX_GAP_SAMPLES = 100


def one_per_class(ds: xr.Dataset, *, columns: int = 5) -> Figure:
    """Show the first sample of every class, titled with the class name.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory.
    columns : int
        Images in a row; ten digits give the tutorial's 2 by 5 picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SchemaError
        If there are no such images or labels.

    Examples
    --------
    >>> from mnist_zarr.catalog import open_catalog
    >>> figure = one_per_class(open_catalog("mnist"))
    >>> figure.savefig("digits.png")  # doctest: +SKIP
    """
    _check_images(ds)
    if LABEL not in ds.variables:
        raise SchemaError("one_per_class: the Dataset has no coordinate 'label'")
    values, first = np.unique(ds[LABEL].values, return_index=True)
    if not len(values):
        raise SelectionError("one_per_class: the Dataset has no samples")
    return _draw(ds, first, columns, _titles(ds, values))


def samples(ds: xr.Dataset, label: Any = None, *, rows: int = 5, columns: int = 5) -> Figure:
    """Show the first samples, of one class or of all.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory.
    label : int, str or list, optional
        The class, or classes, as :func:`mnist_zarr.select` takes them.
    rows, columns : int
        The size of the grid; 5 by 5 sevens are the tutorial's picture.

    Returns
    -------
    matplotlib.figure.Figure
        With fewer images where there are fewer samples.

    Raises
    ------
    SchemaError
        If there are no such images.
    SelectionError
        If there is no sample to show.
    OptionError
        If the grid has no place for an image.
    """
    _check_images(ds)
    if rows < 1:
        raise OptionError(f"rows: expected 1 or more, got {rows}")
    chosen = ds if label is None else select(ds, label=label)
    if not chosen.sizes[SAMPLE]:
        raise SelectionError("samples: the Dataset has no samples")
    shown = np.arange(min(rows * max(columns, 1), chosen.sizes[SAMPLE]))
    titles = _titles(ds, chosen[LABEL].values[shown]) if LABEL in chosen.variables else None
    return _draw(chosen, shown, columns, titles)


def _draw(
    ds: xr.Dataset,
    positions: npt.NDArray[np.intp],
    columns: int,
    titles: list[str] | None,
) -> Figure:
    valid_range = ds[IMAGE].attrs.get("valid_range")
    return _draw_grid(_images_at(ds, positions), columns, titles, valid_range)


def _titles(ds: xr.Dataset, labels: npt.NDArray[Any]) -> list[str]:
    names = schema.class_names(ds)
    return [names.get(value, str(value)) for value in labels.tolist()]


def _check_images(ds: xr.Dataset) -> None:
    schema.validate(ds)
    dims = ds[IMAGE].dims if IMAGE in ds else None
    if dims != (SAMPLE, ROW, COL):
        raise SchemaError(
            f"expected a variable 'image' with dimensions ('sample', 'row', 'col'), got {dims}"
        )


def _images_at(ds: xr.Dataset, positions: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Read images by slices: dask hands a slice down to the store, but not a list."""
    ascending = np.sort(positions)
    ends = [*(np.flatnonzero(np.diff(ascending) > MAX_GAP_SAMPLES) + 1).tolist(), len(ascending)]
    parts, begin = [], 0
    for end in ends:
        members, begin = ascending[begin:end], end
        first = int(members[0])
        span = ds[IMAGE].isel({SAMPLE: slice(first, int(members[-1]) + 1)}).values
        parts.append(span[members - first])
    images = np.concatenate(parts)
    return images[np.searchsorted(ascending, positions)]


def _draw_grid(
    images: npt.NDArray[Any],
    columns: int,
    titles: list[str] | None,
    valid_range: Sequence[float] | None,
) -> Figure:
    if columns < 1:
        raise OptionError(f"columns: expected 1 or more, got {columns}")
    n_images = len(images)
    columns = min(columns, n_images)
    rows = -(-n_images // columns)
    titles_differ = titles is not None and len(set(titles)) > 1
    title_inches = 0.3 if titles_differ else 0.0
    size = (columns * INCHES_PER_IMAGE, rows * (INCHES_PER_IMAGE + title_inches))
    figure = Figure(figsize=size, layout="constrained")
    low, high = _shown_range(images, valid_range)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if number >= n_images:
            continue
        axes.imshow(images[number], cmap=COLOR_MAP, vmin=low, vmax=high, interpolation="nearest")
        if titles and titles_differ:
            axes.set_title(titles[number], fontsize="medium")
    if titles and not titles_differ:
        figure.suptitle(titles[0])
    return figure


def _shown_range(
    images: npt.NDArray[Any], valid_range: Sequence[float] | None
) -> tuple[float, float]:
    """Return the values of white and black: the valid range, where it is stated."""
    low, high = float(images.min()), float(images.max())
    if valid_range is not None and images.dtype.kind in "iu":
        return min(low, valid_range[0]), max(high, valid_range[1])
    return low, high
