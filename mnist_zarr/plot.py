"""Pictures of samples and of classes, with matplotlib.

Every function that draws reads only what it shows and returns a
:class:`matplotlib.figure.Figure`; ``save_figure`` writes one to a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import iter_blocks
from mnist_zarr.dataset.classes import MAX_CLASSES, class_names, count_samples
from mnist_zarr.dataset.schema import COL, IMAGE, LABEL, ROW, SAMPLE
from mnist_zarr.dataset.selection import select
from mnist_zarr.errors import OptionError, SchemaError, SelectionError
from mnist_zarr.files.output import create_file
from mnist_zarr.files.urls import path_or_url

INCHES_PER_IMAGE = 1.2
INCHES_PER_IMAGE_OF_SHEET = 0.6
PIXELS_BETWEEN_IMAGES = 2
INCHES_PER_BAR = 0.32
INCHES_PER_CHARACTER = 0.09
DOTS_PER_INCH = 150
# Ink on paper: 0 is white, as in all data sets of this family.
COLOR_MAP = "gray_r"
# Samples this close together are read in one slice, with what lies between.
MAX_GAP_SAMPLES = 100


def one_per_class(ds: xr.Dataset, *, columns: int = 5) -> Figure:
    """Show the first sample of every class, titled with the class name.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory.
    columns : int
        Images per row; ten digits give the tutorial's 2 by 5 picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> figure = one_per_class(open_dataset("mnist"))
    >>> figure.savefig("digits.png")  # doctest: +SKIP
    """
    _check_images(ds)
    _check_at_least_one("columns", columns)
    labels, values = _labels_and_classes(ds, "one_per_class")
    first = np.array([np.argmax(labels == value) for value in values])
    return _draw(ds, first, columns, _titles(ds, values))


def samples(ds: xr.Dataset, label: Any = None, *, rows: int = 5, columns: int = 5) -> Figure:
    """Show the first samples, of one class or of all.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory.
    label : int, str or list, optional
        The class or classes, as in :func:`mnist_zarr.select`.
    rows, columns : int
        The size of the grid; 5 by 5 sevens are the tutorial's picture.

    Returns
    -------
    matplotlib.figure.Figure
        With fewer images if there are fewer samples.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images.
    SelectionError
        If there are no samples, or none with this label.
    OptionError
        If ``rows`` or ``columns`` is below 1.
    """
    _check_images(ds)
    _check_at_least_one("rows", rows)
    _check_at_least_one("columns", columns)
    chosen = ds if label is None else select(ds, label=label)
    if not chosen.sizes[SAMPLE]:
        raise SelectionError("samples: the Dataset has no samples")
    shown = np.arange(min(rows * columns, chosen.sizes[SAMPLE]))
    titles = _titles(ds, chosen[LABEL].values[shown]) if LABEL in chosen.variables else None
    return _draw(chosen, shown, columns, titles)


def class_balance(ds: xr.Dataset) -> Figure:
    """Show the number of samples per class: a bar per class, a colour per split.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``label``, and optionally ``split``; no images are read.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SchemaError
        If ``ds`` has no labels, or too many distinct ones to be classes.
    SelectionError
        If there are no samples.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> figure = class_balance(open_dataset("mnist"))
    >>> figure.axes[0].get_xlabel()
    'samples'
    """
    schema.validate(ds)
    _, values = _labels_and_classes(ds, "class_balance")
    counts = count_samples(ds)
    lengths = np.array(list(counts.of_label.values()))
    starts = np.cumsum(lengths, axis=1) - lengths
    places = np.arange(len(values))
    figure = Figure(figsize=(6.4, 1.2 + len(values) * INCHES_PER_BAR), layout="constrained")
    axes = figure.subplots()
    for column, split in enumerate(counts.splits):
        bars = axes.barh(places, lengths[:, column], left=starts[:, column], label=split or None)
    axes.bar_label(bars, [f"{total:,}" for total in lengths.sum(axis=1)], padding=4)
    axes.set_yticks(places, _titles(ds, values), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("samples")
    axes.margins(x=0.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(counts.splits) > 1:
        legend = figure.legend(loc="outside upper center", ncols=len(counts.splits), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def mean_images(ds: xr.Dataset, *, columns: int = 5) -> Figure:
    """Show the mean image of every class, titled with the class name.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory. All
        images are read once, a few megabytes or one dask chunk at a time.
    columns : int
        Images per row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> figure = mean_images(open_dataset("mnist"))
    """
    _check_images(ds)
    _check_at_least_one("columns", columns)
    labels, values = _labels_and_classes(ds, "mean_images")
    sums = np.zeros((len(values), *ds[IMAGE].shape[1:]))
    for start, block in iter_blocks(ds[IMAGE].variable):
        codes = np.searchsorted(values, labels[start : start + len(block)])
        for code in np.unique(codes):
            sums[code] += block[codes == code].sum(axis=0, dtype=np.float64)
    counts = [np.count_nonzero(labels == value) for value in values]
    means = sums / np.reshape(counts, (-1, 1, 1))
    return _draw_grid(means, columns, _titles(ds, values), valid_range=None)


def contact_sheet(ds: xr.Dataset, *, columns: int = 10) -> Figure:
    """Show the first samples of every class, one row per class.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) and ``label``; lazy or in memory.
        Pass a selection to show only some classes.
    columns : int
        Samples per class; ten digits give a 10 by 10 picture.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are shorter for classes with fewer samples.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> figure = contact_sheet(open_dataset("mnist"))
    """
    _check_images(ds)
    _check_at_least_one("columns", columns)
    labels, values = _labels_and_classes(ds, "contact_sheet")
    members = [np.flatnonzero(labels == value)[:columns] for value in values]
    images = _images_at(ds, np.concatenate(members))
    low, high = _shown_range(images, ds[IMAGE].attrs.get("valid_range"))
    sheet = _sheet_of(images, [len(positions) for positions in members], low)
    height, width = (INCHES_PER_IMAGE_OF_SHEET * n / images.shape[1] for n in sheet.shape)
    names = _titles(ds, values)
    width += INCHES_PER_CHARACTER * (1 + max(map(len, names)))
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots()
    axes.imshow(sheet, cmap=COLOR_MAP, vmin=low, vmax=high, interpolation="nearest")
    row_pixels = images.shape[1] + PIXELS_BETWEEN_IMAGES
    middles = row_pixels * np.arange(len(values)) + (images.shape[1] - 1) / 2
    axes.set_yticks(middles, names, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def save_figure(figure: Figure, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a figure to a file, which appears only when it is complete.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    target : str or os.PathLike
        Path or URL; its extension sets the format: .png, .pdf, .svg, ...
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    OptionError
        If this is no figure, or matplotlib does not support the format.
    TargetExistsError
        If the file exists and ``overwrite`` is false.
    OutputError
        If the file cannot be written.
    MissingExtraError
        If the package that a URL needs is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from mnist_zarr import open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(class_balance(open_dataset("mnist")), f"{folder}/balance.png")
    """
    name = path_or_url(target)
    if not hasattr(cast(object, figure), "canvas"):
        raise OptionError(f"expected a figure, got {type(figure).__name__}")
    image_format = os.path.splitext(name)[1].removeprefix(".").lower()
    known = sorted(figure.canvas.get_supported_filetypes())
    if image_format not in known:
        raise OptionError(f"{name}: expected a name that ends in one of .{', .'.join(known)}")
    with create_file(target, overwrite=overwrite) as file:
        figure.savefig(file, format=image_format, dpi=DOTS_PER_INCH)


def _draw(
    ds: xr.Dataset,
    positions: npt.NDArray[np.intp],
    columns: int,
    titles: list[str] | None,
) -> Figure:
    valid_range = ds[IMAGE].attrs.get("valid_range")
    return _draw_grid(_images_at(ds, positions), columns, titles, valid_range)


def _titles(ds: xr.Dataset, labels: npt.NDArray[Any]) -> list[str]:
    names = class_names(ds)
    return [names.get(value, str(value)) for value in labels.tolist()]


def _check_images(ds: xr.Dataset) -> None:
    schema.validate(ds)
    dims = ds[IMAGE].dims if IMAGE in ds else None
    if dims != (SAMPLE, ROW, COL):
        raise SchemaError(
            f"expected a variable 'image' with dimensions ('sample', 'row', 'col'), got {dims}"
        )


def _check_at_least_one(name: str, number: int) -> None:
    if not isinstance(cast(object, number), int | np.integer) or number < 1:
        raise OptionError(f"{name}: expected 1 or more, got {number!r}")


def _labels_and_classes(ds: xr.Dataset, caller: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the label of every sample, and the distinct labels, ascending."""
    if LABEL not in ds.variables:
        raise SchemaError(f"{caller}: the Dataset has no coordinate 'label'")
    labels = ds[LABEL].values
    values = np.unique(labels)
    if not len(values):
        raise SelectionError(f"{caller}: the Dataset has no samples")
    if len(values) > MAX_CLASSES:
        raise SchemaError(
            f"{caller}: {len(values):,} different labels are too many for classes; expected "
            f"{MAX_CLASSES} at most"
        )
    return labels, values


def _images_at(ds: xr.Dataset, positions: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Read images in slices: dask passes a slice on to the store, but not a list."""
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
            axes.set_title(titles[number], fontsize="medium", parse_math=False)
    if titles and not titles_differ:
        figure.suptitle(titles[0], parse_math=False)
    return figure


def _sheet_of(
    images: npt.NDArray[Any], row_lengths: Sequence[int], background: float
) -> npt.NDArray[Any]:
    """Return one large image, with left-aligned rows of as many images as given."""
    row_pixels, col_pixels = (size + PIXELS_BETWEEN_IMAGES for size in images.shape[1:])
    shape = (len(row_lengths) * row_pixels, max(row_lengths) * col_pixels)
    sheet = np.full(shape, background, images.dtype)
    places = [(row, column) for row, length in enumerate(row_lengths) for column in range(length)]
    for image, (row, column) in zip(images, places, strict=True):
        top, left = row * row_pixels, column * col_pixels
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet[:-PIXELS_BETWEEN_IMAGES, :-PIXELS_BETWEEN_IMAGES]


def _shown_range(
    images: npt.NDArray[Any], valid_range: Sequence[float] | None
) -> tuple[float, float]:
    """Return the values of white and black: the valid range if it is stated."""
    low, high = float(images.min()), float(images.max())
    if valid_range is not None and images.dtype.kind in "iu":
        return min(low, valid_range[0]), max(high, valid_range[1])
    return low, high
