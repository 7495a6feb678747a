"""Pictures: which samples they show, what they read, what they are titled."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import dask.array
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from zarr.storage import MemoryStore

from mnist_zarr import plot
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.errors import OptionError, SchemaError, SelectionError, TargetExistsError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.memory import traced_memory


def shown_images(figure: Figure) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def geometry(figure: Figure) -> tuple[int, int]:
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    return grid.nrows, grid.ncols


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


def test_one_per_class_shows_the_first_sample_of_each_digit_in_two_rows_of_five() -> None:
    ds = open_dataset("mnist")
    figure = plot.one_per_class(ds)
    assert titles(figure) == list("0123456789")
    labels = ds.label.values
    for digit, image in enumerate(shown_images(figure)):
        first = int(np.flatnonzero(labels == digit)[0])
        np.testing.assert_array_equal(image, ds.image[first].values)
    assert geometry(figure) == (2, 5)


def test_samples_shows_the_first_25_sevens() -> None:
    ds = open_dataset("mnist")
    figure = plot.samples(ds, 7)
    expected = ds.sel(label=7).image[:25].values
    np.testing.assert_array_equal(np.stack(shown_images(figure)), expected)
    assert figure.get_suptitle() == "7"
    assert geometry(figure) == (5, 5)


def test_both_orders_of_a_store_give_the_same_pictures() -> None:
    ds = open_dataset("mnist").isel(sample=slice(500))
    pictures = []
    orders: tuple[Order, ...] = ("source", "label")
    for order in orders:
        store = MemoryStore()
        write_zarr(ds, store, order=order, level=1)
        opened = open_store(store)
        figures = [
            plot.one_per_class(opened),
            plot.samples(opened, 7),
            plot.contact_sheet(opened),
            plot.mean_images(opened),
        ]
        pictures.append([np.stack(shown_images(figure)) for figure in figures])
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_chunks_with_shown_samples_are_read(tmp_path: Path) -> None:
    ds = open_dataset("mnist").isel(sample=slice(2000))
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=78_400, level=1)
    # The first of every digit is among the first 100 samples: nothing else can be read now.
    for chunk in range(1, 20):
        (tmp_path / f"t.zarr/image/c/{chunk}/0/0").write_bytes(b"damaged")
    for chunks in ("auto", None, {"sample": 100}):
        opened = open_store(tmp_path / "t.zarr", chunks=chunks)
        for draw in (plot.one_per_class, partial(plot.contact_sheet, columns=4)):
            np.testing.assert_array_equal(
                np.stack(shown_images(draw(opened))), np.stack(shown_images(draw(ds)))
            )
        plot.class_balance(opened)
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


def test_class_balance_stacks_the_splits_of_every_class() -> None:
    ds = open_dataset("mnist")
    (axes,) = (figure := plot.class_balance(ds)).axes
    train, test = (np.array([bar.get_width() for bar in bars]) for bars in axes.containers)
    np.testing.assert_array_equal(train, np.bincount(ds.sel(split="train").label))
    np.testing.assert_array_equal(test, np.bincount(ds.sel(split="test").label))
    np.testing.assert_array_equal([bar.get_x() for bar in axes.containers[1]], train)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list("0123456789")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "test"]
    assert [text.get_text() for text in axes.texts][7] == "7,293"


def test_class_balance_has_no_legend_where_there_is_no_split() -> None:
    ds = make_dataset(None, label=np.array([1, 0, 1]))
    figure = plot.class_balance(ds)
    assert not figure.legends
    assert [bar.get_width() for bar in figure.axes[0].containers[0]] == [1, 2]


def test_mean_images_are_those_of_each_class() -> None:
    ds = open_dataset("mnist").isel(sample=slice(59_000, 61_000))
    expected = ds.compute().groupby("label").mean().image.values
    for lazy in (ds, ds.chunk(sample=300)):
        figure = plot.mean_images(lazy)
        np.testing.assert_allclose(np.stack(shown_images(figure)), expected, rtol=1e-12)
        assert titles(figure) == list("0123456789")
        assert geometry(figure) == (2, 5)


def test_mean_images_hold_a_few_megabytes_of_any_number_of_images() -> None:
    n_samples = 100_000
    images = dask.array.ones((n_samples, 28, 28), dtype="u1", chunks=(2000, 28, 28))
    ds = make_dataset(images, label=np.arange(n_samples) % 3)
    plot.mean_images(ds.isel(sample=slice(6)))  # what is imported does not count
    with traced_memory() as peak_bytes:
        plot.mean_images(ds)
        assert peak_bytes() < 12e6 < ds.image.nbytes


def test_contact_sheet_has_a_row_of_first_samples_per_class() -> None:
    ds = open_dataset("mnist").isel(sample=slice(2000)).load()
    figure = plot.contact_sheet(ds)
    (sheet,) = shown_images(figure)
    step = 28 + plot.PIXELS_BETWEEN_IMAGES
    for digit in range(10):
        for column, image in enumerate(ds.sel(label=digit).image[:10].values):
            shown = sheet[digit * step : digit * step + 28, column * step : column * step + 28]
            np.testing.assert_array_equal(shown, image)
    assert sheet.shape == (10 * step - 2, 10 * step - 2)
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == list("0123456789")


def test_a_row_of_a_sheet_ends_where_its_class_has_no_more_samples() -> None:
    ds = make_dataset(np.full((3, 2, 2), 9, np.uint8), label=np.array([1, 2, 1]))
    (sheet,) = shown_images(plot.contact_sheet(ds, columns=5))
    assert sheet.tolist() == [
        [9, 9, 0, 0, 9, 9],
        [9, 9, 0, 0, 9, 9],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [9, 9, 0, 0, 0, 0],
        [9, 9, 0, 0, 0, 0],
    ]


def test_no_text_of_a_picture_is_cut_off_or_lies_on_another() -> None:
    names = ["T-shirt/top", "a rather long name of a class", "Bag"]
    ds = make_dataset(
        np.zeros((40, 28, 28), np.uint8),
        label=np.arange(40) % 3,
        split=np.array(["train", "test"] * 20, dtype=STRING_DTYPE),
        label_attrs=class_attrs([0, 1, 2], names),
    )
    for draw in (plot.class_balance, plot.contact_sheet):
        figure = draw(ds)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        texts = [*axes.get_yticklabels(), *axes.texts]
        texts += [text for legend in figure.legends for text in legend.get_texts()]
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= len(names)
        if axes.images:  # which long names shall not make small
            assert axes.bbox.height > 0.9 * figure.bbox.height
        for number, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(other) for other in boxes[:number])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ds: plot.samples(ds, 5), SelectionError, "no sample has label 5"),
        (lambda ds: plot.samples(ds, rows=0), OptionError, "rows: expected 1 or more, got 0"),
        (lambda ds: plot.samples(ds, columns=0), OptionError, "columns: expected 1 or more"),
        (lambda ds: plot.one_per_class(ds.drop_vars("label")), SchemaError, "no coordinate"),
        (lambda ds: plot.samples(ds.drop_vars("image")), SchemaError, "variable 'image'"),
        (lambda ds: plot.samples(ds.isel(row=0)), SchemaError, "variable 'image'"),
        (lambda ds: plot.class_balance(ds.drop_vars("label")), SchemaError, "no coordinate"),
        (lambda ds: plot.class_balance(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.mean_images(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.mean_images(ds, columns=0), OptionError, "columns: expected 1 or more"),
        (lambda ds: plot.contact_sheet(ds, columns=0), OptionError, "columns: expected 1 or more"),
        (lambda ds: plot.contact_sheet(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.samples(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.one_per_class(ds.isel(sample=[])), SelectionError, "no samples"),
    ],
)
def test_what_cannot_be_drawn_raises_a_clear_error(
    call: Any, error: type[Exception], message: str
) -> None:
    ds: xr.Dataset = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 2, 1]))
    with pytest.raises(error, match=message):
        call(ds)


def test_labels_that_are_no_classes_are_not_drawn_one_by_one() -> None:
    ds = make_dataset(np.zeros((300, 2, 2)), label=np.arange(300))
    for draw in (plot.one_per_class, plot.class_balance, plot.mean_images, plot.contact_sheet):
        with pytest.raises(SchemaError, match="300 different labels are too many for classes"):
            draw(ds)


@pytest.mark.parametrize("ending", ["png", "PDF", "svg"])
def test_a_figure_is_saved_in_the_format_that_its_name_tells(tmp_path: Path, ending: str) -> None:
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1])))
    place = tmp_path / f"balance.{ending}"
    plot.save_figure(figure, place)
    magic = {"png": b"\x89PNG", "PDF": b"%PDF", "svg": b"<?xml"}[ending]
    assert place.read_bytes().startswith(magic)
    with pytest.raises(TargetExistsError, match="exists already"):
        plot.save_figure(figure, place)
    plot.save_figure(figure, place, overwrite=True)


def test_a_figure_that_fails_half_way_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1])))

    def fail(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        plot.save_figure(figure, tmp_path / "balance.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["balance", "balance.docx"])
def test_an_unknown_picture_format_gets_the_list_of_known_ones(tmp_path: Path, name: str) -> None:
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1])))
    with pytest.raises(OptionError, match=rf"{name}: expected a name that ends in .*\.png"):
        plot.save_figure(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_names_are_drawn_as_they_are_and_not_as_formulas() -> None:
    ds = digits(n_classes=2, splits=("train$", "$$"))
    ds.label.attrs |= {"flag_values": [0, 1], "flag_meanings": "$$ $\\frac$"}
    figures = [
        plot.one_per_class(ds),
        plot.samples(ds, label=1),
        plot.class_balance(ds),
        plot.mean_images(ds),
        plot.contact_sheet(ds),
    ]
    for figure in figures:
        figure.savefig(io.BytesIO(), format="png")
