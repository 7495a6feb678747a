"""Pictures: which samples they show, what they read, what they are titled."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import dask.array
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from zarr.storage import MemoryStore

from mnist_zarr import plot
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.dataset.sheet import MAX_TILE_PIXELS, MAX_TILE_RATIO
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import OptionError, SchemaError, SelectionError, TargetExistsError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.memory import traced_memory


def sheet(axes: Axes) -> np.ndarray[Any, Any]:
    """The one image that a picture consists of, with NaN where there is nothing."""
    (image,) = axes.images
    pixels = image.get_array()
    assert pixels is not None
    return np.asarray(np.ma.filled(pixels, np.nan))


def stretches(is_filled: np.ndarray[Any, Any]) -> list[slice]:
    """Where something is, between what is empty."""
    padded = np.concatenate([[0], is_filled.astype(int), [0]])
    starts, stops = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return [slice(*bounds) for bounds in zip(starts.tolist(), stops.tolist(), strict=True)]


def shown_rows(axes: Axes) -> list[list[np.ndarray[Any, Any]]]:
    """The images of each row, cut out along the empty lines between them."""
    whole = sheet(axes)
    is_filled = ~np.isnan(whole)
    columns = stretches(is_filled.any(axis=0))
    return [
        [whole[row, column] for column in columns if is_filled[row, column].any()]
        for row in stretches(is_filled.any(axis=1))
    ]


def shown_images(axes: Axes) -> list[np.ndarray[Any, Any]]:
    return [image for row in shown_rows(axes) for image in row]


def geometry(axes: Axes) -> list[int]:
    return [len(row) for row in shown_rows(axes)]


def titles(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_one_per_class_shows_the_first_sample_of_each_digit_in_two_rows_of_five() -> None:
    ds = open_dataset("mnist")
    axes = plot.one_per_class(ds)
    assert titles(axes) == list("0123456789")
    labels = ds.label.values
    for digit, image in enumerate(shown_images(axes)):
        first = int(np.flatnonzero(labels == digit)[0])
        np.testing.assert_array_equal(image, ds.image[first].values)
    assert geometry(axes) == [5, 5]


def test_samples_shows_the_first_25_sevens() -> None:
    ds = open_dataset("mnist")
    axes = plot.samples(ds, 7)
    expected = ds.sel(label=7).image[:25].values
    np.testing.assert_array_equal(np.stack(shown_images(axes)), expected)
    assert axes.get_title() == "7"
    assert geometry(axes) == [5] * 5


def test_both_orders_of_a_store_give_the_same_pictures() -> None:
    ds = open_dataset("mnist").isel(sample=slice(500))
    pictures = []
    orders: tuple[Order, ...] = ("source", "label")
    for order in orders:
        store = MemoryStore()
        write_zarr(ds, store, order=order, level=1)
        opened = open_store(store)
        drawn = [
            plot.one_per_class(opened),
            plot.samples(opened, 7),
            plot.contact_sheet(opened),
            plot.mean_images(opened),
        ]
        pictures.append([sheet(axes) for axes in drawn])
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
            np.testing.assert_array_equal(sheet(draw(opened)), sheet(draw(ds)))
        plot.class_balance(opened)
        with pytest.raises((RuntimeError, OSError)):  # of the one codec, of the other
            opened.image[100].load()


def test_black_is_255_even_where_the_shown_pixels_are_pale() -> None:
    ds = make_dataset(np.full((1, 2, 2), 10, np.uint8))
    axes = plot.samples(ds)
    assert axes.images[0].get_clim() == (0, 255)


def test_black_is_the_highest_value_of_a_scale_that_is_known() -> None:
    ds = make_dataset(np.full((2, 2, 2), 10, np.uint8))
    assert plot.samples(rescale(ds)).images[0].get_clim() == (-1, 1)
    store = MemoryStore()
    write_zarr(ds, store, rescale=(-1, 1))
    assert plot.samples(open_store(store)).images[0].get_clim() == (-1, 1)
    scaled = ds.assign(image=ds.image / 255.0)  # which keeps the attributes
    assert plot.samples(scaled).images[0].get_clim() == (10 / 255, 10 / 255)


def test_classes_without_a_name_are_drawn_without_a_title() -> None:
    for names in (["", ""], ["", " "], ["", "a"]):
        ds = make_dataset(np.zeros((2, 28, 28)), label=np.array(names))
        for draw in (plot.one_per_class, plot.samples, plot.contact_sheet, plot.class_balance):
            saved_shape(draw(ds))


def test_scaled_images_are_drawn_over_their_own_range() -> None:
    ds = make_dataset(np.linspace(-1, 1, 8).reshape(2, 2, 2))
    axes = plot.samples(ds)
    assert axes.images[0].get_clim() == (-1, 1)


def test_titles_are_class_names() -> None:
    attrs = class_attrs([0, 1], ["Ankle boot", "Bag"])
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 0, 1]), label_attrs=attrs)
    assert titles(plot.one_per_class(ds)) == ["Ankle boot", "Bag"]
    assert titles(plot.samples(ds)) == ["Bag", "Ankle boot", "Bag"]
    assert plot.samples(ds, "bag").get_title() == "Bag"


def test_there_may_be_fewer_samples_than_places() -> None:
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([1, 1, 1]))
    assert len(shown_images(plot.samples(ds, 1))) == 3
    assert len(shown_images(plot.samples(ds, rows=1, columns=2))) == 2


def test_class_balance_stacks_the_splits_of_every_class() -> None:
    ds = open_dataset("mnist")
    axes = plot.class_balance(ds)
    train, test = (np.array([bar.get_width() for bar in bars]) for bars in axes.containers)
    np.testing.assert_array_equal(train, np.bincount(ds.sel(split="train").label))
    np.testing.assert_array_equal(test, np.bincount(ds.sel(split="test").label))
    np.testing.assert_array_equal([bar.get_x() for bar in axes.containers[1]], train)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list("0123456789")
    assert (legend := axes.get_legend()) is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "test"]
    assert [text.get_text() for text in axes.texts][7] == "7,293"


def test_class_balance_has_no_legend_where_there_is_no_split() -> None:
    ds = make_dataset(None, label=np.array([1, 0, 1]))
    axes = plot.class_balance(ds)
    assert axes.get_legend() is None
    assert [bar.get_width() for bar in axes.containers[0]] == [1, 2]


def test_mean_images_are_those_of_each_class() -> None:
    ds = open_dataset("mnist").isel(sample=slice(59_000, 61_000))
    expected = ds.compute().groupby("label").mean().image.values
    for lazy in (ds, ds.chunk(sample=300)):
        axes = plot.mean_images(lazy)
        np.testing.assert_allclose(np.stack(shown_images(axes)), expected, rtol=1e-12)
        assert titles(axes) == list("0123456789")
        assert geometry(axes) == [5, 5]


def test_mean_images_hold_a_few_blocks_of_any_number_of_images() -> None:
    n_samples = 100_000
    images = dask.array.ones((n_samples, 28, 28), dtype="u1", chunks=(2000, 28, 28))
    ds = make_dataset(images, label=np.arange(n_samples) % 3)
    plot.mean_images(ds.isel(sample=slice(6)))  # what is imported does not count
    with traced_memory() as peak_bytes:
        plot.mean_images(ds)
        assert peak_bytes() < 30e6 < ds.image.nbytes


def test_contact_sheet_has_a_row_of_first_samples_per_class() -> None:
    ds = open_dataset("mnist").isel(sample=slice(2000)).load()
    axes = plot.contact_sheet(ds)
    for digit, row in enumerate(shown_rows(axes)):
        np.testing.assert_array_equal(np.stack(row), ds.sel(label=digit).image[:10].values)
    assert geometry(axes) == [10] * 10
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == list("0123456789")


def test_a_row_of_a_sheet_ends_where_its_class_has_no_more_samples() -> None:
    ds = make_dataset(np.full((3, 2, 2), 9, np.uint8), label=np.array([1, 2, 1]))
    assert geometry(plot.contact_sheet(ds, columns=5)) == [2, 1]


def test_no_text_of_a_picture_is_cut_off_or_lies_on_another() -> None:
    names = ["T-shirt/top", "a rather long name of a class", "Bag"]
    ds = make_dataset(
        np.zeros((40, 28, 28), np.uint8),
        label=np.arange(40) % 3,
        split=np.array(["train", "test"] * 20, dtype=STRING_DTYPE),
        label_attrs=class_attrs([0, 1, 2], names),
    )
    for draw in (plot.class_balance, plot.contact_sheet, plot.one_per_class, plot.samples):
        axes = draw(ds)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.draw_without_rendering()
        texts = [*(axes.get_yticklabels() if axes.axison else ()), *axes.texts]
        if legend := axes.get_legend():
            texts += legend.get_texts()
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= len(names)
        if draw is plot.contact_sheet:  # which long names shall not make small
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
        (
            lambda ds: plot.samples(ds, rows=0),
            OptionError,
            "`rows`: expected a whole",
        ),
        (lambda ds: plot.samples(ds, columns=0), OptionError, "`columns`: expected a whole"),
        (lambda ds: plot.one_per_class(ds.drop_vars("label")), SchemaError, "needs 'label'"),
        (lambda ds: plot.samples(ds.drop_vars("image")), SchemaError, "variable 'image'"),
        (lambda ds: plot.samples(ds.isel(row=0)), SchemaError, "variable 'image'"),
        (lambda ds: plot.class_balance(ds.drop_vars("label")), SchemaError, "needs 'label'"),
        (lambda ds: plot.class_balance(ds.isel(sample=[])), SelectionError, "no samples"),
        (lambda ds: plot.mean_images(ds.isel(sample=[])), SelectionError, "no samples"),
        (
            lambda ds: plot.mean_images(ds, columns=0),
            OptionError,
            "`columns`: expected a whole",
        ),
        (
            lambda ds: plot.contact_sheet(ds, columns=0),
            OptionError,
            "`columns`: expected a whole",
        ),
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
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1]))).figure
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
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1]))).figure

    def fail(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        plot.save_figure(figure, tmp_path / "balance.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["balance", "balance.docx"])
def test_an_unknown_picture_format_gets_the_list_of_known_ones(tmp_path: Path, name: str) -> None:
    figure = plot.class_balance(make_dataset(None, label=np.array([1, 0, 1]))).figure
    with pytest.raises(OptionError, match=rf"{name}: expected a name that ends in .*\.png"):
        plot.save_figure(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_names_are_drawn_as_they_are_and_not_as_formulas() -> None:
    ds = digits(n_classes=2, splits=("train$", "$$"))
    ds.label.attrs |= {"flag_values": [0, 1], "flag_meanings": "$$ $\\frac$"}
    for axes in (
        plot.one_per_class(ds),
        plot.samples(ds, label=1),
        plot.class_balance(ds),
        plot.mean_images(ds),
        plot.contact_sheet(ds),
    ):
        assert isinstance(axes.figure, Figure)
        axes.figure.savefig(io.BytesIO(), format="png")


def saved_shape(axes: Axes) -> tuple[int, int]:
    file = io.BytesIO()
    assert isinstance(axes.figure, Figure)
    axes.figure.savefig(file, dpi=plot.DOTS_PER_INCH)
    file.seek(0)
    height, width = imread(file).shape[:2]
    return height, width


def test_thousands_of_images_are_one_image_on_one_axes() -> None:
    ds = make_dataset(np.arange(3600, dtype=np.uint16)[:, None, None] * np.ones((28, 28), "u2"))
    axes = plot.samples(ds, rows=60, columns=60)
    assert [type(child) for child in axes.get_children()].count(AxesImage) == 1
    assert isinstance(axes.figure, Figure)
    assert axes.figure.axes == [axes]
    assert [int(image[0, 0]) for image in shown_images(axes)] == list(range(3600))
    assert max(saved_shape(axes)) <= 2400


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1), (900, 30), (3000, 4000)])
@pytest.mark.parametrize(
    "draw", [plot.one_per_class, plot.samples, plot.mean_images, plot.contact_sheet]
)
def test_a_picture_has_bounds_whatever_the_shape_of_its_images(
    shape: tuple[int, int], draw: Callable[[xr.Dataset], Axes]
) -> None:
    images = dask.array.ones((9, *shape), dtype="u1", chunks=(1, *shape))
    axes = draw(make_dataset(images, label=np.arange(9) % 3))
    sides = np.array(saved_shape(axes))
    assert sides.max() <= 1300
    assert sides.min() >= 40
    assert sheet(axes).size <= 1.5 * MAX_TILE_PIXELS
    for image in shown_images(axes):
        assert max(image.shape) <= MAX_TILE_RATIO * min(image.shape)
        assert (image == 1).all()


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (5000, 5000, "a picture of 14 rows and 5,000 columns is too large; expected"),
        (1, 257, "expected 10,000 images at most, and 256 rows or columns"),
        (257, 1, "257 rows"),
        (101, 100, "101 rows and 100 columns"),
    ],
)
def test_more_images_than_a_picture_shows_are_refused(rows: int, columns: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        plot.samples(open_dataset("mnist"), rows=rows, columns=columns)


def test_a_sheet_of_more_images_than_a_picture_shows_is_refused() -> None:
    with pytest.raises(OptionError, match="10 rows and 1,001 columns"):
        plot.contact_sheet(open_dataset("mnist"), columns=1001)


def test_what_is_larger_than_shown_is_averaged_and_not_thinned_out() -> None:
    fine = np.zeros((1, 1024, 1024))
    fine[:, ::2] = 1
    fine[:, :, 512:] = 0
    (image,) = shown_images(plot.samples(make_dataset(fine)))
    assert image.shape == (512, 512)
    np.testing.assert_array_equal(image[:, :256], 0.5)
    np.testing.assert_array_equal(image[:, 256:], 0)


def test_edges_that_do_not_fill_an_average_are_averages_of_what_is_there() -> None:
    (image,) = shown_images(plot.samples(make_dataset(np.ones((1, 1025, 700)))))
    np.testing.assert_array_equal(image, 1)


@pytest.mark.parametrize("draw", [plot.contact_sheet, plot.mean_images, plot.samples])
def test_large_images_are_read_a_few_megabytes_at_a_time(
    draw: Callable[[xr.Dataset], Axes],
) -> None:
    images = dask.array.ones((60, 1500, 1500), dtype="u1", chunks=(1, 1500, 1500))
    ds = make_dataset(images, label=np.arange(60) % 3)
    draw(ds.isel(sample=slice(3)))  # what is imported does not count
    with traced_memory() as peak_bytes:
        draw(ds)
        assert peak_bytes() < 130e6 < ds.image.nbytes


def test_images_that_lie_between_those_shown_are_not_read_if_they_are_large() -> None:
    read = []

    def make(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        read.append(int(block[0, 0, 0]))
        return np.broadcast_to(block, (1, 600, 600)).copy()

    numbers = dask.array.arange(50, chunks=1)[:, None, None]
    images = numbers.map_blocks(make, chunks=(1, 600, 600), meta=np.empty((0, 0, 0), "i8"))
    ds = make_dataset(images, label=np.repeat([0, 1], 25))
    plot.one_per_class(ds)
    assert sorted(read) == [0, 25]


def test_random_samples_are_others_for_another_seed_and_none_is_shown_twice() -> None:
    ds = make_dataset(np.arange(1, 101)[:, None, None] * np.ones((2, 2)))

    def shown(seed: int | np.random.Generator | None) -> list[int]:
        return [int(image[0, 0]) for image in shown_images(plot.samples(ds, random_state=seed))]

    assert shown(None) == list(range(1, 26))
    assert shown(0) == shown(0) == shown(np.random.default_rng(0))
    assert shown(0) != shown(1)
    assert len(set(shown(0))) == 25
    for wrong in (-1, "seed"):
        with pytest.raises(OptionError, match="`random_state`: expected an integer of 0 or more"):
            plot.samples(ds, random_state=wrong)  # type: ignore[arg-type]


def test_random_samples_are_titled_with_their_own_label() -> None:
    labels = np.arange(100) % 7
    ds = make_dataset(labels[:, None, None] * np.ones((4, 4)), label=labels)
    axes = plot.samples(ds, random_state=3)
    assert titles(axes) == [str(int(image[0, 0])) for image in shown_images(axes)]


def color_dataset(image: np.ndarray[Any, Any], **attrs: Any) -> xr.Dataset:
    dims = ("sample", "row", "col", "band")
    label = ("sample", np.arange(len(image)) % 2)
    return xr.Dataset({"image": (dims, image, attrs)}, {"label": label})


@pytest.mark.parametrize("n_bands", [3, 4])
@pytest.mark.parametrize(
    "draw", [plot.one_per_class, plot.samples, plot.mean_images, plot.contact_sheet]
)
def test_colors_are_those_of_the_images(n_bands: int, draw: Callable[..., Axes]) -> None:
    color = np.array([200, 100, 50, 255], np.uint8)[:n_bands]
    bytes_ = np.broadcast_to(color, (4, 28, 28, n_bands)).copy()
    for ds in (color_dataset(bytes_, valid_range=[0, 255]), color_dataset(bytes_ / 255.0)):
        (image,) = draw(ds).images
        shown = np.asarray(image.get_array())
        seen = {tuple(pixel) for pixel in shown.reshape(-1, n_bands).tolist()}
        assert seen == {tuple(color.tolist()), (255,) * n_bands}  # on white paper


def test_dark_photos_stay_dark() -> None:
    dark = np.random.default_rng(0).integers(3, 9, (2, 28, 28, 3)).astype(np.uint8)
    for ds in (color_dataset(dark), color_dataset(dark / 255.0)):
        (image,) = plot.samples(ds).images
        np.testing.assert_array_equal(np.asarray(image.get_array())[7:35, :28], dark[0])


def test_pixels_that_are_no_numbers_are_paper() -> None:
    images = np.linspace(-1, 1, 2 * 28 * 28).reshape(2, 28, 28)
    images[0, 0, :3] = [np.nan, np.inf, -np.inf]
    axes = plot.samples(make_dataset(images))
    assert axes.images[0].get_clim() == (images[0, 0, 3], 1)
    saved_shape(axes)
    saved_shape(plot.samples(make_dataset(np.full((2, 3, 3), np.nan))))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 0, 4)), "image: has no pixels"),
        (np.zeros((2, 3, 3), complex), "image: expected real numbers, got complex128"),
        (np.full((2, 3, 3), "a"), "image: expected real numbers, got <U1"),
        (np.zeros((2, 3)), r"with dimensions \('sample', 'row', 'col'\)"),
        (np.zeros((2, 3, 3, 5)), "with 3 or 4 bands, got {'sample': 2, 'dim_1': 3"),
    ],
)
def test_what_is_no_picture_is_refused(image: np.ndarray[Any, Any], message: str) -> None:
    ds = make_dataset(image, label=np.zeros(len(image), int))
    for draw in (plot.one_per_class, plot.samples, plot.mean_images, plot.contact_sheet):
        with pytest.raises(SchemaError, match=message):
            draw(ds)
    with pytest.raises(SchemaError, match=r"with 3 or 4 bands, got .*'band': 2"):
        plot.samples(color_dataset(np.zeros((2, 3, 3, 2))))


def test_names_of_any_length_fit() -> None:
    names = ["x" * 10_000, "two\nlines", "y"]
    ds = make_dataset(
        np.zeros((3, 28, 28), np.uint8),
        label=np.array(names, STRING_DTYPE),
        split=np.array(["train" * 1000, "test", "test"], STRING_DTYPE),
    )
    for draw in (plot.one_per_class, plot.samples, plot.contact_sheet, plot.class_balance):
        axes = draw(ds)
        assert max(saved_shape(axes)) < 1200
    assert titles(plot.one_per_class(ds))[0] == "two\\nlines"


def test_splits_that_cannot_be_told_apart_by_color_are_refused() -> None:
    folds = np.array([f"fold {n}" for n in range(21)])
    ds = make_dataset(None, label=np.zeros(21, int), split=folds)
    with pytest.raises(SchemaError, match="split: 21 different names are too many for splits"):
        plot.class_balance(ds)
    assert plot.class_balance(ds.drop_vars("split")).get_legend() is None
    axes = plot.class_balance(ds.isel(sample=slice(20)))
    assert len({bar.get_facecolor() for bar in axes.patches}) == 20


EVERY_PICTURE = (
    plot.one_per_class,
    plot.samples,
    plot.contact_sheet,
    plot.mean_images,
    plot.class_balance,
)


def test_every_picture_is_drawn_on_axes_of_the_user() -> None:
    ds = digits(n_classes=3)
    figure = Figure(figsize=(12, 3), layout="constrained")
    for draw, axes in zip(EVERY_PICTURE, figure.subplots(1, 5), strict=True):
        assert draw(ds, ax=axes) is axes
        assert axes.has_data()
    assert plt.get_fignums() == []
    figure.savefig(io.BytesIO())


def test_without_axes_pyplot_makes_a_figure_which_it_can_show() -> None:
    ds = digits(n_classes=3)
    for number, draw in enumerate(EVERY_PICTURE, start=1):
        axes = draw(ds)
        assert isinstance(axes.figure, Figure)
        assert plt.gcf() is axes.figure
        assert axes.figure.canvas.manager is not None  # without one, figure.show() fails
        assert plt.get_fignums() == list(range(1, number + 1))


def test_tab_completion_shows_the_pictures_and_nothing_else() -> None:
    assert dir(plot) == sorted({draw.__name__ for draw in EVERY_PICTURE} | {"save_figure"})
