"""MNIST as it comes with the package, against the published facts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import validate
from mnist_zarr.errors import SourceError
from mnist_zarr.formats.idx import IdxFile

COUNTS = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


@pytest.fixture(scope="module")
def mnist() -> xr.Dataset:
    return open_dataset("mnist")


@pytest.mark.parametrize("name", SHA256)
def test_a_bundled_file_is_the_original_byte_for_byte(name: str) -> None:
    assert hashlib.sha256((BUNDLED_FILES / name).read_bytes()).hexdigest() == SHA256[name]
    assert IdxFile(BUNDLED_FILES / name).sha256() == SHA256[name]


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
    assert np.bincount(mnist.label.values).tolist() == COUNTS


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
    assert "CC BY-SA 3.0" in mnist.attrs["license"]
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
