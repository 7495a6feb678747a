"""MNIST against the published facts, the others with small files in the published layout."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.catalog.entries import BUNDLED_FILES, CATALOG
from mnist_zarr.catalog.opening import open_dataset, open_entry
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import validate
from mnist_zarr.errors import SourceError
from mnist_zarr.formats.idx import IdxFile
from tests.support.digits import MNIST_COUNTS, MNIST_GZIP_SHA256
from tests.support.small_copy import N_SAMPLES, SmallCopy

OTHERS = [name for name in CATALOG if name != "mnist"]
EMNIST = [name for name in OTHERS if name.startswith("emnist")]


@pytest.fixture(scope="module")
def mnist() -> xr.Dataset:
    return open_dataset("mnist")


@pytest.mark.parametrize("name", MNIST_GZIP_SHA256)
def test_a_bundled_file_is_the_original_byte_for_byte(name: str) -> None:
    assert (
        hashlib.sha256((BUNDLED_FILES / name).read_bytes()).hexdigest() == MNIST_GZIP_SHA256[name]
    )
    assert IdxFile(BUNDLED_FILES / name).bytes.sha256() == MNIST_GZIP_SHA256[name]


def test_mnist_has_70000_images_of_28_by_28_pixels(mnist: xr.Dataset) -> None:
    assert dict(mnist.sizes) == {"sample": 70_000, "row": 28, "col": 28}
    assert {str(name): var.dtype for name, var in mnist.variables.items()} == {
        "image": np.dtype("uint8"),
        "label": np.dtype("uint8"),
        "split": np.dtypes.StringDType(),
        "source_index": np.dtype("uint32"),
    }
    validate(mnist)


def test_every_digit_is_as_frequent_as_published(mnist: xr.Dataset) -> None:
    assert np.bincount(mnist.label.values).tolist() == MNIST_COUNTS


def test_the_training_part_has_6265_sevens(mnist: xr.Dataset) -> None:
    sevens = (mnist.label.values == 7) & (mnist.split.values == "train")
    assert np.count_nonzero(sevens) == 6265


def test_the_training_samples_stand_before_the_test_samples(mnist: xr.Dataset) -> None:
    assert mnist.split.values.tolist() == ["train"] * 60_000 + ["test"] * 10_000
    assert (mnist.source_index.values == np.arange(70_000)).all()


def test_the_first_digits_of_both_parts_are_the_known_ones(mnist: xr.Dataset) -> None:
    assert mnist.label[:5].values.tolist() == [5, 0, 4, 1, 9]
    assert mnist.label[60_000:60_005].values.tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize(("sample", "file"), [(0, "train"), (59_999, "train"), (60_000, "t10k")])
def test_an_image_of_the_dataset_is_the_row_of_its_file(
    mnist: xr.Dataset, sample: int, file: str
) -> None:
    row = sample % 60_000
    expected = IdxFile(BUNDLED_FILES / f"{file}-images-idx3-ubyte.gz").read_samples(row, row + 1)[0]
    assert (mnist.image[sample].values == expected).all()
    assert expected.max() > 200


def test_the_attributes_say_what_the_data_are_and_who_made_them(mnist: xr.Dataset) -> None:
    assert mnist.attrs["title"] == "MNIST database of handwritten digits"
    assert mnist.attrs["Conventions"] == "CF-1.11 ACDD-1.3"
    assert "CC-BY-SA-3.0" in mnist.attrs["license"]
    assert "LeCun" in mnist.attrs["references"]
    assert "doi:10.1109/5.726791" in mnist.attrs["references"]
    assert mnist.attrs["source"].split(", ") == [
        "train-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    assert "0 is background" in mnist.image.attrs["comment"]
    assert mnist.image.attrs["valid_range"] == [0, 255]


def test_the_ten_classes_are_named_in_cf_flags(mnist: xr.Dataset) -> None:
    assert mnist.label.attrs["flag_values"] == list(range(10))
    assert mnist.label.attrs["flag_meanings"] == "0 1 2 3 4 5 6 7 8 9"
    assert class_names(mnist) == {digit: str(digit) for digit in range(10)}


def test_chunks_make_dask_arrays_of_the_same_values(mnist: xr.Dataset) -> None:
    lazy = open_dataset("mnist", chunks={})
    assert lazy.image.chunks is not None
    assert lazy.attrs == mnist.attrs
    assert lazy.label.attrs == mnist.label.attrs
    assert (lazy.label.values == mnist.label.values).all()
    assert (lazy.image[59_995:60_005].values == mnist.image[59_995:60_005].values).all()


def test_two_openings_do_not_share_their_attributes() -> None:
    first = open_dataset("mnist")
    first.label.attrs["flag_values"].append(10)
    first.attrs["title"] = "changed"
    assert open_dataset("mnist").label.attrs["flag_values"] == list(range(10))
    assert open_dataset("mnist").attrs["title"] == "MNIST database of handwritten digits"


@pytest.mark.parametrize("name", ["MNIST", "emnist", "", "../data"])
def test_an_unknown_name_gets_the_list_of_known_ones(name: str) -> None:
    with pytest.raises(SourceError, match=r"no data set of that name; choose from mnist") as caught:
        open_dataset(name)
    assert repr(name) in str(caught.value)


def test_opening_does_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_dataset("mnist").label[0].item() == 5


@pytest.fixture
def small(request: pytest.FixtureRequest, mirror: Path) -> SmallCopy:
    return SmallCopy(CATALOG[request.param], mirror)


every_data_set = pytest.mark.parametrize("small", OTHERS, indirect=True)


@every_data_set
def test_images_labels_and_splits_are_those_of_the_files(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    validate(ds)
    assert {str(name): var.dtype for name, var in ds.variables.items()}.items() >= {
        "image": np.dtype("uint8"),
        "label": np.dtype("uint8"),
        "split": np.dtypes.StringDType(),
        "source_index": np.dtype("uint32"),
    }.items()
    images = np.concatenate([small.images["train"], small.images["test"]])
    tables = np.concatenate([small.tables["train"], small.tables["test"]])
    assert (ds.image.values == images).all()
    assert (ds.label.values == tables[:, 0]).all()
    assert ds.split.values.tolist() == [s for s, n in N_SAMPLES.items() for _ in range(n)]
    assert ds.source_index.values.tolist() == list(range(sum(N_SAMPLES.values())))


@every_data_set
def test_dask_arrays_have_the_same_values_and_attributes(small: SmallCopy) -> None:
    ds, lazy = open_entry(small.entry), open_entry(small.entry, chunks={})
    assert lazy.image.chunks is not None
    assert lazy.identical(ds)


@every_data_set
def test_a_store_opens_in_plain_xarray_with_the_same_values(
    small: SmallCopy, tmp_path: Path
) -> None:
    mnist_zarr.build(tmp_path / "s.zarr", open_entry(small.entry), order="label", level=1)
    store, ds = xr.open_zarr(tmp_path / "s.zarr"), open_entry(small.entry)
    assert len(store.attrs["source_sha256"]) == 4
    assert set(store.variables) == set(ds.variables)
    by_source = store.isel(sample=np.argsort(store.source_index.values))
    for name in ds.variables:
        assert (by_source[name].values == ds[name].values).all(), name
    assert store.label.attrs["flag_meanings"] == ds.label.attrs["flag_meanings"]


@every_data_set
def test_every_class_is_named_and_selectable_by_its_name(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    names = class_names(ds)
    assert tuple(names.values()) == small.entry.class_names
    assert set(ds.label.values.tolist()) == set(names)
    for value, name in names.items():
        assert set(mnist_zarr.select(ds, label=name).label.values.tolist()) == {value}


@every_data_set
def test_the_attributes_of_the_other_data_sets_say_it_too(small: SmallCopy) -> None:
    attrs = open_entry(small.entry).attrs
    assert attrs["title"] == small.entry.title
    assert attrs["license"]
    assert "arXiv:" in attrs["references"]
    assert len(attrs["source"].split(", ")) == 4


@pytest.mark.parametrize("small", EMNIST, indirect=True)
def test_emnist_is_served_upright_lazily_and_says_so(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert ds.image.attrs["source_dims"] == "sample col row"
    assert not ds.image.variable._in_memory
    assert (ds.image[70].values == small.images["test"][0]).all()
    scattered = ds.image.isel(sample=[109, 3, 71], row=slice(1, None), col=[4, 0])
    upright = np.concatenate([small.images["train"], small.images["test"]])
    assert (scattered.values == upright[[109, 3, 71]][:, 1:][:, :, [4, 0]]).all()


@pytest.mark.parametrize("small", ["k49"], indirect=True)
def test_archives_of_numpy_are_read_lazily(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert not ds.image.variable._in_memory
    assert (ds.image[70].values == small.images["test"][0]).all()


@pytest.mark.parametrize("small", ["emnist-letters"], indirect=True)
def test_letters_are_numbered_from_1(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert ds.label.attrs["flag_values"] == list(range(1, 27))
    assert (ds.label.values.min(), ds.label.values.max()) == (1, 26)
    assert set(mnist_zarr.select(ds, label="Z").label.values.tolist()) == {26}


@pytest.mark.parametrize("small", ["emnist-byclass"], indirect=True)
def test_small_and_capital_letters_are_told_apart(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert set(mnist_zarr.select(ds, label=["a", "B"]).label.values.tolist()) == {36, 11}


@pytest.mark.parametrize("small", ["qmnist"], indirect=True)
def test_qmnist_has_writers_and_series(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    table = np.concatenate([small.tables["train"], small.tables["test"]])
    assert (ds.writer.dtype, ds.series.dtype) == (np.dtype("uint16"), np.dtype("uint8"))
    assert (ds.series.values == table[:, 1]).all()
    assert (ds.writer.values == table[:, 2]).all()
    assert ds.sel(writer=2154).sizes["sample"] == np.count_nonzero(table[:, 2] == 2154) > 0
    students = mnist_zarr.select(ds, series="hsf_4")
    assert students.sizes["sample"] == np.count_nonzero(table[:, 1] == 4)


def test_a_data_set_is_opened_by_its_name(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SmallCopy(CATALOG["k49"], mirror)
    monkeypatch.setitem(CATALOG, "k49", small.entry)
    assert open_dataset("k49").sizes["sample"] == sum(N_SAMPLES.values())
