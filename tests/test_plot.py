"""Pictures: which samples they show, what they read, what they are titled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from zarr.storage import MemoryStore

from mnist_zarr import plot
from mnist_zarr.catalog import open_catalog
from mnist_zarr.errors import OptionError, SchemaError, SelectionError
from mnist_zarr.plan import Order
from mnist_zarr.reader import open_store
from mnist_zarr.schema import class_attrs, make_dataset
from mnist_zarr.writer import write_zarr


def shown_images(figure: Figure) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def geometry(figure: Figure) -> tuple[int, int]:
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    return grid.nrows, grid.ncols


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


def test_one_per_class_shows_the_first_sample_of_each_digit_in_two_rows_of_five() -> None:
    ds = open_catalog("mnist")
    figure = plot.one_per_class(ds)
    assert titles(figure) == list("0123456789")
    labels = ds.label.values
    for digit, image in enumerate(shown_images(figure)):
        first = int(np.flatnonzero(labels == digit)[0])
        np.testing.assert_array_equal(image, ds.image[first].values)
    assert geometry(figure) == (2, 5)


def test_samples_shows_the_first_25_sevens() -> None:
    ds = open_catalog("mnist")
    figure = plot.samples(ds, 7)
    expected = ds.sel(label=7).image[:25].values
    np.testing.assert_array_equal(np.stack(shown_images(figure)), expected)
    assert figure.get_suptitle() == "7"
    assert geometry(figure) == (5, 5)


def test_both_orders_of_a_store_give_the_same_pictures() -> None:
    ds = open_catalog("mnist").isel(sample=slice(500))
    pictures = []
    orders: tuple[Order, ...] = ("source", "label")
    for order in orders:
        store = MemoryStore()
        write_zarr(ds, store, order=order, level=1)
        opened = open_store(store)
        figures = [plot.one_per_class(opened), plot.samples(opened, 7)]
        pictures.append([np.stack(shown_images(figure)) for figure in figures])
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_chunks_with_shown_samples_are_read(tmp_path: Path) -> None:
    ds = open_catalog("mnist").isel(sample=slice(2000))
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=78_400, level=1)
    # The first of every digit is among the first 100 samples: nothing else can be read now.
    for chunk in range(1, 20):
        (tmp_path / f"t.zarr/image/c/{chunk}/0/0").write_bytes(b"damaged")
    for chunks in ("auto", None, {"sample": 100}):
        opened = open_store(tmp_path / "t.zarr", chunks=chunks)
        np.testing.assert_array_equal(
            np.stack(shown_images(plot.one_per_class(opened))),
            np.stack(shown_images(plot.one_per_class(ds))),
        )
        with pytest.raises((RuntimeError, OSError)):  # of the one codec, of the other
            opened.image[100].load()


def test_black_is_255_even_where_the_shown_pixels_are_pale() -> None:
    ds = make_dataset(np.full((1, 2, 2), 10, np.uint8))
    (axes,) = plot.samples(ds).axes
    assert axes.images[0].get_clim() == (0, 255)


def test_scaled_images_are_drawn_over_their_own_range() -> None:
    ds = make_dataset(np.linspace(-1, 1, 8).reshape(2, 2, 2))
    axes = plot.samples(ds).axes[0]
    assert axes.images[0].get_clim() == (-1, 1)


def test_titles_are_class_names() -> None:
    attrs = class_attrs([0, 1], ["Ankle boot", "Bag"])
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 0, 1]), label_attrs=attrs)
    assert titles(plot.one_per_class(ds)) == ["Ankle boot", "Bag"]
    assert titles(plot.samples(ds)) == ["Bag", "Ankle boot", "Bag"]
    assert plot.samples(ds, "bag").get_suptitle() == "Bag"


def test_there_may_be_fewer_samples_than_places() -> None:
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 1, 1]))
    assert len(shown_images(plot.samples(ds, 1))) == 3
    assert len(shown_images(plot.samples(ds, rows=1, columns=2))) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ds: plot.samples(ds, 5), SelectionError, "no sample has label 5"),
        (lambda ds: plot.samples(ds, rows=0), OptionError, "rows: expected 1 or more, got 0"),
        (lambda ds: plot.samples(ds, columns=0), OptionError, "columns: expected 1 or more"),
        (lambda ds: plot.one_per_class(ds.drop_vars("label")), SchemaError, "no coordinate"),
        (lambda ds: plot.samples(ds.drop_vars("image")), SchemaError, "variable 'image'"),
        (lambda ds: plot.samples(ds.isel(row=0)), SchemaError, "variable 'image'"),
        (lambda ds: plot.samples(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.one_per_class(ds.isel(sample=[])), SelectionError, "no samples"),
    ],
)
def test_what_cannot_be_drawn_is_a_clear_error(
    call: Any, error: type[Exception], message: str
) -> None:
    ds: xr.Dataset = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 2, 1]))
    with pytest.raises(error, match=message):
        call(ds)
