"""The original IDX files back from any store, all of them or none."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.builder import build
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset import blocks
from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.dataset.selection import select
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import IdxTypeError, OptionError, OutputError, SchemaError, TargetExistsError
from mnist_zarr.files import output
from mnist_zarr.formats import idx_export
from mnist_zarr.formats.idx import read_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import open_npz, write_npz
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.commands import run_command
from tests.support.digits import MNIST_MD5, digits
from tests.support.idx_pairs import pixels, put_pair


def three_splits(seed: int = 0) -> xr.Dataset:
    return digits(60, seed, splits=("train", "test", "val"))


def md5_of_files(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.iterdir()
    }


@pytest.mark.parametrize("order", ["source", "label"])
def test_a_store_of_mnist_gives_back_the_original_files(tmp_path: Path, order: Any) -> None:
    rescale = (-1, 1) if order == "label" else None
    build(tmp_path / "m.zarr", order=order, level=1, rescale=rescale)
    result = run_command(
        "export", tmp_path / "m.zarr", "--to", "idx", "-o", tmp_path / "out" / "idx"
    )
    assert (result.exit_code, result.output) == (0, "")
    assert md5_of_files(tmp_path / "out" / "idx") == MNIST_MD5
    write_idx_files(open_store(tmp_path / "m.zarr"), tmp_path / "dask")
    assert md5_of_files(tmp_path / "dask") == MNIST_MD5


def test_mnist_written_straight_from_its_files_is_mnist(tmp_path: Path) -> None:
    write_idx_files(open_dataset("mnist"), tmp_path)
    assert md5_of_files(tmp_path) == MNIST_MD5


@pytest.mark.parametrize("compress", [False, True])
def test_every_split_has_its_files_and_they_open_as_the_same_dataset(
    tmp_path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SCATTERED_BLOCK_BYTES", 100)
    write_zarr(three_splits(), tmp_path / "d.zarr", order="label", chunk_bytes=60)
    write_idx_files(open_store(tmp_path / "d.zarr"), tmp_path / "idx", compress=compress)
    ending = ".gz" if compress else ""
    assert sorted(os.listdir(tmp_path / "idx")) == sorted(
        f"{word}-{kind}-ubyte{ending}"
        for word in ("train", "t10k", "val")
        for kind in ("images-idx3", "labels-idx1")
    )
    opened = open_idx(tmp_path / "idx")
    parts = [three_splits().sel(split=split) for split in ("train", "test", "val")]
    expected = xr.concat(parts, "sample").drop_vars("source_index")
    xr.testing.assert_equal(opened.drop_vars("source_index").load(), expected)
    if compress:
        for path in (tmp_path / "idx").iterdir():
            assert gzip.decompress(path.read_bytes())[:2] == b"\0\0"


def test_without_split_or_labels_there_are_fewer_files(tmp_path: Path) -> None:
    write_idx_files(three_splits().drop_vars("split"), tmp_path / "a")
    assert sorted(os.listdir(tmp_path / "a")) == ["images-idx3-ubyte", "labels-idx1-ubyte"]
    write_idx_files(three_splits().drop_vars(["split", "label"]), tmp_path / "b")
    assert sorted(os.listdir(tmp_path / "b")) == ["images-idx3-ubyte"]
    np.testing.assert_array_equal(
        read_idx(tmp_path / "b" / "images-idx3-ubyte"), three_splits().image.values
    )


def test_a_selection_is_written_in_source_order(tmp_path: Path) -> None:
    shuffled = three_splits().isel(sample=np.random.default_rng(1).permutation(60))
    chosen = select(shuffled, label=[0, 2], split="train")
    write_idx_files(chosen, tmp_path)
    expected = select(three_splits(), label=[0, 2], split="train")
    assert sorted(os.listdir(tmp_path)) == ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
    xr.testing.assert_equal(
        open_idx(tmp_path).drop_vars("source_index").load(), expected.drop_vars("source_index")
    )


@pytest.mark.parametrize("form", ["floats", "integers", "memory", "pickled"])
def test_a_store_that_opens_rescaled_gives_its_integers(tmp_path: Path, form: str) -> None:
    write_zarr(
        three_splits(), tmp_path / "d.zarr", rescale=(-0.3, 0.7), order="label", chunk_bytes=50
    )
    ds = open_store(tmp_path / "d.zarr", chunks=None if form == "pickled" else "auto")
    if form == "integers":
        ds = xr.open_zarr(tmp_path / "d.zarr", mask_and_scale=False)
    if form == "memory":
        ds = ds.load()
    if form == "pickled":
        ds = pickle.loads(pickle.dumps(ds))
    write_idx_files(ds.isel(sample=slice(5, 55)), tmp_path / "out")
    write_zarr(three_splits(), tmp_path / "raw.zarr", order="label", chunk_bytes=50)
    raw = open_store(tmp_path / "raw.zarr").isel(sample=slice(5, 55))
    write_idx_files(raw, tmp_path / "expected")
    assert md5_of_files(tmp_path / "out") == md5_of_files(tmp_path / "expected")


def test_other_types_have_their_own_names(tmp_path: Path) -> None:
    write_idx_files(rescale(three_splits().drop_vars("split")), tmp_path)
    assert "images-idx3-float" in os.listdir(tmp_path)
    np.testing.assert_array_equal(
        read_idx(tmp_path / "images-idx3-float"), rescale(three_splits()).image, strict=False
    )


def test_existing_files_are_kept_unless_overwriting(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "val-labels-idx1-ubyte").write_text("old")
    with pytest.raises(TargetExistsError, match="val-labels-idx1-ubyte: exists already"):
        write_idx_files(three_splits(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "val-labels-idx1-ubyte"]
    write_idx_files(three_splits(), tmp_path, overwrite=True)
    assert len(os.listdir(tmp_path)) == 7
    assert (tmp_path / "mine.txt").read_text() == "mine"
    valid = three_splits().sel(split="val").label
    np.testing.assert_array_equal(read_idx(tmp_path / "val-labels-idx1-ubyte"), valid)


class DiskFullError(OSError):
    pass


@pytest.mark.parametrize("when", ["writing", "moving"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, overwrite: bool
) -> None:
    folder = tmp_path / "idx"
    if overwrite:
        write_idx_files(three_splits(seed=1).sel(split="train"), folder)
    before = md5_of_files(folder) if overwrite else None
    module, name = (
        (idx_export, "write_blocks") if when == "writing" else (output, "_move_if_absent")
    )
    works, calls = getattr(module, name), []

    def fails_the_fourth_time(*args: Any) -> None:
        if when == "writing" or args[1].parent == folder:
            calls.append(args)
        if len(calls) == 4:
            raise DiskFullError("no space left on device")
        works(*args)

    monkeypatch.setattr(module, name, fails_the_fourth_time)
    with pytest.raises(OutputError, match="no space left on device"):
        write_idx_files(three_splits(), folder, overwrite=overwrite)
    if overwrite:
        assert md5_of_files(folder) == before
    else:
        assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "folder", "error", "message"),
    [
        (lambda ds: ds.drop_vars("image"), "x", SchemaError, "needs 'image'"),
        (lambda ds: ds.image, "x", SchemaError, "expected an xarray.Dataset"),
        (
            lambda ds: ds.assign_coords(label=ds.label.astype("int64")),
            "x",
            IdxTypeError,
            "labels: IDX cannot hold int64; convert",
        ),
        (
            lambda ds: ds.assign_coords(label=ds.label.astype(STRING_DTYPE)),
            "x",
            IdxTypeError,
            r"labels: IDX cannot hold StringDType\(\); convert",
        ),
        (lambda ds: ds, "file", TargetExistsError, "file: is a file; expected a folder"),
        (lambda ds: ds, "s3://bucket/x", OptionError, "expected a local folder, got a URL"),
        (
            lambda ds: ds.assign_coords(split=("sample", ["a/b"] * 60)),
            "x",
            SchemaError,
            "cannot be part of a file name",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    folder: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        write_idx_files(change(three_splits()), folder)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("splits", [("test", "t10k"), ("train", "Train")])
def test_splits_whose_files_would_have_one_name_are_refused(
    tmp_path: Path, splits: tuple[str, str]
) -> None:
    with pytest.raises(SchemaError, match=r"split: '\w+' and '\w+' would both be written as"):
        write_idx_files(digits(splits=splits), tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


@pytest.mark.parametrize("split", [np.arange(60) % 2, np.array(["train", None] * 30, object)])
def test_splits_that_are_no_strings_are_refused_and_none_is_lost(
    tmp_path: Path, split: Any
) -> None:
    ds = digits().assign_coords(split=("sample", split))
    for write in (write_idx_files, write_npz):
        with pytest.raises(SchemaError, match="'split': expected strings"):
            write(ds, tmp_path / "out")


@pytest.mark.parametrize("prefix", ["my data", "a:b", "T-shirts (1)", "naïve"])
def test_what_a_folder_builds_can_be_exported(tmp_path: Path, prefix: str) -> None:
    put_pair(tmp_path, prefix, pixels(6, 4, 4), pixels(6))
    ds = open_idx(tmp_path)
    split = str(ds.split.values[0])
    write_idx_files(ds, tmp_path / "idx")
    write_npz(ds, tmp_path / "a.npz")
    for back in (open_idx(tmp_path / "idx"), open_npz(tmp_path / "a.npz")):
        assert back.sizes["sample"] == 6
    assert set(open_npz(tmp_path / "a.npz").split.values) == {split}


def test_a_split_of_several_words_can_be_exported(tmp_path: Path) -> None:
    ds = digits(6, splits=("my data train",))
    write_idx_files(ds, tmp_path)
    assert "my data train-images-idx3-ubyte" in os.listdir(tmp_path)
    assert set(open_idx(tmp_path).split.values) == {"train"}
