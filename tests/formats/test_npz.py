"""NumPy's archives: written for numpy.load, opened lazily from ours and others."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.builder import build
from mnist_zarr.dataset import blocks
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import (
    NpzFormatError,
    SchemaError,
    SourceError,
    SourceNotFoundError,
    TargetExistsError,
)
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.npz import open_npz, write_npz
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.archives import IMAGES, SAVE, archive_of, check_is_refused, zip_of
from tests.support.digits import square_digits, tutorial_scaling

if TYPE_CHECKING:
    from tests.conftest import Serve


def load(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def expected_arrays(ds: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for split in ("train", "test"):
        part = ds.isel(sample=ds.split.values == split)
        arrays[f"X_{split}"] = tutorial_scaling(part.image.values).reshape(-1, 16)
        arrays[f"y_{split}"] = part.label.values
    return arrays


def assert_same_arrays(
    one: dict[str, npt.NDArray[Any]], other: dict[str, npt.NDArray[Any]]
) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], strict=True)


def test_the_archive_equals_that_of_the_tutorial_bit_for_bit(tmp_path: Path) -> None:
    write_npz(square_digits(60), tmp_path / "d.npz")
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(square_digits(60)))


def test_raw_bytes_and_images_are_written_on_request(tmp_path: Path) -> None:
    write_npz(square_digits(60), tmp_path / "d.npz", scaled=False, flat=False)
    arrays = load(tmp_path / "d.npz")
    test = square_digits(60).isel(sample=square_digits(60).split.values == "test")
    np.testing.assert_array_equal(arrays["X_test"], test.image.values, strict=True)
    np.testing.assert_array_equal(arrays["y_test"], test.label.values, strict=True)


@pytest.mark.parametrize("rescale", [None, (-1, 1), (0, 2)])
@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("chunks", ["auto", None])
def test_samples_are_in_source_order_from_any_store(
    tmp_path: Path, order: Any, rescale: Any, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(
        square_digits(60), tmp_path / "d.zarr", order=order, rescale=rescale, chunk_bytes=100
    )
    for name in ("BLOCK_BYTES", "SCATTERED_BLOCK_BYTES"):
        monkeypatch.setattr(blocks, name, 1000)
    write_npz(open_store(tmp_path / "d.zarr", chunks=chunks), tmp_path / "d.npz")
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(square_digits(60)))


def test_without_a_split_or_labels_the_names_are_shorter(tmp_path: Path) -> None:
    write_npz(square_digits(60).drop_vars("split"), tmp_path / "a.npz", scaled=False)
    assert list(load(tmp_path / "a.npz")) == ["X", "y"]
    write_npz(square_digits(60).drop_vars(["split", "label"]), tmp_path / "b.npz", scaled=False)
    assert list(load(tmp_path / "b.npz")) == ["X"]
    assert load(tmp_path / "b.npz")["X"].shape == (60, 16)


def test_a_selection_and_an_empty_dataset_are_written(tmp_path: Path) -> None:
    chosen = square_digits(60).isel(sample=[41, 7, 30])
    write_npz(chosen, tmp_path / "d.npz")
    assert_same_arrays(
        load(tmp_path / "d.npz"),
        {
            name: array
            for name, array in expected_arrays(square_digits(60).isel(sample=[7, 30, 41])).items()
            if len(array)
        },
    )
    write_npz(square_digits(0).drop_vars("split"), tmp_path / "e.npz")
    assert load(tmp_path / "e.npz")["X"].shape == (0, 16)
    assert open_npz(tmp_path / "e.npz").image.shape == (0, 4, 4)


def test_equal_data_give_equal_files(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_npz(square_digits(60), tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_archive_can_be_written_to_a_url_and_opened_from_one(
    memory_url: str, serve: Serve, tmp_path: Path
) -> None:
    write_npz(square_digits(60), f"{memory_url}/d.npz")
    write_npz(square_digits(60), tmp_path / "d.npz")
    url = serve("/d.npz", (tmp_path / "d.npz").read_bytes())
    local = open_npz(tmp_path / "d.npz").load()
    xr.testing.assert_identical(open_npz(f"{memory_url}/d.npz").load(), local)
    xr.testing.assert_identical(open_npz(url).load(), local)


def test_an_existing_file_is_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    write_npz(square_digits(60), tmp_path / "d.npz")
    before = (tmp_path / "d.npz").read_bytes()
    with pytest.raises(TargetExistsError):
        write_npz(square_digits(60, seed=1), tmp_path / "d.npz")
    assert (tmp_path / "d.npz").read_bytes() == before
    write_npz(square_digits(60, seed=1), tmp_path / "d.npz", overwrite=True)
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(square_digits(60, seed=1)))
    write_idx(np.zeros((5000, 30, 30), np.uint8), tmp_path / "a-images-idx3-ubyte")
    lazy = xr.open_dataset(tmp_path / "a-images-idx3-ubyte")
    os.truncate(tmp_path / "a-images-idx3-ubyte", 5000)
    with pytest.raises(ValueError, match="changed while it was being read"):
        write_npz(lazy, tmp_path / "e.npz")
    assert sorted(os.listdir(tmp_path)) == ["a-images-idx3-ubyte", "d.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("image"), "needs 'image'"),
        (lambda ds: ds.image, "expected an xarray.Dataset"),
        (lambda ds: ds.assign_coords(label=ds.label / 2), "label: expected integers, got float64"),
        (lambda ds: ds.assign(image=(ds.image / 2).drop_attrs()), "float64 values is not known"),
        (
            lambda ds: ds.assign_coords(split=("sample", ["../x"] * 60)),
            r"split: '\.\./x' cannot be part of a file name",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        write_npz(change(square_digits(60)), tmp_path / "d.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("names", [("X_train", "y_train", "X_test", "y_test"), ("X", "y")])
def test_our_names_those_of_keras_and_flat_rows_are_opened(
    tmp_path: Path, kind: str, names: tuple[str, ...]
) -> None:
    ds = square_digits(60)
    rows = {"train": slice(0, 40), "test": slice(40, 60), "X": slice(0, 60), "y": slice(0, 60)}
    arrays: dict[str, Any] = {}
    for name in reversed(names):  # the order in the file does not matter
        values = ds.image.values if name.startswith("X") else ds.label.values
        arrays[name] = values[rows[name.split("_")[-1]]]
    for variant in ("keras", "flat"):
        saved = {
            name.lower() if variant == "keras" else name: array
            if variant == "keras" or array.ndim == 1
            else array.reshape(-1, 16)
            for name, array in arrays.items()
        }
        SAVE[kind](tmp_path / "d.npz", **saved)
        opened = open_npz(tmp_path / "d.npz")
        assert not opened.image.variable._in_memory
        np.testing.assert_array_equal(opened.image, ds.image, strict=False)
        np.testing.assert_array_equal(opened.label, ds.label)
        assert (opened.image.dtype, opened.label.dtype) == (np.uint8, np.uint8)
        assert opened.image.dims == ("sample", "row", "col")
        np.testing.assert_array_equal(opened.source_index, np.arange(60))
        if "X" in names:
            assert "split" not in opened.coords
        else:
            assert opened.split.values.tolist() == ["train"] * 40 + ["test"] * 20
        assert opened.attrs["source"] == "d.npz"


def medmnist() -> dict[str, npt.NDArray[Any]]:
    """Arrays as in MedMNIST's files, in their order: three splits, labels of one column."""
    ds = square_digits(60)
    rows = {"train": slice(0, 30), "val": slice(30, 40), "test": slice(40, 60)}
    arrays = {f"{split}_images": ds.image.values[of] for split, of in rows.items()}
    return arrays | {
        f"{split}_labels": ds.label.values[of][:, np.newaxis] for split, of in rows.items()
    }


@pytest.mark.parametrize("kind", SAVE)
def test_the_arrays_of_medmnist_are_opened(tmp_path: Path, kind: str) -> None:
    arrays = medmnist()
    SAVE[kind](tmp_path / "toymnist.npz", **arrays)
    opened = open_npz(tmp_path / "toymnist.npz")
    for split in ("train", "val", "test"):
        part = opened.isel(sample=opened.split.values == split)
        np.testing.assert_array_equal(part.image, arrays[f"{split}_images"])
        np.testing.assert_array_equal(part.label, arrays[f"{split}_labels"][:, 0])
    build(tmp_path / "t.zarr", tmp_path / "toymnist.npz", order="label")
    assert xr.open_zarr(tmp_path / "t.zarr").label.dtype == np.uint8


@pytest.mark.parametrize(
    "names",
    [
        *(("images", "labels"), ("data", "target"), ("image", "label"), ("arr_0", "arr_1")),
        *(("training_images", "training_labels"), ("data_test", "target_test")),
    ],
)
def test_other_usual_names_of_images_and_labels_are_opened(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    ds = square_digits(60)
    np.savez(tmp_path / "d.npz", **dict(zip(names, (ds.image, ds.label), strict=True)))
    opened = open_npz(tmp_path / "d.npz")
    np.testing.assert_array_equal(opened.image, ds.image)
    np.testing.assert_array_equal(opened.label, ds.label)
    split = {"training_images": {"train"}, "data_test": {"test"}}.get(names[0])
    assert ("split" in opened.coords and set(opened.split.values)) == (split or False)


def test_what_only_looks_like_labels_is_passed_over(tmp_path: Path) -> None:
    ds = square_digits(6)
    names = np.array(["zero", "one"])
    np.savez(tmp_path / "d.npz", images=ds.image, labels=ds.label, label_names=names)
    np.testing.assert_array_equal(open_npz(tmp_path / "d.npz").label, ds.label)


def test_images_that_are_not_square_or_in_colour_keep_their_shape(tmp_path: Path) -> None:
    for shape in ((3, 4, 4, 3), (3, 4, 9)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        write_npz(make_dataset(image), tmp_path / "a.npz", scaled=False, overwrite=True)
        np.testing.assert_array_equal(open_npz(tmp_path / "a.npz").image, image)
        write_npz(make_dataset(image), tmp_path / "b.npz", flat=True, overwrite=True)
        assert load(tmp_path / "b.npz")["X"].shape == (3, image[0].size)


def test_single_arrays_as_of_kmnist_are_images_or_labels(tmp_path: Path) -> None:
    ds = square_digits(60)
    np.savez_compressed(tmp_path / "imgs.npz", ds.image.values)
    np.savez_compressed(tmp_path / "labels.npz", ds.label.values)
    both = open_npz(tmp_path / "imgs.npz", labels=tmp_path / "labels.npz")
    np.testing.assert_array_equal(both.image, ds.image)
    np.testing.assert_array_equal(both.label, ds.label)
    assert both.attrs["source"] == "imgs.npz, labels.npz"
    assert set(open_npz(tmp_path / "imgs.npz").variables) == {"image", "source_index"}
    alone = open_npz(tmp_path / "labels.npz")
    np.testing.assert_array_equal(alone.label, ds.label)
    assert "image" not in alone


def test_what_was_written_is_opened_again_as_dask_or_without(tmp_path: Path) -> None:
    write_npz(square_digits(60), tmp_path / "d.npz", scaled=False)
    in_order = xr.concat([square_digits(60).sel(split=s) for s in ("train", "test")], "sample")
    for chunks in (None, cast(Any, {})):
        opened = open_npz(tmp_path / "d.npz", chunks=chunks)
        assert (opened.image.chunks is None) == (chunks is None)
        for name in ("image", "label", "split"):
            np.testing.assert_array_equal(opened[name], in_order[name])
    with open(tmp_path / "d.npz", "rb") as file:
        np.testing.assert_array_equal(open_npz(file).image, in_order.image)


@given(
    array=hnp.arrays(
        st.sampled_from(["u1", "i2", ">i4", "f4", ">f8", "bool", "u8"]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4),
        fill=st.nothing(),
    ),
    save=st.sampled_from(sorted(SAVE)),
    key=st.lists(st.integers(0, 1000), max_size=8).map(lambda key: np.array(key, "i8")),
)
def test_any_array_of_numbers_comes_back(
    array: npt.NDArray[Any], save: str, key: npt.NDArray[Any]
) -> None:
    file = io.BytesIO()
    SAVE[save](file, array)
    file.seek(0)
    opened = open_npz(file).image
    assert opened.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(opened.values.reshape(array.shape), array)
    if len(array):
        rows = key % len(array)
        np.testing.assert_array_equal(
            opened[rows].values.reshape(len(rows), *array.shape[1:]), array[rows]
        )


def test_a_dataset_of_an_archive_travels_to_another_process(tmp_path: Path) -> None:
    for kind, save in SAVE.items():
        save(tmp_path / f"{kind}.npz", X=square_digits(60).image.values)
        opened = open_npz(tmp_path / f"{kind}.npz")
        opened.image[3].load()
        again = pickle.loads(pickle.dumps(opened))
        np.testing.assert_array_equal(again.image, square_digits(60).image)


@pytest.mark.parametrize(
    ("archive", "error", "message"),
    [
        (zip_of("readme.txt", b"hello"), NpzFormatError, "expected arrays X_train, .*got no array"),
        (archive_of(a=IMAGES, b=IMAGES), NpzFormatError, "X, y, .* or arr_0, arr_1; got a, b"),
        (archive_of(images=IMAGES, data=IMAGES), NpzFormatError, "same role and split as"),
        (archive_of(X=IMAGES, x=IMAGES), NpzFormatError, "same role and split as"),
        (archive_of(X=np.zeros(5)), NpzFormatError, r"expected images .*got shape \(5,\)"),
        (archive_of(X=IMAGES, y=np.zeros(5)), NpzFormatError, "integer type, .*float64"),
        (
            archive_of(X=IMAGES, y=np.full((5, 10), 2, "u1")),
            NpzFormatError,
            r"expected labels of shape \(sample,\) .*got shape \(5, 10\)",
        ),
        (
            archive_of(X=IMAGES, y=np.eye(10, dtype="f4")[[0, 3, 1, 9, 3]]),
            SourceError,
            r"y\.npy: .* a table of 10 columns .*one-hot encoding.*argmax",
        ),
        (
            archive_of(X=IMAGES, y=np.ones((5, 14), "u1")),
            SourceError,
            r"y\.npy: .* a table of 14 columns .*a single one in some rows",
        ),
        (
            archive_of(X=IMAGES, y=np.zeros(4, np.uint8)),
            SourceError,
            r"differ in number: 5 images in .*X\.npy, 4 labels in .*y\.npy",
        ),
        (
            archive_of(X_train=IMAGES, y_test=np.zeros(5, np.uint8)),
            SourceError,
            "images of train, labels of test",
        ),
        (archive_of(y=np.zeros(5, "u1")), SourceError, "images of none, labels of no split"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    archive: io.BytesIO, error: type[Exception], message: str, tmp_path: Path
) -> None:
    check_is_refused(archive, tmp_path, error, message)


def test_what_is_no_file_raises_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="there is no such file"):
        open_npz(tmp_path / "none.npz")
    with pytest.raises(SourceError, match="expected a file, got a folder"):
        open_npz(tmp_path)
    np.savez(tmp_path / "a.npz", X=IMAGES, y=np.zeros(5, np.uint8))
    with pytest.raises(SourceError, match="has its own"):
        open_npz(tmp_path / "a.npz", labels=tmp_path / "a.npz")


def test_a_pipe_is_refused_since_the_directory_is_at_the_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb") as end:
        end.write(archive_of(X=IMAGES).getvalue())
        end.close()
        with pytest.raises(SourceError, match="directory at the end, which cannot be reached"):
            open_npz(pipe)


def test_big_endian_images_are_written_in_native_order(tmp_path: Path) -> None:
    image = np.arange(-8, 8, dtype=">i2").reshape(4, 2, 2)
    write_npz(make_dataset(image), tmp_path / "a.npz", scaled=False, flat=False)
    np.testing.assert_array_equal(load(tmp_path / "a.npz")["X"], image.astype("i2"), strict=True)


def test_an_archive_is_a_source_of_a_store(tmp_path: Path) -> None:
    write_npz(square_digits(60), tmp_path / "d.npz", scaled=False)
    build(tmp_path / "a.zarr", tmp_path / "d.npz")
    (tmp_path / "no-ending").write_bytes((tmp_path / "d.npz").read_bytes())
    build(tmp_path / "b.zarr", tmp_path / "no-ending")
    sha256 = hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()
    for name in ("a.zarr", "b.zarr"):
        opened = xr.open_zarr(tmp_path / name)
        np.testing.assert_array_equal(opened.image, open_npz(tmp_path / "d.npz").image)
        assert opened.split.values.tolist() == sorted(square_digits(60).split.values, reverse=True)
        (line,) = opened.attrs["source_sha256"]
        assert line == f"{sha256}  {opened.attrs['source']}"
