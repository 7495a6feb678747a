"""NumPy's archives: written for numpy.load, opened lazily from ours and others."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.builder import build
from mnist_zarr.cli import main
from mnist_zarr.dataset import blocks
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.errors import (
    FileFormatError,
    NpzFormatError,
    SchemaError,
    SourceError,
    SourceNotFoundError,
    TargetExistsError,
)
from mnist_zarr.files import zip_source
from mnist_zarr.files.gzip_source import GzipSource
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.npz import open_npz, write_npz
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr

if TYPE_CHECKING:
    from tests.conftest import Serve


def digits(n_samples: int = 60, seed: int = 0) -> xr.Dataset:
    """Training and test samples mixed."""
    rng = np.random.default_rng(seed)
    return make_dataset(
        rng.integers(0, 256, (n_samples, 4, 4)).astype(np.uint8),
        label=rng.integers(0, 3, n_samples).astype(np.uint8),
        split=np.where(rng.random(n_samples) < 0.7, "train", "test").astype(STRING_DTYPE),
        source_index=np.arange(n_samples, dtype=np.uint32),
    )


def load(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def tutorial(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = ((x / 255.0) - 0.5) * 2
    return scaled


def expected_arrays(ds: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for split in ("train", "test"):
        part = ds.isel(sample=ds.split.values == split)
        arrays[f"X_{split}"] = tutorial(part.image.values).reshape(-1, 16)
        arrays[f"y_{split}"] = part.label.values
    return arrays


def assert_same_arrays(
    one: dict[str, npt.NDArray[Any]], other: dict[str, npt.NDArray[Any]]
) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], strict=True)


def test_the_archive_is_that_of_the_tutorial_bit_for_bit(tmp_path: Path) -> None:
    write_npz(digits(), tmp_path / "d.npz")
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(digits()))


def test_raw_bytes_and_images_are_written_on_request(tmp_path: Path) -> None:
    write_npz(digits(), tmp_path / "d.npz", scaled=False, flat=False)
    arrays = load(tmp_path / "d.npz")
    test = digits().isel(sample=digits().split.values == "test")
    np.testing.assert_array_equal(arrays["X_test"], test.image.values, strict=True)
    np.testing.assert_array_equal(arrays["y_test"], test.label.values, strict=True)


@pytest.mark.parametrize("rescale", [None, (-1, 1), (0, 2)])
@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("chunks", ["auto", None])
def test_samples_are_in_source_order_from_any_store(
    tmp_path: Path, order: Any, rescale: Any, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", order=order, rescale=rescale, chunk_bytes=100)
    for name in ("BLOCK_BYTES", "SCATTERED_BLOCK_BYTES"):
        monkeypatch.setattr(blocks, name, 1000)
    write_npz(open_store(tmp_path / "d.zarr", chunks=chunks), tmp_path / "d.npz")
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(digits()))


def test_without_a_split_or_labels_the_names_are_shorter(tmp_path: Path) -> None:
    write_npz(digits().drop_vars("split"), tmp_path / "a.npz", scaled=False)
    assert list(load(tmp_path / "a.npz")) == ["X", "y"]
    write_npz(digits().drop_vars(["split", "label"]), tmp_path / "b.npz", scaled=False)
    assert list(load(tmp_path / "b.npz")) == ["X"]
    assert load(tmp_path / "b.npz")["X"].shape == (60, 16)


def test_a_selection_and_an_empty_dataset_are_written(tmp_path: Path) -> None:
    chosen = digits().isel(sample=[41, 7, 30])
    write_npz(chosen, tmp_path / "d.npz")
    assert_same_arrays(
        load(tmp_path / "d.npz"),
        {
            name: array
            for name, array in expected_arrays(digits().isel(sample=[7, 30, 41])).items()
            if len(array)
        },
    )
    write_npz(digits(0).drop_vars("split"), tmp_path / "e.npz")
    assert load(tmp_path / "e.npz")["X"].shape == (0, 16)
    assert open_npz(tmp_path / "e.npz").image.shape == (0, 4, 4)


def test_equal_data_give_equal_files(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_npz(digits(), tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_archive_can_be_written_to_a_url_and_opened_from_one(
    memory_url: str, serve: Serve, tmp_path: Path
) -> None:
    write_npz(digits(), f"{memory_url}/d.npz")
    write_npz(digits(), tmp_path / "d.npz")
    url = serve("/d.npz", (tmp_path / "d.npz").read_bytes())
    local = open_npz(tmp_path / "d.npz").load()
    xr.testing.assert_identical(open_npz(f"{memory_url}/d.npz").load(), local)
    xr.testing.assert_identical(open_npz(url).load(), local)


def test_an_existing_file_is_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    write_npz(digits(), tmp_path / "d.npz")
    before = (tmp_path / "d.npz").read_bytes()
    with pytest.raises(TargetExistsError):
        write_npz(digits(seed=1), tmp_path / "d.npz")
    assert (tmp_path / "d.npz").read_bytes() == before
    write_npz(digits(seed=1), tmp_path / "d.npz", overwrite=True)
    assert_same_arrays(load(tmp_path / "d.npz"), expected_arrays(digits(seed=1)))
    write_idx(np.zeros((5000, 30, 30), np.uint8), tmp_path / "a-images-idx3-ubyte")
    lazy = xr.open_dataset(tmp_path / "a-images-idx3-ubyte")
    os.truncate(tmp_path / "a-images-idx3-ubyte", 5000)
    with pytest.raises(ValueError, match="changed while it was being read"):
        write_npz(lazy, tmp_path / "e.npz")
    assert sorted(os.listdir(tmp_path)) == ["a-images-idx3-ubyte", "d.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("image"), "no 'image'"),
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
        write_npz(change(digits()), tmp_path / "d.npz")
    assert os.listdir(tmp_path) == []


SAVE = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("names", [("X_train", "y_train", "X_test", "y_test"), ("X", "y")])
def test_our_names_those_of_keras_and_flat_rows_are_opened(
    tmp_path: Path, kind: str, names: tuple[str, ...]
) -> None:
    ds = digits()
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


def test_single_arrays_as_of_kmnist_are_images_or_labels(tmp_path: Path) -> None:
    ds = digits()
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
    write_npz(digits(), tmp_path / "d.npz", scaled=False)
    in_order = xr.concat([digits().sel(split=s) for s in ("train", "test")], "sample")
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
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=6),
    ),
    save=st.sampled_from(sorted(SAVE)),
    key=hnp.arrays("i8", st.integers(0, 8), elements=st.integers(0, 1000)),
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
        save(tmp_path / f"{kind}.npz", X=digits().image.values)
        opened = open_npz(tmp_path / f"{kind}.npz")
        opened.image[3].load()
        again = pickle.loads(pickle.dumps(opened))
        np.testing.assert_array_equal(again.image, digits().image)


def archive_of(**arrays: Any) -> io.BytesIO:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)
    file.seek(0)
    return file


def zip_of(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zip_file:
        zip_file.writestr(name, data)
    file.seek(0)
    return file


def npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


IMAGES = np.zeros((5, 4, 4), np.uint8)


def two_members(damage: Callable[[bytes], bytes]) -> io.BytesIO:
    """Return an archive of X.npy and y.npy, stored, with some damage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zip_file:
        zip_file.writestr("X.npy", npy(IMAGES))
        zip_file.writestr("y.npy", npy(np.zeros(5, np.uint8)))
    return io.BytesIO(damage(file.getvalue()))


def set_in_directory(data: bytes, offset: int, value: int) -> bytes:
    """Set four bytes in the entry of the first member."""
    place = data.index(b"PK\1\2") + offset
    return data[:place] + value.to_bytes(4, "little") + data[place + 4 :]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: io.BytesIO(b"not a zip archive"), FileFormatError, "not a whole zip archive"),
        (lambda: io.BytesIO(b""), FileFormatError, "not a whole zip archive"),
        (lambda: zip_of("readme.txt", b"hello"), NpzFormatError, "expected arrays X_train, .*hold"),
        (lambda: archive_of(a=IMAGES, b=IMAGES), NpzFormatError, "X, y, or arr_0; it holds a, b"),
        (
            lambda: archive_of(X=np.array([{}, 3], object)),
            NpzFormatError,
            r"X\.npy: holds Python objects, which would have to be unpickled",
        ),
        (lambda: archive_of(X=np.array([["a", "b"]])), NpzFormatError, "expected numbers, got <U1"),
        (
            lambda: archive_of(X=np.asfortranarray(np.zeros((5, 4, 3)))),
            NpzFormatError,
            r"in Fortran order.*numpy\.ascontiguousarray",
        ),
        (
            lambda: archive_of(X=IMAGES, y=np.zeros(4, np.uint8)),
            SourceError,
            r"differ in number: 5 images in .*X\.npy, 4 labels in .*y\.npy",
        ),
        (
            lambda: archive_of(X_train=IMAGES, y_test=np.zeros(5, np.uint8)),
            SourceError,
            "images of train, labels of test",
        ),
        (lambda: archive_of(y=np.zeros(5, "u1")), SourceError, "images of none, labels of no spl"),
        (lambda: archive_of(X=IMAGES, x=IMAGES), NpzFormatError, "the case of its letters"),
        (lambda: archive_of(X=np.zeros(5)), NpzFormatError, r"expected images .*got shape \(5,\)"),
        (lambda: archive_of(X=IMAGES, y=np.zeros(5)), NpzFormatError, "integer type, .*float64"),
        (
            lambda: archive_of(X=IMAGES, y=np.zeros((5, 10), "u1")),
            NpzFormatError,
            r"expected labels of shape \(sample,\) .*got shape \(5, 10\)",
        ),
        (
            lambda: two_members(lambda data: data.replace(b"y.npy", b"X.npy")),
            FileFormatError,
            r"X\.npy: there are two members of this name",
        ),
        (
            lambda: two_members(lambda data: set_in_directory(data, 20, data.index(b"PK\1\2"))),
            FileFormatError,
            r"X\.npy: .* says bytes 0 to 441 or more, but other contents begin at byte 243",
        ),
        (
            lambda: two_members(lambda data: set_in_directory(data, 24, 2**31)),
            FileFormatError,
            r"X\.npy: stored as it is, 2,147,483,648 bytes in 208",
        ),
        (
            lambda: two_members(lambda data: set_in_directory(data, 8, 1 << 5)),
            FileFormatError,
            r"X\.npy: encrypted or a patch",
        ),
        (
            lambda: zip_of("X.npy", npy(IMAGES).replace(b"(5, 4, 4)", b"(5, -4,4)")),
            NpzFormatError,
            r"X\.npy: no array can have the shape \(5, -4, 4\)",
        ),
        (
            lambda: zip_of("X.npy", npy(IMAGES[:, :0]).replace(b"(5, 0", b"(3**9, 0")),
            NpzFormatError,
            r"X\.npy: not a \.npy file",
        ),
        (lambda: zip_of("X.npy", b"hello"), NpzFormatError, r"X\.npy: not a \.npy file"),
        (lambda: zip_of("X.npy", b"\x93NUMPY\x03\x00"), NpzFormatError, "format .3, 0."),
        (
            lambda: zip_of("X.npy", npy(IMAGES)[:-7]),
            NpzFormatError,
            r"shape \(5, 4, 4\) of uint8 needs 208 bytes, got 201",
        ),
        (lambda: zip_of("X.npy", npy(IMAGES) + b"more"), NpzFormatError, "needs 208 .*got 212"),
        (
            lambda: zip_of("X.npy", npy(IMAGES), zipfile.ZIP_LZMA),
            FileFormatError,
            r"method 14; expected 0 \(stored\) or 8",
        ),
    ],
)
def test_bad_archives_are_named_errors(
    make: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.npz").write_bytes(make().getvalue())
    with pytest.raises(error, match=message) as caught:
        open_npz(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)
    with pytest.raises(error, match=message):
        build(tmp_path / "x.zarr", tmp_path / "bad.npz")
    assert os.listdir(tmp_path) == ["bad.npz"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    np.savez(tmp_path / "bomb.npz", X=np.array([Bomb()], object))
    with pytest.raises(NpzFormatError, match="unpickled"):
        open_npz(tmp_path / "bomb.npz")
    assert os.listdir(tmp_path) == ["bomb.npz"]


def test_what_is_no_file_is_a_named_error(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", SAVE)
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 9, (40, 4, 4)).astype(np.uint8)
    SAVE[kind](tmp_path / "good.npz", X=image)
    good = (tmp_path / "good.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.npz") as zip_file:
        first = zip_file.infolist()[0]
    data_end = 30 + len("X.npy") + 20 + first.compress_size  # numpy adds 20 bytes of zip64
    rng = np.random.default_rng(1)
    for place in [0, 1, 7, 30, *rng.integers(55, data_end, 60).tolist()]:
        damaged = bytearray(good)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.npz").write_bytes(damaged)
        try:
            read = open_npz(tmp_path / "bad.npz").image.values
        except FileFormatError:
            pass
        else:  # a field of the local header that the directory has too
            assert place <= 30
            np.testing.assert_array_equal(read, image)
    for length in rng.integers(0, len(good), 20).tolist():
        (tmp_path / "bad.npz").write_bytes(good[:length])
        with pytest.raises(FileFormatError, match=r"bad\.npz"):
            open_npz(tmp_path / "bad.npz")


def test_a_length_in_the_directory_that_cannot_be_is_refused() -> None:
    good = zip_of("X.npy", npy(IMAGES)).getvalue()
    directory = directory_entry(good)
    bad = bytearray(good)
    bad[directory + 24 : directory + 28] = (2**31).to_bytes(4, "little")
    with pytest.raises(FileFormatError, match="deflated bytes cannot hold 2,147,483,648"):
        open_npz(io.BytesIO(bytes(bad)))


def directory_entry(data: bytes | bytearray) -> int:
    """Return where the last entry of the directory of a zip archive is."""
    return data.rindex(b"PK\x01\x02")


@pytest.mark.parametrize("kind", SAVE)
def test_a_wrong_checksum_is_noticed_at_the_end(tmp_path: Path, kind: str) -> None:
    SAVE[kind](tmp_path / "a.npz", X=np.zeros((3000, 8, 8), np.uint8))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[directory_entry(data) + 16] ^= 1  # of the CRC-32
    (tmp_path / "a.npz").write_bytes(data)
    image = open_npz(tmp_path / "a.npz").image
    image[:2000].load()
    with pytest.raises(FileFormatError, match=r"a\.npz: X\.npy: (checksum|damaged deflate data)"):
        image[2000:].load()


def test_bytes_beyond_the_length_in_the_directory_are_noticed() -> None:
    whole = npy(np.zeros((3000, 8, 8), np.uint8))
    data = bytearray(zip_of("X.npy", whole + b"more").getvalue())
    size = directory_entry(data) + 24
    data[size : size + 4] = len(whole).to_bytes(4, "little")
    with pytest.raises(NpzFormatError, match="expected 192,128 bytes, got more"):
        open_npz(io.BytesIO(bytes(data))).load()


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zip_of("X.npy", npy(IMAGES)).getvalue())
    data[directory_entry(data) + 8] |= 1
    with pytest.raises(FileFormatError, match=r"X\.npy: encrypted"):
        open_npz(io.BytesIO(bytes(data)))


def test_big_endian_images_are_written_in_native_order(tmp_path: Path) -> None:
    image = np.arange(-8, 8, dtype=">i2").reshape(4, 2, 2)
    write_npz(make_dataset(image), tmp_path / "a.npz", scaled=False, flat=False)
    np.testing.assert_array_equal(load(tmp_path / "a.npz")["X"], image.astype("i2"), strict=True)


def test_members_are_read_at_any_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GzipSource, "FIRST_SPACING_BYTES", 5000)
    data = np.random.default_rng(2).integers(0, 4, 100_000).astype(np.uint8).tobytes()
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        (tmp_path / "a.zip").write_bytes(zip_of("folder/data", data, method).getvalue())
        (member,) = zip_source.zip_members(open_bytes(tmp_path / "a.zip")).values()
        rng = np.random.default_rng(3)
        for offset, count in rng.integers(0, 100_000, (40, 2)).tolist():
            assert member.read(offset, count) == data[offset : offset + count]
        assert member.read(100_000, 5) == b""
        assert member.sha256() == open_bytes(tmp_path / "a.zip").sha256()


def test_an_archive_is_a_source_of_a_store(tmp_path: Path) -> None:
    write_npz(digits(), tmp_path / "d.npz", scaled=False)
    build(tmp_path / "a.zarr", tmp_path / "d.npz")
    (tmp_path / "no-ending").write_bytes((tmp_path / "d.npz").read_bytes())
    args = ["build", str(tmp_path / "b.zarr"), "--source", str(tmp_path / "no-ending")]
    assert CliRunner().invoke(main, args).exit_code == 0
    sha256 = hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()
    for name in ("a.zarr", "b.zarr"):
        opened = xr.open_zarr(tmp_path / name)
        np.testing.assert_array_equal(opened.image, open_npz(tmp_path / "d.npz").image)
        assert opened.split.values.tolist() == sorted(digits().split.values, reverse=True)
        (line,) = opened.attrs["source_sha256"]
        assert line == f"{sha256}  {opened.attrs['source']}"


PEAK = """
import json, sys
from mnist_zarr import open_npz, open_store, write_npz, build
what, source, target = sys.argv[1:]
write_npz, open_npz, build  # imported now
def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024
if what == "build":
    before = peak()
    build(target, source, level=1, order="label")
else:
    ds = open_store(source, chunks=None if what == "lazy" else "auto")
    if what == "loaded":
        ds = ds.load()
    before = peak()
    write_npz(ds, target)
print(json.dumps(peak() - before))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """47 MB of pixels in label order and a scaled archive of them: 376 MB of float64."""
    folder = tmp_path_factory.mktemp("large")
    n_samples = 60_000
    image = np.zeros((n_samples, 28, 28), np.uint8)
    image[:, 5:9, 5:9] = (np.arange(n_samples) % 251)[:, None, None]
    labels = (np.arange(n_samples) % 10).astype(np.uint8)
    write_zarr(make_dataset(image, label=labels), folder / "d.zarr", order="label", level=1)
    write_npz(open_store(folder / "d.zarr"), folder / "d.npz")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("what", "most_bytes"), [("lazy", 150e6), ("dask", 150e6), ("loaded", 60e6), ("build", 100e6)]
)
def test_memory_stays_bounded(large: Path, tmp_path: Path, what: str, most_bytes: float) -> None:
    source, target = ("d.npz", "t.zarr") if what == "build" else ("d.zarr", "t.npz")
    command = [sys.executable, "-c", PEAK, what, str(large / source), str(tmp_path / target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout)
    assert grown < most_bytes, f"{what}: {grown / 1e6:.0f} MB"
