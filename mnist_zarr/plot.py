"""Pictures of samples and of classes, with matplotlib.

Every function that draws reads only what it shows, draws on one
:class:`matplotlib.axes.Axes`, and returns it. Pass ``ax=`` to draw on axes of your own.
Without it, pyplot makes a figure that fits the picture: a notebook shows it, a script shows
it with ``matplotlib.pyplot.show()``, and ``ax.figure.savefig`` or ``save_figure`` writes it
to a file. In a long-running program, close it with ``matplotlib.pyplot.close(ax.figure)``.

Samples without a label are counted in bars, but have no part in pictures of classes.

Images have the dimensions (sample, row, col), or (sample, row, col, band) with the three
bands of RGB or the four of RGBA. A picture shows at most 10,000 of them, 256 in a row or
column. Images that are larger than they are shown are averaged down; those more than eight
times as wide as high, or the other way round, are stretched to that ratio.
"""

from __future__ import annotations

import os
from typing import Any, cast

import matplotlib
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import iter_blocks
from mnist_zarr.dataset.classes import MAX_CLASSES, class_names, count_samples
from mnist_zarr.dataset.options import whole_number
from mnist_zarr.dataset.scaling import VALID_RANGE, known_range
from mnist_zarr.dataset.schema import BAND, COL, IMAGE, LABEL, ROW, SAMPLE
from mnist_zarr.dataset.selection import select
from mnist_zarr.dataset.sheet import Grid, read_sheet
from mnist_zarr.dataset.unlabelled import UNLABELLED, is_marked
from mnist_zarr.errors import OptionError, SchemaError, SelectionError
from mnist_zarr.files.output import create_file
from mnist_zarr.files.urls import path_or_url
from mnist_zarr.pool import prefetch
from mnist_zarr.terminal import printable

__all__ = [
    "class_balance",
    "contact_sheet",
    "mean_images",
    "one_per_class",
    "samples",
    "save_figure",
]

DOTS_PER_INCH = 150
# Ink on paper: 0 is white, as in all data sets of this family.
COLOR_MAP = "gray_r"

# Bounds of a picture, whatever is asked for and however large the images are.
MAX_INCHES = 16.0
MAX_NAME_CHARACTERS = 40

INCHES_PER_IMAGE = 1.2
INCHES_PER_IMAGE_OF_SHEET = 0.6
MIN_INCHES_PER_SIDE = 0.2  # of narrow images
INCHES_PER_BAR = 0.32
INCHES_PER_CHARACTER = 0.09
FONT_POINTS, MIN_FONT_SHRINKAGE = 10.0, 0.7
POINTS_PER_INCH = 72


def __dir__() -> list[str]:
    return __all__


def one_per_class(ds: xr.Dataset, *, columns: int = 5, ax: Axes | None = None) -> Axes:
    """Show the first sample of every class, titled with the class name.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) or (sample, row, col, band) and ``label``;
        lazy or in memory.
    columns : int
        Images per row; ten digits give the tutorial's 2 by 5 picture.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure of pyplot.

    Returns
    -------
    matplotlib.axes.Axes
        With all images as one.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1, or gives more than 256 images per row or column.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> ax = one_per_class(open_dataset("mnist"))
    >>> ax.figure.savefig("digits.png")  # doctest: +SKIP
    """
    _check_images(ds)
    whole_number("`columns`", columns, 1)
    labels, values = _labels_and_classes(ds, "one_per_class")
    first = np.array([np.argmax(labels == value) for value in values])
    grid = Grid.of(ds, _lengths_of_rows(len(first), columns), _names(ds, values))
    return _draw_grid(grid, read_sheet(grid, ds, first), ds, ax)


def samples(
    ds: xr.Dataset,
    label: Any = None,
    *,
    rows: int = 5,
    columns: int = 5,
    random_state: int | np.random.Generator | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show samples of one class or of all: the first ones, or random ones.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) or (sample, row, col, band); lazy or in
        memory.
    label : int, str or list, optional
        The class or classes, as in :func:`mnist_zarr.select`.
    rows, columns : int
        The size of the grid; 5 by 5 sevens are the tutorial's picture.
    random_state : int or numpy.random.Generator, optional
        Show random samples; an integer always gives the same ones.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure of pyplot.

    Returns
    -------
    matplotlib.axes.Axes
        With all images as one; fewer than ``rows * columns`` if there are fewer
        samples.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images.
    SelectionError
        If there are no samples, or none with this label.
    OptionError
        If ``rows`` or ``columns`` is below 1, or there would be more than 10,000
        images or 256 per row or column; if ``random_state`` is no seed.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> ax = samples(open_dataset("mnist"), 7, rows=2, columns=10, random_state=0)
    >>> ax.get_title()
    '7'
    """
    _check_images(ds)
    whole_number("`rows`", rows, 1)
    whole_number("`columns`", columns, 1)
    chosen = ds if label is None else select(ds, label=label)
    n_samples = chosen.sizes[SAMPLE]
    if not n_samples:
        raise SelectionError("samples: the Dataset has no samples")
    n_shown = min(rows * columns, n_samples)
    row_lengths = _lengths_of_rows(n_shown, columns)
    if random_state is None:
        shown = np.arange(n_shown)
    else:
        shown = _generator(random_state).choice(n_samples, n_shown, replace=False)
    names = _names(ds, chosen[LABEL].values[shown]) if LABEL in chosen.variables else []
    grid = Grid.of(ds, row_lengths, names)
    return _draw_grid(grid, read_sheet(grid, chosen, shown), ds, ax)


def class_balance(ds: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Show the number of samples per class: a bar per class, a colour per split.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``label``, and optionally ``split``; no images are read.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure of pyplot.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SchemaError
        If ``ds`` has no labels, or too many distinct ones to be classes, or more
        than 20 splits.
    SelectionError
        If there are no samples.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> ax = class_balance(open_dataset("mnist"))
    >>> ax.get_xlabel()
    'samples'
    """
    schema.validate(ds)
    _, values = _labels_and_classes(ds, "class_balance", draws_images=False)
    counts = count_samples(ds)
    lengths = np.array(list(counts.of_label.values()))
    starts = np.cumsum(lengths, axis=1) - lengths
    places = np.arange(len(values))
    axes = ax or _new_axes(6.4, 1.2 + len(values) * INCHES_PER_BAR)
    colors = matplotlib.color_sequences["tab10" if len(counts.splits) <= 10 else "tab20"]
    for column, (split, color) in enumerate(zip(counts.splits, colors, strict=False)):
        bars = axes.barh(
            places,
            lengths[:, column],
            left=starts[:, column],
            label=_as_name(split) or None,
            color=color,
        )
    axes.bar_label(bars, [f"{total:,}" for total in lengths.sum(axis=1)], padding=4)
    axes.set_yticks(places, _names(ds, values), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("samples")
    axes.margins(x=0.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(counts.splits) > 1:
        n_columns = min(len(counts.splits), 5)
        legend = axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=n_columns, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return axes


def mean_images(ds: xr.Dataset, *, columns: int = 5, ax: Axes | None = None) -> Axes:
    """Show the mean image of every class, titled with the class name.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) or (sample, row, col, band) and ``label``;
        lazy or in memory. All images are read once, a few megabytes or dask chunks at
        a time; the next ones are read while some are summed.
    columns : int
        Images per row.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure of pyplot.

    Returns
    -------
    matplotlib.axes.Axes
        With all images as one.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1, or gives more than 256 images per row or column.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> ax = mean_images(open_dataset("mnist"))
    """
    _check_images(ds)
    whole_number("`columns`", columns, 1)
    labels, values = _labels_and_classes(ds, "mean_images")
    grid = Grid.of(ds, _lengths_of_rows(len(values), columns), _names(ds, values))
    sums = np.zeros((len(values), *grid.thinned_shape))
    for start, block in prefetch(iter_blocks(ds[IMAGE].variable), 0, lambda read: read[1].nbytes):
        of_block = labels[start : start + len(block)]
        thinned = grid.thin(block)
        for value in np.intersect1d(of_block, values):
            code = np.searchsorted(values, value)
            with np.errstate(invalid="ignore"):  # the mean of what is not a number is none
                sums[code] += thinned[of_block == value].sum(axis=0, dtype=np.float64)
    for number, value in enumerate(values):
        sums[number] /= np.count_nonzero(labels == value)
    sheet = grid.new_sheet(sums.dtype)
    grid.place(sheet, np.arange(len(values)), sums)
    return _draw_grid(grid, sheet, ds, ax, stretch_contrast=True)


def contact_sheet(ds: xr.Dataset, *, columns: int = 10, ax: Axes | None = None) -> Axes:
    """Show the first samples of every class, one row per class.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` (sample, row, col) or (sample, row, col, band) and ``label``;
        lazy or in memory. Pass a selection to show only some classes.
    columns : int
        Samples per class; ten digits give a 10 by 10 picture.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure of pyplot.

    Returns
    -------
    matplotlib.axes.Axes
        With all images as one. Rows are shorter for classes with fewer samples.

    Raises
    ------
    SchemaError
        If ``ds`` has no such images or labels, or too many distinct labels to be
        classes.
    SelectionError
        If there are no samples.
    OptionError
        If ``columns`` is below 1, or there would be more than 10,000 images or 256
        per row.

    Examples
    --------
    >>> from mnist_zarr import open_dataset
    >>> ax = contact_sheet(open_dataset("mnist"))
    """
    _check_images(ds)
    whole_number("`columns`", columns, 1)
    labels, values = _labels_and_classes(ds, "contact_sheet")
    members = [np.flatnonzero(labels == value)[:columns] for value in values]
    grid = Grid.of(ds, [len(positions) for positions in members])
    sheet = read_sheet(grid, ds, np.concatenate(members))
    names = _names(ds, values)
    longest = max(names, key=len)
    axes, inches_per_pixel = _axes_for(grid, ax, INCHES_PER_IMAGE_OF_SHEET, row_name=longest)
    _show(axes, sheet, ds)
    points = min(FONT_POINTS, 0.8 * POINTS_PER_INCH * grid.pitch[0] * inches_per_pixel)
    middles = grid.pitch[0] * np.arange(len(values)) + (grid.tile_shape[0] - 1) / 2
    axes.set_yticks(middles, names, parse_math=False, fontsize=points)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def save_figure(
    figure: Figure | SubFigure, target: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a figure to a file, which appears only when it is complete.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write, such as ``ax.figure``.
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
    >>> ax = class_balance(open_dataset("mnist"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(ax.figure, f"{folder}/balance.png")
    """
    name = path_or_url(target)
    if not hasattr(cast(object, figure), "canvas"):
        raise OptionError(f"expected a figure, got {type(figure).__name__}")
    image_format = os.path.splitext(name)[1].removeprefix(".").lower()
    known = sorted(figure.canvas.get_supported_filetypes())
    if image_format not in known:
        raise OptionError(f"{name}: expected a name that ends in one of .{', .'.join(known)}")
    whole = figure.get_figure(root=True)
    assert whole is not None
    with create_file(target, overwrite=overwrite) as file:
        whole.savefig(file, format=image_format, dpi=DOTS_PER_INCH)


def _names(ds: xr.Dataset, labels: npt.NDArray[Any]) -> list[str]:
    names = class_names(ds)
    return [_as_name(names.get(value, str(value))) for value in labels.tolist()]


def _as_name(text: str) -> str:
    return _shorten(printable(text), MAX_NAME_CHARACTERS)


def _shorten(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else text[: n_characters - 1] + "…"


def _check_images(ds: xr.Dataset) -> None:
    schema.validate(ds)
    sizes = dict(ds[IMAGE].sizes) if IMAGE in ds else None
    dims = tuple(sizes or ())
    if ROW not in dims or dims != schema.image_dims(ds[IMAGE].shape):
        raise SchemaError(
            "expected a variable 'image' with dimensions ('sample', 'row', 'col'), or ('sample', "
            f"'row', 'col', 'band') with 3 or 4 bands, got {sizes}"
        )
    if not (ds.sizes[ROW] and ds.sizes[COL]):
        raise SchemaError(f"image: has no pixels: {sizes}")
    if ds[IMAGE].dtype.kind not in "biuf":
        raise SchemaError(f"image: expected real numbers, got {ds[IMAGE].dtype}")


def _labels_and_classes(
    ds: xr.Dataset, caller: str, *, draws_images: bool = True
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the label of every sample, and the distinct labels, ascending.

    Samples without a label are counted, but have no image that stands for them.
    """
    schema.require(ds, caller, LABEL)
    labels = ds[LABEL].values
    values = np.unique(labels)
    if draws_images and is_marked(ds[LABEL]):
        values = values[values != UNLABELLED]
    if not len(values):
        raise SelectionError(f"{caller}: the Dataset has no samples with a label")
    if len(values) > MAX_CLASSES:
        raise SchemaError(
            f"{caller}: {len(values):,} different labels are too many for classes; expected "
            f"{MAX_CLASSES} at most"
        )
    return labels, values


def _generator(random_state: int | np.random.Generator) -> np.random.Generator:
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise OptionError(
            "`random_state`: expected an integer of 0 or more, or a numpy.random.Generator, got "
            f"{random_state!r}"
        ) from error


def _lengths_of_rows(n_images: int, columns: int) -> list[int]:
    full, rest = divmod(n_images, columns)
    return [columns] * full + [rest] * (rest > 0)


def _draw_grid(
    grid: Grid,
    sheet: npt.NDArray[Any],
    ds: xr.Dataset,
    ax: Axes | None,
    *,
    stretch_contrast: bool = False,
) -> Axes:
    (title,) = grid.titles if len(grid.titles) == 1 else ("",)
    axes, inches_per_pixel = _axes_for(grid, ax, INCHES_PER_IMAGE, title=title)
    _show(axes, sheet, ds, stretch_contrast=stretch_contrast)
    axes.set_axis_off()
    if title:
        axes.set_title(title, parse_math=False)
    elif len(grid.titles) > 1:
        _write_titles(axes, grid, inches_per_pixel)
    return axes


def _write_titles(axes: Axes, grid: Grid, inches_per_pixel: float) -> None:
    """Write a title above each image, all in one size, none wider than its image."""
    points = min(FONT_POINTS, 0.65 * grid.title_pixels * inches_per_pixel * POINTS_PER_INCH)
    texts = [
        axes.text(
            left + (grid.tile_shape[1] - 1) / 2,
            top - 0.5 - 0.25 * grid.title_pixels,
            title,
            fontsize=points,
            ha="center",
            va="baseline",
            parse_math=False,
        )
        for title, (top, left) in zip(grid.titles, grid.corners(), strict=True)
    ]
    room = 0.95 * grid.pitch[1] * inches_per_pixel * axes.figure.dpi
    widest = max(1.0, *(text.get_window_extent().width for text in texts))
    shrinkage = max(MIN_FONT_SHRINKAGE, min(1.0, room / widest))
    for text in texts:
        text.set_fontsize(points * shrinkage)
        width = text.get_window_extent().width
        if width > room:
            n_characters = int(len(text.get_text()) * room / width)
            text.set_text(_shorten(text.get_text(), max(1, n_characters)))


def _axes_for(
    grid: Grid, ax: Axes | None, inches_per_image: float, *, title: str = "", row_name: str = ""
) -> tuple[Axes, float]:
    """Return the axes to draw on, and the size that a pixel of the sheet has there."""
    height, width = grid.sheet_shape
    if ax is not None:
        box = ax.get_window_extent()
        return ax, min(box.width / width, box.height / height) / ax.figure.dpi
    inches_per_pixel = min(
        max(inches_per_image / max(grid.tile_shape), MIN_INCHES_PER_SIDE / min(grid.tile_shape)),
        MAX_INCHES / max(grid.sheet_shape),
    )
    inches = [width * inches_per_pixel, height * inches_per_pixel]
    if row_name:  # to the left
        inches[0] += INCHES_PER_CHARACTER * (1 + len(row_name))
    if title:  # above
        inches[1] += 0.3
        inches[0] = max(inches[0], INCHES_PER_CHARACTER * (3 + len(title)))
    return _new_axes(*inches), inches_per_pixel


def _new_axes(width: float, height: float) -> Axes:
    # Not at the top: it chooses a backend, perhaps one with windows.
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="compressed")[1]


def _show(
    axes: Axes, sheet: npt.NDArray[Any], ds: xr.Dataset, *, stretch_contrast: bool = False
) -> None:
    image = ds[IMAGE].variable
    has_colors = BAND in image.dims
    low, high = _finite_range(sheet)
    is_stated = VALID_RANGE in image.attrs or VALID_RANGE in image.encoding
    is_stated |= has_colors and image.dtype == np.uint8
    bounds = known_range(image) if is_stated and (has_colors or not stretch_contrast) else None
    if bounds:
        low, high = min(low, bounds[0]), max(high, bounds[1])
    if not has_colors:
        axes.imshow(sheet, cmap=COLOR_MAP, vmin=low, vmax=high)
        return
    if bounds is None and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    colors = (sheet - low) * (255 / ((high - low) or 1.0))
    paper = np.where(np.isfinite(sheet), colors, 255)
    axes.imshow(paper.clip(0, 255).round().astype(np.uint8))


def _finite_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    is_finite = np.isfinite(values)
    if not is_finite.any():
        return 0.0, 1.0
    low = np.min(values, where=is_finite, initial=np.inf)
    return float(low), float(np.max(values, where=is_finite, initial=-np.inf))
