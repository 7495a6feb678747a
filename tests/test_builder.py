"""The main job: the real 70,000 images, selected by plain xarray; every kind of source."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from pytest_httpserver import HTTPServer
from zarr.storage import MemoryStore

from mnist_zarr.builder import build, load, parse_source
from mnist_zarr.catalog import opening
from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.errors import (
    OptionError,
    SchemaError,
    SourceError,
    SourceNotFoundError,
    TargetExistsError,
)
from mnist_zarr.formats.idx import read_idx, write_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.hosting.page import make_page
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import PAGE
from tests.support.digits import digits
from tests.support.object_server import BUCKET, S3Server
from tests.support.pictures import folder_of, noise, save

PLAIN_XARRAY = """
import json, sys
import numpy as np, xarray as xr
ds = xr.open_zarr(sys.argv[1])
sevens = ds.sel(label=7)
print(json.dumps({
    "sizes": dict(sevens.sizes), "dims": sevens.image.dims, "dtype": str(sevens.image.dtype),
    "train": ds.sel(split="train").sel(label=7).sizes["sample"],
    "counts": [ds.sel(label=d).sizes["sample"] for d in range(10)],
    "first": int(ds.label[0]), "ours": [m for m in sys.modules if m.startswith("mnist_zarr")],
}))
np.save(sys.argv[2], ds.image.values)
np.save(sys.argv[3], ds.label.values)
"""


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_plain_xarray_selects_a_digit_without_any_warning(tmp_path: Path, zarr_format: Any) -> None:
    build(tmp_path / "mnist.zarr", zarr_format=zarr_format)
    arrays = [str(tmp_path / name) for name in ("image.npy", "label.npy")]
    command = [sys.executable, "-W", "error", "-c", PLAIN_XARRAY, str(tmp_path / "mnist.zarr")]
    done = subprocess.run([*command, *arrays], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["sizes"] == {"sample": 7293, "row": 28, "col": 28}
    assert seen["dims"] == ["sample", "row", "col"]
    assert seen["dtype"] == "uint8"
    assert seen["train"] == 6265
    assert seen["counts"] == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert seen["first"] == 5
    assert seen["ours"] == []
    for array, kind in zip(arrays, ("images-idx3", "labels-idx1"), strict=True):
        source = [read_idx(BUNDLED_FILES / f"{s}-{kind}-ubyte.gz") for s in ("train", "t10k")]
        np.testing.assert_array_equal(np.load(array), np.concatenate(source))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "source").mkdir()
    for split, n_samples in (("train", 30), ("t10k", 10)):
        place = tmp_path / "source" / f"{split}-images-idx3-ubyte"
        write_idx(rng.integers(0, 256, (n_samples, 3, 4)).astype(np.uint8), place)
        labels = rng.integers(0, 3, n_samples).astype(np.uint8)
        write_idx(labels, tmp_path / "source" / f"{split}-labels-idx1-ubyte.gz")
    return tmp_path / "source"


def test_a_folder_of_pictures_is_a_source(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    build(tmp_path / "photos.zarr", folder)
    ds = xr.open_zarr(tmp_path / "photos.zarr")
    np.testing.assert_array_equal(ds.image.values, [noise(0), noise(1), noise(2)])
    assert ds.sel(split="train").label.values.tolist() == [0, 1]
    assert ds.label.attrs["flag_meanings"] == "cat dog"
    assert verify(tmp_path / "photos.zarr").is_whole
    build(tmp_path / "small.zarr", os.fspath(folder), size=(5, 4), mode="RGB", fit="pad")
    assert xr.open_zarr(tmp_path / "small.zarr").image.shape == (3, 4, 5, 3)


def test_classes_are_named_by_a_list_or_a_text_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffAnkle boot\r\nKater\r\nGröße\r\n".encode())
    for names in (["Ankle boot", "Kater", "Größe"], tmp_path / "names.txt"):
        build(tmp_path / "t.zarr", folder, class_names=names, overwrite=True)
        label = open_store(tmp_path / "t.zarr").label
        assert label.attrs["flag_meanings"] == "Ankle_boot Kater Größe"
        assert len(open_store(tmp_path / "t.zarr").attrs["source_sha256"]) == 4


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
def test_names_of_classes_are_found_beside_the_files(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / name).write_text("Ankle boot\nBag\nCoat\n")
    build(tmp_path / "t.zarr", folder)
    assert open_store(tmp_path / "t.zarr").label.attrs["flag_meanings"] == "Ankle_boot Bag Coat"
    build(tmp_path / "u.zarr", folder, class_names=["a", "b", "c"])
    assert open_store(tmp_path / "u.zarr").label.attrs["flag_meanings"] == "a b c"


@pytest.mark.parametrize(
    "text",
    ["cat\n", "7\n2\n1\n0\n4\n", "cat\ncat\ndog\nfox\n", "cat\n\ndog\nfox", "", "\xff\xfe\0"],
)
def test_a_text_file_that_does_not_name_all_classes_is_something_else(
    folder: Path, tmp_path: Path, text: str
) -> None:
    (folder / "labels.txt").write_bytes(text.encode("latin-1"))
    build(tmp_path / "t.zarr", folder)
    assert open_store(tmp_path / "t.zarr").label.attrs["flag_meanings"] == "0 1 2"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat", "dog"], "label"),
        (["cat", "", "dog"], "class 1: the name is empty"),
        (["cat", "cat", "dog"], "flag_meanings has 'cat' more than once"),
    ],
)
def test_names_that_do_not_name_every_label_are_refused(
    names: list[str], words: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SchemaError, match=words):
        build(tmp_path / "t.zarr", folder, class_names=names)
    assert not (tmp_path / "t.zarr").exists()


def test_names_of_no_labels_and_of_no_text_are_refused(tmp_path: Path) -> None:
    write_idx(np.zeros((4, 2, 2), np.uint8), alone := tmp_path / "a-images-idx3-ubyte")
    with pytest.raises(SchemaError, match="class names: the Dataset has no labels"):
        build(tmp_path / "t.zarr", alone, labels=False, class_names=["a"])
    with pytest.raises(SourceNotFoundError, match=r"none\.txt: there is no such file"):
        build(tmp_path / "t.zarr", class_names=tmp_path / "none.txt")
    (tmp_path / "names.txt").write_bytes(b"gr\xf6\xdfe")
    with pytest.raises(SourceError, match="expected a text file in UTF-8"):
        build(tmp_path / "t.zarr", class_names=tmp_path / "names.txt")


def test_pictures_join_other_sources(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", "3/1.png", "7/1.png")
    build(tmp_path / "t.zarr", ["mnist", folder], size=(28, 28), mode="L", level=1)
    ds = open_store(tmp_path / "t.zarr")
    assert ds.sizes["sample"] == 70_002
    assert ds.label[-2:].values.tolist() == [3, 7]
    np.testing.assert_array_equal(ds.image[:5].values, open_dataset("mnist").image[:5].values)
    assert ds.attrs["source_sha256"][-1].endswith("  mine")


def test_a_folder_that_holds_idx_files_stays_one_of_idx(folder: Path) -> None:
    save(folder / "preview.png")
    assert type(parse_source(folder)).__name__ == "IdxSource"


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("mnist", {"size": (5, 5)}, "`size`: mnist is no folder or archive of pictures"),
        (["mnist", "mnist"], {"mode": "L"}, "`mode`: none of the sources holds pictures"),
        ("mnist", {"fit": "pad"}, "`fit`: mnist is no folder or archive of pictures"),
    ],
)
def test_other_sources_take_no_options_of_pictures(
    source: Any, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=words):
        build(tmp_path / "t.zarr", source, **options)


def test_a_folder_of_pictures_takes_no_options_of_a_file_system(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "1.png")
    with pytest.raises(OptionError, match="is a local folder, which takes no `source_options`"):
        build(tmp_path / "t.zarr", folder, source_options={"anon": True})


def test_a_folder_a_pair_several_sources_and_a_dataset_are_sources(folder: Path) -> None:
    train = folder / "train-images-idx3-ubyte"
    whole = xr.open_dataset(folder, engine="idx").load()
    target = folder.parent / "t.zarr"
    cases: list[tuple[Any, xr.Dataset]] = [
        (folder, whole),
        (str(folder), whole),
        (train, whole.isel(sample=slice(30))),
        (whole.isel(sample=[3, 5]), whole.isel(sample=[3, 5])),
    ]
    for source, expected in cases:
        build(target, source, overwrite=True)
        xr.testing.assert_equal(xr.open_zarr(target).load(), expected)
    build(target, [train, folder / "t10k-images-idx3-ubyte", train], overwrite=True)
    back = xr.open_zarr(target).load()
    assert back.sizes["sample"] == 70
    np.testing.assert_array_equal(back.image[40:].values, whole.image[:30].values)
    np.testing.assert_array_equal(back.source_index.values, np.arange(70))


def test_the_label_file_can_be_named(folder: Path) -> None:
    odd = folder.parent / "odd-name"
    (folder / "train-labels-idx1-ubyte.gz").rename(odd)
    build(folder.parent / "t.zarr", folder / "train-images-idx3-ubyte", labels=odd)
    labels = xr.open_zarr(folder.parent / "t.zarr").label.values
    np.testing.assert_array_equal(labels, read_idx(odd))


@pytest.mark.parametrize(
    ("source", "labels", "error", "message"),
    [
        ("minst", None, SourceNotFoundError, "no data set of that name; the catalog has mnist"),
        ("nowhere/x-images-idx3-ubyte", None, SourceNotFoundError, "there is no such file"),
        ("mnist", "labels", SourceError, "has its own"),
        (xr.Dataset(), "labels", SourceError, "a Dataset has its own"),
        ([], None, SourceError, "got an empty list"),
    ],
)
def test_a_source_that_names_nothing_raises_a_clear_error_and_nothing_is_written(
    tmp_path: Path, source: Any, labels: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(tmp_path / "t.zarr", source, labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_kept(tmp_path: Path, folder: Path) -> None:
    build(tmp_path / "t.zarr", folder)
    with pytest.raises(TargetExistsError):
        build(tmp_path / "t.zarr")
    assert xr.open_zarr(tmp_path / "t.zarr").sizes["sample"] == 40


def test_a_store_is_a_source_like_any_other(tmp_path: Path, folder: Path, memory_url: str) -> None:
    for first in (tmp_path / "first.zarr", tmp_path / "first.zarr.zip", f"{memory_url}/first.zarr"):
        build(first, folder, order="label", rescale=(-1, 1))
        build(tmp_path / "second.zarr", first, overwrite=True)
        second = xr.open_zarr(tmp_path / "second.zarr").load()
        xr.testing.assert_identical(
            second.drop_attrs(deep=False), open_store(first).load().drop_attrs(deep=False)
        )
    with pytest.raises(SourceError, match="a Zarr store has its own"):
        build(tmp_path / "third.zarr", first, labels="labels")


@pytest.mark.parametrize("kind", ["folder", "npz", "store"])
def test_a_source_tells_its_versions_apart(tmp_path: Path, folder: Path, kind: str) -> None:
    whole = xr.open_dataset(folder, engine="idx").load()
    place = tmp_path / {"folder": "files", "npz": "a.npz", "store": "a.zarr"}[kind]

    def write() -> None:
        if kind == "folder":
            write_idx_files(whole, place, overwrite=True)
        elif kind == "npz":
            write_npz(whole, place, overwrite=True)
        else:
            build(place, whole, overwrite=True)

    write()
    before = parse_source(place).identity()
    assert parse_source(place).identity() == before
    write()
    assert parse_source(place).identity() != before


def test_source_options_open_a_source_behind_a_url(
    tmp_path: Path, folder: Path, s3: S3Server
) -> None:
    fsspec.filesystem("s3", **s3.options).put(f"{folder}/*", f"{BUCKET}/files/")
    build(
        f"s3://{BUCKET}/a.zarr",
        f"s3://{BUCKET}/files",
        storage_options=s3.options,
        source_options=s3.options,
    )
    for source in (f"s3://{BUCKET}/files", f"s3://{BUCKET}/a.zarr"):
        build(tmp_path / "b.zarr", source, source_options=s3.options, overwrite=True)
        assert xr.open_zarr(tmp_path / "b.zarr").sizes["sample"] == 40


NAMES_OF_SOURCES = ("train-images-idx3-ubyte", "folder/", "a.npz", "a.zip", "files")


@pytest.mark.parametrize("name", NAMES_OF_SOURCES)
def test_a_server_that_cannot_be_reached_is_not_an_absent_file(tmp_path: Path, name: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"  # where nobody listens
        config = {"retries": {"max_attempts": 0}}
        options = {"endpoint_url": f"http://{address}", "anon": True, "config_kwargs": config}
        for url, source_options in ((f"http://{address}", None), (f"s3://{BUCKET}", options)):
            with pytest.raises(SourceError, match=r"[Cc]onnect") as caught:
                build(tmp_path / "t.zarr", f"{url}/{name}", source_options=source_options)
            assert not isinstance(caught.value, SourceNotFoundError)
            assert str(caught.value).startswith(f"{url}/{name[:5]}")


@pytest.mark.parametrize("name", NAMES_OF_SOURCES)
def test_a_file_that_nobody_may_read_is_not_an_absent_one(
    tmp_path: Path, s3: S3Server, httpserver: HTTPServer, name: str
) -> None:
    s3.fault = lambda method, path: "403"
    httpserver.expect_request(re.compile(".*")).respond_with_data("no", status=403)
    for url, source_options in ((httpserver.url_for(""), None), (f"s3://{BUCKET}", s3.options)):
        with pytest.raises(SourceError, match=r"403|Forbidden|Access Denied") as caught:
            build(tmp_path / "t.zarr", f"{url}/{name}", source_options=source_options)
        assert not isinstance(caught.value, SourceNotFoundError)


def test_labels_that_a_server_refuses_are_not_said_to_be_absent(
    tmp_path: Path, s3: S3Server, httpserver: HTTPServer
) -> None:
    name = "train-images-idx3-ubyte"
    write_idx(np.zeros((4, 2, 2), np.uint8), tmp_path / name)
    fsspec.filesystem("s3", **s3.options).put(f"{tmp_path}/{name}", f"{BUCKET}/{name}")
    s3.fault = lambda method, path: None if path.endswith(name) else "403"
    httpserver.expect_request(f"/{name}").respond_with_data((tmp_path / name).read_bytes())
    httpserver.expect_request(re.compile(".*")).respond_with_data("no", status=403)
    for url, options in ((httpserver.url_for(""), None), (f"s3://{BUCKET}", s3.options)):
        labels = f"{url}/train-labels-idx1-ubyte: cannot be opened: .*(403|Forbidden).*"
        message = rf"{url}/{name}: found no labels: {labels} \(which some servers also say of what"
        with pytest.raises(SourceError, match=message):
            build(tmp_path / "t.zarr", f"{url}/{name}", source_options=options)
        build(
            tmp_path / "u.zarr",
            f"{url}/{name}",
            source_options=options,
            labels=False,
            overwrite=True,
        )


def test_a_folder_gets_a_page_that_is_no_part_of_the_store(tmp_path: Path, folder: Path) -> None:
    for page in (True, True, False):
        build(tmp_path / "a.zarr", folder, page=page, overwrite=True)
        assert (tmp_path / "a.zarr" / PAGE).exists() == page
        if page:
            assert (tmp_path / "a.zarr" / PAGE).read_bytes() == make_page()
            assert verify(tmp_path / "a.zarr").is_whole


@pytest.mark.parametrize("name", ["a.zarr.zip", "memory://a.zarr", "icechunk+file:///a"])
def test_only_a_folder_of_this_machine_gets_a_page(tmp_path: Path, folder: Path, name: str) -> None:
    target = name if ":" in name else tmp_path / name
    with pytest.raises(OptionError, match="`page`: expected a folder of this machine"):
        build(target, folder, page=True)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("source", ["mnist", xr.Dataset(), MemoryStore()])
def test_a_source_without_a_url_takes_no_options(tmp_path: Path, source: Any) -> None:
    with pytest.raises(OptionError, match="takes no `source_options`, got anon"):
        build(tmp_path / "a.zarr", source, source_options={"anon": True})


def test_load_gives_the_arrays_of_keras_from_a_name_or_a_store(tmp_path: Path) -> None:
    build(tmp_path / "m.zarr", order="label", level=1)
    named, stored = load("mnist"), load(tmp_path / "m.zarr")
    for (x_named, y_named), (x_stored, y_stored) in zip(named, stored, strict=True):
        np.testing.assert_array_equal(x_named, x_stored, strict=True)
        np.testing.assert_array_equal(y_named, y_stored, strict=True)
    (x_train, y_train), (x_test, y_test) = named
    train = read_idx(BUNDLED_FILES / "train-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(x_train, train, strict=True)
    np.testing.assert_array_equal(
        y_test, read_idx(BUNDLED_FILES / "t10k-labels-idx1-ubyte.gz"), strict=True
    )
    assert (y_train.shape, x_test.shape) == ((60_000,), (10_000, 28, 28))


def test_a_wrong_layout_is_refused_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "fetch", lambda file: pytest.fail("a download"))
    for options in ({"level": 99}, {"chunk_bytes": 0}, {"order": "size"}):
        with pytest.raises(OptionError):
            build(tmp_path / "e.zarr", "emnist-byclass", **options)
    with pytest.raises(pytest.fail.Exception, match="a download"):
        build(tmp_path / "e.zarr", "emnist-byclass")


def test_load_needs_both_splits_and_labels() -> None:
    ds = digits(10)
    for bad, sentence in (
        (ds.drop_vars("split"), "of the splits 'train' and 'test', got no split"),
        (ds.isel(sample=ds.split.values == "test"), "of the splits 'train' and 'test', got test"),
        (ds.drop_vars("label"), "load: needs 'label', which"),
        (ds.drop_vars("image"), "load: needs 'image', which"),
    ):
        with pytest.raises(SchemaError, match=sentence):
            load(bad)
    with pytest.raises(SourceNotFoundError, match="no data set of that name"):
        load("minst")


@pytest.mark.parametrize("order", ["source", "label"])
def test_sources_of_every_kind_become_one_store(
    tmp_path: Path, folder: Path, memory_url: str, order: Any
) -> None:
    whole = xr.open_dataset(folder, engine="idx").load()
    write_npz(whole, tmp_path / "a.npz", scaled=False, flat=False)
    build(tmp_path / "a.zarr", folder, order="label")
    build(f"{memory_url}/a.zarr.zip", folder)
    sources: list[Any] = [
        *(folder, folder / "train-images-idx3-ubyte", str(tmp_path / "a.npz")),
        *(tmp_path / "a.zarr", f"{memory_url}/a.zarr.zip", open_store(tmp_path / "a.zarr"), whole),
    ]
    build(tmp_path / "t.zarr", sources, order=order, source_options={})
    back = open_store(tmp_path / "t.zarr").load().sortby("source_index")
    parts = [whole, whole.isel(sample=slice(30)), *[whole] * 5]
    expected = xr.concat([part.drop_vars("source_index") for part in parts], "sample")
    xr.testing.assert_equal(back.drop_vars("source_index"), expected)
    assert back.source_index.values.tolist() == list(range(270))
    assert verify(tmp_path / "t.zarr").is_whole


def test_more_than_the_catalog_is_not_taken_for_it(tmp_path: Path) -> None:
    source: list[Any] = ["mnist", open_dataset("mnist").isel(sample=slice(7)).load()]
    build(tmp_path / "t.zarr", source, level=1)
    ds, report = open_store(tmp_path / "t.zarr"), verify(tmp_path / "t.zarr")
    assert ds.sizes["sample"] == 70_007
    assert "id" not in ds.attrs
    assert "title" not in ds.attrs
    assert ds.attrs["source"].endswith("made, at least in part, from: " + source[1].attrs["title"])
    assert report.is_whole
    assert "mnist" not in " ".join(report.confirmed)
    assert "flag_values" in ds.label.attrs


@pytest.fixture
def own_files(tmp_path: Path) -> list[Path]:
    """Images and labels of a training and a test part, in files whose names tell nothing."""
    arrays = {
        "a": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
        "b": np.array([1, 0, 1], np.uint8),
        "c": np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        "d": np.array([0, 1], np.uint8),
    }
    for name, array in arrays.items():
        write_idx(array, tmp_path / name)
    return [tmp_path / name for name in arrays]


def test_pairs_of_files_of_any_names_become_one_store(
    own_files: list[Path], tmp_path: Path
) -> None:
    a, b, c, d = own_files
    build(tmp_path / "t.zarr", [a, c], labels=[b, d], split=["training", "test"])
    ds = open_store(tmp_path / "t.zarr", chunks=None)
    assert ds.label.values.tolist() == [1, 0, 1, 0, 1]
    assert ds.split.values.tolist() == ["train"] * 3 + ["test"] * 2
    assert len(ds.attrs["source_sha256"]) == 4
    assert verify(tmp_path / "t.zarr").is_whole
    (x_train, y_train), (x_test, y_test) = load([a, c], labels=[b, d], split=["train", "test"])
    assert (x_train.shape, x_test.shape) == ((3, 2, 2), (2, 2, 2))
    assert (y_train.tolist(), y_test.tolist()) == ([1, 0, 1], [0, 1])


def test_pairs_may_be_of_any_kind(own_files: list[Path], tmp_path: Path) -> None:
    a, b, *_ = own_files
    np.savez(tmp_path / "X.npz", np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
    np.savez(tmp_path / "y.npz", np.array([0, 1], np.uint8))
    build(tmp_path / "t.zarr", [a, tmp_path / "X.npz"], labels=[b, tmp_path / "y.npz"])
    assert open_store(tmp_path / "t.zarr").label.values.tolist() == [1, 0, 1, 0, 1]


def test_a_single_source_has_the_split_that_it_is_given(
    own_files: list[Path], tmp_path: Path
) -> None:
    a, b, *_ = own_files
    build(tmp_path / "t.zarr", a, labels=b, split="valid")
    assert set(open_store(tmp_path / "t.zarr").split.values) == {"val"}


def test_a_source_with_splits_of_its_own_keeps_them(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"`split`: .* has splits of its own: test, train"):
        build(tmp_path / "t.zarr", folder, split="train")
    with pytest.raises(OptionError, match="`split`: expected the name of a split, got 3"):
        build(tmp_path / "t.zarr", folder, split=[3])  # type: ignore[list-item]
    for given in (["train"], "train"):
        with pytest.raises(OptionError, match="`split`: expected a list with one for each source"):
            build(tmp_path / "t.zarr", [folder, "mnist"], split=given)
    assert not (tmp_path / "t.zarr").exists()


def test_files_without_labels_are_built_only_if_somebody_says_so(
    own_files: list[Path], tmp_path: Path
) -> None:
    a, b, c, _ = own_files
    np.savez(tmp_path / "X.npz", np.zeros((2, 4, 4), np.uint8))
    save(tmp_path / "photos" / "1.png")
    for source in (a, tmp_path / "X.npz", tmp_path / "photos"):
        with pytest.raises(SourceError, match=rf"{source}: found no labels; .*`labels=False`"):
            build(tmp_path / "t.zarr", source)
        assert not (tmp_path / "t.zarr").exists()
        build(tmp_path / "t.zarr", source, labels=False, overwrite=True)
        assert "label" not in open_store(tmp_path / "t.zarr").variables

        shutil.rmtree(tmp_path / "t.zarr")
    with pytest.raises(SourceError, match="found no labels"):
        build(tmp_path / "t.zarr", [a, c], labels=[b, None])
    build(tmp_path / "t.zarr", [a, c], labels=[b, False])
    assert open_store(tmp_path / "t.zarr").label.values.tolist() == [1, 0, 1, -1, -1]
    build(tmp_path / "u.zarr", [a, c], labels=False)
    assert "label" not in open_store(tmp_path / "u.zarr").variables


def test_labels_that_are_there_are_left_out_on_request(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array([1, 2]))
    folder_of(tmp_path / "photos", "cat/1.png", "dog/1.png")
    for name, source in (("a", folder), ("b", tmp_path / "d.npz"), ("c", tmp_path / "photos")):
        build(tmp_path / name, source, labels=False)
        assert "label" not in open_store(tmp_path / name).variables


def test_a_list_of_one_source_is_that_source(tmp_path: Path) -> None:
    assert parse_source(["mnist"]).open().attrs["id"] == "mnist"
    with pytest.raises(OptionError, match="a list without a URL, which takes no"):
        build(tmp_path / "t.zarr", ["mnist", "mnist"], source_options={"anon": True})
    message = "`labels`: expected a list with one for each source, of which there are 2, got 'x'"
    with pytest.raises(OptionError, match=message):
        build(tmp_path / "t.zarr", ["mnist", "mnist"], labels="x")


def test_the_versions_of_several_sources_are_told_apart(tmp_path: Path, folder: Path) -> None:
    build(tmp_path / "a.zarr", folder)
    sources = [folder, tmp_path / "a.zarr"]
    before = parse_source(sources).identity()
    assert parse_source(sources).identity() == before
    build(tmp_path / "a.zarr", folder, overwrite=True)
    assert parse_source(sources).identity() != before


def test_several_files_travel_to_other_processes(folder: Path) -> None:
    ds = parse_source([folder, folder / "train-images-idx3-ubyte"]).open()
    assert ds.image.encoding["seeks_cheaply"]
    back = pickle.loads(pickle.dumps(ds.variables["image"]))
    np.testing.assert_array_equal(back[35:45].values, ds.image[35:45].values)
