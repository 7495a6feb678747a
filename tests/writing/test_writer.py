"""From a Dataset to a store: what a reader gets is what was given, in every layout."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import warnings
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.builder import build
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import STRING_DTYPE, is_string, make_dataset
from mnist_zarr.errors import SchemaError, TargetExistsError
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing import passes
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import MNIST_COUNTS, MNIST_GZIP_SHA256, digits
from tests.support.files import file_contents


def reopen(target: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened: xr.Dataset = xr.open_zarr(target, chunks=None)
        return opened.load()


ORDERS = ("source", "label", "shuffled")
LAYOUTS: list[dict[str, Any]] = [
    {"zarr_format": zarr_format, "order": order, "codec": codec, "level": 3, "chunk_bytes": 100}
    for zarr_format, order, codec in itertools.product((3, 2), ORDERS, ("zstd", "gzip"))
] + [{"order": order, "chunk_bytes": 60, "shard_bytes": 200} for order in ORDERS]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_gives_back_the_same_dataset(tmp_path: Path, layout: dict[str, Any]) -> None:
    ds = digits(50)
    write_zarr(ds, tmp_path / "d.zarr", **layout)
    back = reopen(tmp_path / "d.zarr")
    in_source_order = back.sortby("source_index")
    xr.testing.assert_equal(in_source_order, ds)
    for name in ds.variables:
        # Before 2026.9 xarray opens the strings of format 2 as Python objects.
        are_strings = is_string(back[name].dtype) and is_string(ds[name].dtype)
        assert back[name].dtype == ds[name].dtype or are_strings
        assert ds[name].attrs.items() <= back[name].attrs.items()
    if layout["order"] == "source":
        xr.testing.assert_equal(back, ds)
    elif layout["order"] == "label":
        by_label = np.argsort(ds.label.values, kind="stable")
        np.testing.assert_array_equal(back.source_index.values, by_label)
    else:
        shuffled = np.random.default_rng(0).permutation(50)
        np.testing.assert_array_equal(back.source_index.values, shuffled)


def test_all_of_mnist_in_label_order_is_stable_within_each_class(tmp_path: Path) -> None:
    ds = open_dataset("mnist").load()
    write_zarr(ds, tmp_path / "m.zarr", order="label", level=1)
    back = reopen(tmp_path / "m.zarr")
    starts = np.cumsum([0, *MNIST_COUNTS])
    for digit in range(10):
        members = back.isel(sample=slice(starts[digit], starts[digit + 1]))
        assert set(members.label.values.tolist()) == {digit}
        assert (np.diff(members.source_index.values.astype(int)) > 0).all()
    xr.testing.assert_equal(back.sortby("source_index"), ds)


def test_very_many_classes_of_large_objects_are_written_in_several_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "OPEN_OBJECTS_BYTES", 1)
    ds, store = digits(200, n_classes=10), MemoryStore()
    write_zarr(ds, store, order="label", chunk_bytes=60)
    xr.testing.assert_equal(reopen(store).sortby("source_index"), ds)
    assert reopen(store).attrs["image_sha256"] == sha256(ds.image.values)


def sha256(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("order", ORDERS)
def test_content_hashes_are_those_of_the_arrays_in_source_order(order: Any) -> None:
    ds, store = digits(50), MemoryStore()
    write_zarr(ds, store, order=order)
    attrs = reopen(store).attrs
    assert attrs["image_sha256"] == sha256(ds.image.values)
    assert attrs["label_sha256"] == sha256(ds.label.values)
    assert attrs["sha256_order"] == "source_index"


@pytest.mark.parametrize("order", ORDERS)
def test_content_hashes_of_a_shuffled_dataset_are_those_of_what_is_stored(order: Any) -> None:
    shuffled = digits(50).isel(sample=np.random.default_rng(1).permutation(50))
    store = MemoryStore()
    write_zarr(shuffled, store, order=order, chunk_bytes=100)
    back = reopen(store)
    assert back.attrs["sha256_order"] == "stored"
    assert back.attrs["image_sha256"] == sha256(back.image.values)
    assert back.attrs["label_sha256"] == sha256(back.label.values)


def test_images_of_one_number_each_have_a_content_hash_too() -> None:
    numbers, store = np.array([3, 1, 2], np.uint8), MemoryStore()
    write_zarr(make_dataset(numbers, label=numbers), store, order="label")
    assert reopen(store).attrs["image_sha256"] == sha256(numbers)


def test_mnist_records_the_sha256_of_its_source_files(tmp_path: Path) -> None:
    write_zarr(open_dataset("mnist"), tmp_path / "m.zarr", level=1)
    attrs = reopen(tmp_path / "m.zarr").attrs
    expected = [f"{sha256}  {name}" for name, sha256 in MNIST_GZIP_SHA256.items()]
    assert attrs["source_sha256"] == expected


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
@pytest.mark.parametrize("layout", [{}, {"chunk_bytes": 60, "shard_bytes": 240}], ids=str)
def test_equal_input_gives_equal_bytes_at_any_time(
    tmp_path: Path, codec: Any, layout: dict[str, Any]
) -> None:
    for name, seconds in (("one.zarr", 1e9), ("two.zarr", 2e9)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda seconds=seconds: seconds)
            write_zarr(digits(50), tmp_path / name, order="label", codec=codec, **layout)
    assert file_contents(tmp_path / "one.zarr") == file_contents(tmp_path / "two.zarr")


def test_black_chunks_are_stored_so_that_a_missing_one_is_damage(tmp_path: Path) -> None:
    write_zarr(make_dataset(np.zeros((10, 2, 2), np.uint8)), tmp_path / "b.zarr", chunk_bytes=8)
    assert len(list((tmp_path / "b.zarr" / "image" / "c").iterdir())) == 5


def test_labels_without_names_get_flag_attributes_of_their_own() -> None:
    store = MemoryStore()
    write_zarr(make_dataset(np.zeros((3, 2, 2), "u1"), label=np.array([4, 2, 4])), store)
    attrs = reopen(store).label.attrs
    assert attrs["flag_values"] == [2, 4]
    assert attrs["flag_meanings"] == "2 4"


def test_other_variables_and_coordinates_are_written_too() -> None:
    ds = digits(50).assign_coords(
        writer=("sample", np.arange(50, dtype="i4")), row=("row", [0.5, 1.5, 2.5, 3.5])
    )
    ds["mask"] = ("sample", "row"), np.arange(200).reshape(50, 4) % 2 == 0
    ds["mean"] = ("row", "col"), np.ones((4, 3))
    for order, zarr_format in itertools.product(ORDERS, (2, 3)):
        store = MemoryStore()
        write_zarr(ds, store, order=order, zarr_format=zarr_format, chunk_bytes=50)  # type: ignore[arg-type]
        back = reopen(store)
        xr.testing.assert_equal(back.sortby("source_index"), ds)
        assert set(back.coords) == set(ds.coords)


def test_strings_of_any_kind_are_stored_as_variable_length_strings() -> None:
    ds = digits(3)
    ds = ds.assign_coords(split=("sample", np.array(["train", "test", "test"])))
    store = MemoryStore()
    write_zarr(ds, store)
    assert reopen(store).split.dtype == STRING_DTYPE
    assert reopen(store).split.values.tolist() == ["train", "test", "test"]


def test_a_selection_of_a_store_can_be_written_over_the_store_itself(tmp_path: Path) -> None:
    write_zarr(digits(50), tmp_path / "d.zarr")
    sevens = xr.open_zarr(tmp_path / "d.zarr").sel(label=2)
    expected = sevens.load().copy(deep=True)
    write_zarr(xr.open_zarr(tmp_path / "d.zarr").sel(label=2), tmp_path / "d.zarr", overwrite=True)
    xr.testing.assert_equal(reopen(tmp_path / "d.zarr"), expected)


def test_a_dataset_without_samples_can_be_written() -> None:
    store = MemoryStore()
    write_zarr(digits(0), store, order="label")
    assert reopen(store).sizes == {"sample": 0, "row": 4, "col": 3}


def test_a_shuffled_store_is_repeated_with_its_seed_and_larger_than_what_is_open_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "OPEN_OBJECTS_BYTES", 1000)  # ten objects, of sixty
    ds = digits(500).drop_vars("label")
    orders = []
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write_zarr(ds, tmp_path / name, order="shuffled", seed=seed, chunk_bytes=100)
        back = reopen(tmp_path / name)
        xr.testing.assert_equal(back.sortby("source_index"), ds)
        orders.append(back.source_index.values.tolist())
        assert verify(tmp_path / name).is_whole
    assert orders[0] == orders[1] != orders[2]
    assert file_contents(tmp_path / "one") == file_contents(tmp_path / "same")


def test_label_order_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="needs 'label'"):
        write_zarr(digits(50).drop_vars("label"), tmp_path / "d.zarr", order="label")


UNWRITABLE: dict[str, tuple[Any, str]] = {
    "time": (
        digits(2).assign_coords(taken=("sample", np.array(["2020", "2021"], "M8[ns]"))),
        "'taken': expected numbers, booleans or strings",
    ),
    "128 bits": (
        digits(2).assign(x=("sample", np.zeros(2, np.clongdouble))),
        "'x': expected numbers, booleans or strings",
    ),
    "attribute": (digits(2).assign_attrs(by={"me"}), "the Dataset: attribute 'by': JSON cannot"),
    **{
        repr(name): (digits(2).assign({name: ("sample", [1, 2])}), f"{name!r}: is no name")
        for name in ("", "a/b", "..", "zarr.json", 3)
    },
}


@pytest.mark.parametrize("what", UNWRITABLE)
def test_what_zarr_cannot_hold_is_refused_before_the_target_is_touched(
    what: str, tmp_path: Path
) -> None:
    ds, message = UNWRITABLE[what]
    store = MemoryStore()
    write_zarr(digits(50), store)
    for target in (tmp_path / "d.zarr", store):
        with pytest.raises(SchemaError, match=message):
            write_zarr(ds, target, overwrite=True)
    assert list(tmp_path.iterdir()) == []
    xr.testing.assert_equal(reopen(store), digits(50))


def test_an_image_of_all_samples_together_has_no_content_hash() -> None:
    ds, store = digits(5).drop_vars("image"), MemoryStore()
    write_zarr(ds.assign(image=(("row", "col"), np.ones((2, 2)))), store)
    assert "image_sha256" not in reopen(store).attrs
    assert verify(store).is_whole


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_several_strings_a_sample_are_stored_as_they_are(zarr_format: Any) -> None:
    words = np.array([["a", "b", "b"], ["b", "", "é"]], STRING_DTYPE)
    ds, store = digits(2).assign(tags=(("sample", "tag"), words)), MemoryStore()
    write_zarr(ds, store, zarr_format=zarr_format)
    assert reopen(store).tags.values.tolist() == words.tolist()


def test_an_existing_store_is_not_overwritten_unasked(tmp_path: Path) -> None:
    write_zarr(digits(50, seed=1), tmp_path / "d.zarr")
    before = file_contents(tmp_path / "d.zarr")
    with pytest.raises(TargetExistsError, match=r"d\.zarr: exists already"):
        write_zarr(digits(50, seed=2), tmp_path / "d.zarr")
    assert file_contents(tmp_path / "d.zarr") == before


class BreaksInTheMiddle:
    """An array whose rows from 25 on cannot be read."""

    shape, dtype, ndim = (50, 4, 3), np.dtype("u1"), 3

    def __getitem__(self, key: Any) -> Any:
        rows = np.zeros(self.shape, np.uint8)
        if np.arange(50)[key[0]].max() >= 25:
            raise OSError("the disk is gone")
        return rows[key]


@pytest.mark.parametrize("order", ORDERS)
def test_a_source_that_breaks_leaves_the_old_store_and_no_rubbish(
    tmp_path: Path, order: Any
) -> None:
    write_zarr(digits(50), tmp_path / "d.zarr")
    before = file_contents(tmp_path)
    broken = digits(50).assign(
        image=(
            ("sample", "row", "col"),
            cast(Any, dask.array.from_array)(BreaksInTheMiddle(), chunks=5),
        )
    )
    with pytest.raises(OSError, match="the disk is gone"):
        write_zarr(broken, tmp_path / "d.zarr", order=order, chunk_bytes=60, overwrite=True)
    assert file_contents(tmp_path) == before
    with pytest.raises(OSError, match="the disk is gone"):
        write_zarr(broken, tmp_path / "new.zarr", order=order, chunk_bytes=60)
    assert sorted(os.listdir(tmp_path)) == ["d.zarr"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_gzip_source_is_decoded_once_in_any_order(
    order: Any, tmp_path: Path, decoded: list[int]
) -> None:
    n_samples = 100_000  # 10 MB: several blocks, and several states to go back to
    rng = np.random.default_rng(0)
    images = rng.integers(0, 9, (n_samples, 10, 10)).astype(np.uint8)
    write_idx(images, tmp_path / "a-images-idx3-ubyte.gz")
    write_idx(images[:, 0, 0], tmp_path / "a-labels-idx1-ubyte.gz")
    build(MemoryStore(), tmp_path / "a-images-idx3-ubyte.gz", order=order, level=1)
    assert sum(decoded) == 16 + images.nbytes
