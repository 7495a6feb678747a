"""A test part without labels beside a labelled training part, from the files to every reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.dataset.unlabelled import are_unlabelled
from mnist_zarr.errors import SchemaError, SourceError
from tests.support.commands import run_command
from tests.support.files import file_contents
from tests.support.idx_pairs import pixels, put_pair

LABELS = np.arange(30, dtype=np.uint8) % 10
N_TRAIN, N_TEST = len(LABELS), 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of IDX files in which only the training part has labels."""
    place = tmp_path / "files"
    place.mkdir()
    put_pair(place, "train", pixels(N_TRAIN, 4, 4), LABELS)
    put_pair(place, "t10k", pixels(N_TEST, 4, 4, seed=1), None)
    return place


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Path:
    mnist_zarr.build(tmp_path / "t.zarr", folder)
    return tmp_path / "t.zarr"


@pytest.mark.parametrize("order", ["source", "label", "shuffled"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_xarray_selects_by_integer_labels(
    folder: Path, tmp_path: Path, order: Any, zarr_format: Any
) -> None:
    mnist_zarr.build(tmp_path / "o.zarr", folder, order=order, zarr_format=zarr_format)
    ds = xr.open_zarr(tmp_path / "o.zarr")
    assert ds.label.dtype == np.int16
    assert sorted(ds.sel(label=7).source_index.values) == [7, 17, 27]
    assert (ds.sel(label=-1).split == "test").all()
    assert ds.sel(label=-1).sizes["sample"] == N_TEST
    assert ds.label.attrs["flag_meanings"] == "unlabelled 0 1 2 3 4 5 6 7 8 9"
    assert ds.label.attrs["flag_values"] == list(range(-1, 10))
    assert ds.label.attrs["valid_min"] == 0


def test_the_unlabelled_are_selected_by_name_or_left_out(store: Path) -> None:
    ds = mnist_zarr.open_store(store)
    unlabelled = mnist_zarr.select(ds, label="unlabelled")
    assert (unlabelled.split == "test").all()
    assert are_unlabelled(unlabelled.label).all()
    rest = mnist_zarr.exclude(ds, label=-1)
    np.testing.assert_array_equal(rest.label, LABELS)


def test_the_dataset_that_is_opened_says_the_same_before_it_is_written(folder: Path) -> None:
    ds = mnist_zarr.open_idx(folder)
    assert not ds.label.variable._in_memory
    assert mnist_zarr.select(ds, label="unlabelled").sizes["sample"] == N_TEST


def test_names_of_classes_leave_the_unlabelled_their_own(folder: Path, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(10)]
    mnist_zarr.build(tmp_path / "n.zarr", folder, class_names=names)
    ds = mnist_zarr.open_store(tmp_path / "n.zarr")
    assert mnist_zarr.select(ds, label="class 7").sizes["sample"] == 3
    assert mnist_zarr.select(ds, label="unlabelled").sizes["sample"] == N_TEST


def test_info_counts_them_and_verify_finds_the_store_whole(store: Path) -> None:
    assert mnist_zarr.summarize(store).counts["unlabelled"] == (0, N_TEST)
    assert mnist_zarr.verify(store).is_whole
    shown = run_command("info", store)
    rows = [line.split()[:4] for line in shown.output.splitlines()]
    assert ["unlabelled", "0", "12", "12"] in rows


@pytest.mark.parametrize("draw", ["one_per_class", "mean_images", "contact_sheet"])
def test_pictures_of_classes_leave_them_out(store: Path, draw: str) -> None:
    ds = mnist_zarr.open_store(store)
    drawn = getattr(mnist_zarr.plot, draw)(ds).get_images()[0].get_array()
    labelled = mnist_zarr.exclude(ds, label=-1)
    expected = getattr(mnist_zarr.plot, draw)(labelled).get_images()[0].get_array()
    np.testing.assert_array_equal(drawn, expected)


def test_bars_count_them_and_samples_are_titled(store: Path) -> None:
    ds = mnist_zarr.open_store(store)
    bars = mnist_zarr.plot.class_balance(ds)
    assert bars.get_yticklabels()[0].get_text() == "unlabelled"
    assert mnist_zarr.plot.samples(ds, -1).get_title() == "unlabelled"


def test_exports_give_the_files_back_byte_for_byte(store: Path, folder: Path) -> None:
    ds = mnist_zarr.open_store(store)
    mnist_zarr.write_idx_files(ds, store.parent / "again")
    assert file_contents(store.parent / "again") == file_contents(folder)


def test_an_archive_says_the_same(store: Path) -> None:
    ds = mnist_zarr.open_store(store)
    mnist_zarr.write_npz(ds, store.parent / "t.npz", scaled=False)
    with np.load(store.parent / "t.npz") as archive:
        assert sorted(archive) == ["X_test", "X_train", "y_train"]
        assert archive["y_train"].dtype == np.uint8
    again = mnist_zarr.open_npz(store.parent / "t.npz")
    np.testing.assert_array_equal(again.label, ds.label)
    np.testing.assert_array_equal(again.image, ds.image)


@pytest.mark.parametrize("write", [mnist_zarr.write_idx_files, mnist_zarr.write_npz])
def test_a_split_of_which_some_have_labels_is_not_exported(
    store: Path, write: Callable[..., None]
) -> None:
    ds = mnist_zarr.open_store(store).drop_vars("split")
    with pytest.raises(SchemaError, match="12 of 42 samples have no label, which no file can say"):
        write(ds, store.parent / "out.npz")
    assert not (store.parent / "out.npz").exists()
    write(mnist_zarr.exclude(ds, label=-1), store.parent / "out.npz")


def test_batches_have_the_label_minus_1(store: Path) -> None:
    test = mnist_zarr.select(mnist_zarr.open_store(store), split="test")
    (batch,) = mnist_zarr.batches(test, 256, shuffle=False)
    assert batch.labels.tolist() == [-1] * N_TEST


def test_a_stratified_split_needs_labels(store: Path) -> None:
    ds = mnist_zarr.open_store(store)
    with pytest.raises(SchemaError, match="12 samples have no label; leave them out with exclude"):
        mnist_zarr.stratified_split(ds, 10)
    assert mnist_zarr.stratified_split(mnist_zarr.exclude(ds, label=-1), 10).sizes["sample"] == 30


def test_the_store_is_written_again_and_joined_with_others(store: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zarr"
    mnist_zarr.build(again, store, order="label")
    stored = mnist_zarr.open_store(again).sortby("source_index")
    np.testing.assert_array_equal(stored.label, mnist_zarr.open_store(store).label)
    more = mnist_zarr.make_dataset(pixels(1, 4, 4), label=np.array([7], np.uint8), split=["train"])
    mnist_zarr.append(again, more)
    ds = xr.open_zarr(again)
    assert (ds.sel(label=7).sizes["sample"], ds.sel(label=-1).sizes["sample"]) == (4, N_TEST)
    assert (ds.label.attrs["valid_min"], ds.label.dtype) == (0, np.int16)
    assert mnist_zarr.verify(again).is_whole


def test_only_a_test_part_may_lack_labels(folder: Path) -> None:
    put_pair(folder, "val", pixels(2, 4, 4), None)
    with pytest.raises(SourceError, match="val-images-idx3-ubyte: has no label file beside it"):
        mnist_zarr.open_idx(folder)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_labels_that_could_be_taken_for_none_are_refused(tmp_path: Path, dtype: str) -> None:
    labels = np.array([0, 1, -1]).astype(dtype)
    put_pair(tmp_path, "train", pixels(3, 4, 4), labels)
    put_pair(tmp_path, "test", pixels(2, 4, 4), None)
    message = "of an integer type" if dtype == "float32" else "has the label -1, but beside samples"
    with pytest.raises(SourceError, match=f"train-labels.*{message}"):
        mnist_zarr.build(tmp_path / "t.zarr", tmp_path)
    assert not (tmp_path / "t.zarr").exists()
    (tmp_path / "test-images-idx3-ubyte").unlink()
    assert mnist_zarr.open_idx(tmp_path).label.values.tolist() == labels.tolist()
