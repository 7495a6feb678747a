"""IDX files as lazy Datasets: what opens, what is read when, and that values are right."""

from __future__ import annotations

import gc
import io
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from mnist_zarr.errors import IdxFormatError, SourceError, SourceNotFoundError
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.formats import stacked as stacked_module
from mnist_zarr.formats.idx import IdxFile, IdxHeader, write_idx
from mnist_zarr.formats.idx_engine import IdxBackendEntrypoint, open_idx
from mnist_zarr.formats.stacked import MAX_SPAN_BYTES

if TYPE_CHECKING:
    from tests.conftest import Serve

Array = npt.NDArray[Any]
SUFFIXES = ("", ".gz")


def pixels(*shape: int, dtype: str = "uint8", seed: int = 0) -> Array:
    """Random numbers: gzip does not make them smaller, so bytes read can be counted."""
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def noise(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def put_pair(
    folder: Path | str, prefix: str, images: Array, labels: Array | None, suffix: str = ""
) -> str:
    """Write a pair of IDX files and return the path of the images."""
    path = f"{folder}/{prefix}-images-idx3-ubyte{suffix}"
    write_idx(images, path)
    if labels is not None:
        write_idx(labels, f"{folder}/{prefix}-labels-idx1-ubyte{suffix}")
    return path


def idx_bytes(array: Array) -> bytes:
    file = io.BytesIO()
    write_idx(array, file)
    return file.getvalue()


@dataclass
class ReadLog:
    """The bytes that were fetched from local files, by name of the file."""

    fetched: dict[str, int] = field(default_factory=dict)

    def take(self) -> dict[str, int]:
        """Return the counts since the last call."""
        taken, self.fetched = self.fetched, {}
        return taken


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> ReadLog:
    log = ReadLog()
    read_into = LocalSource.read_into

    def counted(self: LocalSource, offset: int, buffer: memoryview) -> int:
        got = read_into(self, offset, buffer)
        name = os.path.basename(self.name)
        log.fetched[name] = log.fetched.get(name, 0) + got
        return got

    monkeypatch.setattr(LocalSource, "read_into", counted)
    return log


# ---- what opens ----


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("engine", ["idx", None])
def test_xarray_opens_a_file_and_finds_its_labels(tmp_path: Path, suffix: str, engine: Any) -> None:
    images, labels = pixels(6, 4, 3), pixels(6)
    path = put_pair(tmp_path, "train", images, labels, suffix)
    ds = xr.open_dataset(path, engine=engine)
    assert ds.image.dims == ("sample", "row", "col")
    assert set(ds.coords) == {"label", "split", "source_index"}
    assert {str(name): variable.dtype for name, variable in ds.variables.items()} == {
        "image": np.dtype("uint8"),
        "label": np.dtype("uint8"),
        "split": np.dtypes.StringDType(),
        "source_index": np.dtype("uint32"),
    }
    assert (ds.image.values == images).all()
    assert (ds.label.values == labels).all()
    assert ds.split.values.tolist() == ["train"] * 6
    assert ds.source_index.values.tolist() == list(range(6))
    assert ds.attrs["source"] == f"train-images-idx3-ubyte{suffix}, train-labels-idx1-ubyte{suffix}"


@pytest.mark.parametrize("engine", ["idx", None])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_with_train_and_test_opens_as_one_dataset(
    tmp_path: Path, suffix: str, engine: Any
) -> None:
    train, test = pixels(5, 4, 3), pixels(3, 4, 3, seed=1)
    put_pair(tmp_path, "t10k", test, np.array([7, 8, 9], np.uint8), suffix)
    put_pair(tmp_path, "train", train, np.arange(5, dtype=np.uint8), suffix)
    (tmp_path / "README.md").write_text("not IDX")
    for folder in (tmp_path, f"{tmp_path}/"):
        ds = xr.open_dataset(folder, engine=engine)
        assert (ds.image.values == np.concatenate([train, test])).all()
        assert ds.label.values.tolist() == [0, 1, 2, 3, 4, 7, 8, 9]
        assert ds.split.values.tolist() == ["train"] * 5 + ["test"] * 3
        assert ds.source_index.values.tolist() == list(range(8))


@pytest.mark.parametrize("address", ["{}/train-images-idx3-ubyte", "{}", "{}/"])
def test_a_file_and_a_folder_open_behind_a_url(memory_url: str, address: str) -> None:
    images, labels = pixels(6, 4, 3), pixels(6)
    put_pair(memory_url, "train", images, labels)
    ds = xr.open_dataset(address.format(memory_url), engine="idx")
    assert (ds.image.values == images).all()
    assert (ds.label.values == labels).all()
    assert set(ds.split.values) == {"train"}


def test_a_url_with_a_usual_name_needs_no_engine(serve: Serve) -> None:
    images, labels = pixels(6, 4, 3), pixels(6)
    url = serve("/train-images-idx3-ubyte", idx_bytes(images))
    serve("/train-labels-idx1-ubyte", idx_bytes(labels))
    ds = xr.open_dataset(url, chunks={"sample": 4})
    assert (ds.image.values == images).all()
    assert (ds.label.values == labels).all()


@pytest.mark.parametrize(
    "name",
    ["train-images-idx3-ubyte", "T10K-LABELS.IDX1-UBYTE.GZ", "s3://box/test-images-idx3-ubyte.gz"],
)
def test_a_usual_name_is_recognised_without_looking_at_the_file(name: str) -> None:
    guess = IdxBackendEntrypoint().guess_can_open
    assert guess(name)
    assert guess(Path("nowhere") / name.rpartition("/")[2])


@pytest.mark.parametrize(
    "name", ["", "data.nc", "store.zarr", "train-images.npz", "train-images-idx3-ubyte.zip"]
)
def test_other_names_are_left_to_other_engines(name: str) -> None:
    assert not IdxBackendEntrypoint().guess_can_open(name)
    assert not IdxBackendEntrypoint().guess_can_open(Path(name))


def test_only_a_folder_that_holds_an_idx_name_is_recognised(tmp_path: Path) -> None:
    guess = IdxBackendEntrypoint().guess_can_open
    (tmp_path / "photo.png").touch()
    assert not guess(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").touch()
    assert guess(tmp_path)
    assert guess(str(tmp_path))


def test_an_object_without_a_name_is_left_to_other_engines(tmp_path: Path) -> None:
    path = put_pair(tmp_path, "train", pixels(2, 2, 2), None)
    guess = IdxBackendEntrypoint().guess_can_open
    assert not guess(io.BytesIO(idx_bytes(pixels(2))))
    assert not guess([path])
    with open(path, "rb") as file:
        assert not guess(file)


def test_a_file_without_labels_opens_without_label(tmp_path: Path) -> None:
    images = pixels(6, 4, 3)
    path = put_pair(tmp_path, "train", images, None)
    write_idx(pixels(9), tmp_path / "t10k-labels-idx1-ubyte")
    ds = xr.open_dataset(path)
    assert set(ds.variables) == {"image", "split", "source_index"}
    assert (ds.image.values == images).all()


def test_a_file_of_another_name_has_neither_labels_nor_split(tmp_path: Path) -> None:
    put_pair(tmp_path, "train", pixels(6, 4, 3), pixels(6))
    write_idx(pixels(2, 4, 3), tmp_path / "odd.bin")
    assert set(open_idx(tmp_path / "odd.bin").variables) == {"image", "source_index"}


def test_a_name_without_prefix_has_labels_but_no_split(tmp_path: Path) -> None:
    write_idx(pixels(6, 4, 3), tmp_path / "images-idx3-ubyte")
    write_idx(pixels(6), tmp_path / "labels-idx1-ubyte")
    assert set(open_idx(tmp_path).coords) == {"label", "source_index"}
    assert set(open_idx(tmp_path / "images-idx3-ubyte").coords) == {"label", "source_index"}


@pytest.mark.parametrize("chunks", [None, {}])
def test_labels_that_are_given_are_taken_instead_of_those_beside(
    tmp_path: Path, chunks: Any
) -> None:
    path = put_pair(tmp_path, "train", pixels(4, 4, 3), np.zeros(4, np.uint8))
    given_labels = np.array([4, 3, 2, 1], np.uint8)
    other = tmp_path / "mine.bin"
    write_idx(given_labels, other)
    sources: list[Any] = [other, str(other), io.BytesIO(idx_bytes(given_labels))]
    for labels in sources:
        ds = xr.open_dataset(path, engine="idx", labels=labels, chunks=chunks)
        assert ds.label.values.tolist() == [4, 3, 2, 1]
    assert open_idx(path, labels=other, chunks=chunks).label.values.tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("chunks", [None, {}])
def test_a_label_file_alone_opens_as_labels(tmp_path: Path, chunks: Any) -> None:
    labels = pixels(6)
    put_pair(tmp_path, "train", pixels(6, 4, 3), labels)
    ds = xr.open_dataset(tmp_path / "train-labels-idx1-ubyte", chunks=chunks)
    assert set(ds.variables) == {"label"}
    assert ds.label.dims == ("sample",)
    assert (ds.label.values == labels).all()
    assert ds.attrs["source"] == "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((5,), ("sample",)),
        ((5, 3), ("sample", "dim_1")),
        ((5, 3, 2, 4), ("sample", "dim_1", "dim_2", "dim_3")),
        ((0, 4, 3), ("sample", "row", "col")),
        ((5, 0, 3), ("sample", "row", "col")),
    ],
)
@pytest.mark.parametrize("chunks", [None, {}, {"sample": 2}])
def test_images_of_any_rank_open_with_their_values(
    tmp_path: Path, shape: tuple[int, ...], dims: tuple[str, ...], chunks: Any
) -> None:
    images = pixels(*shape, dtype="int16")
    labels = pixels(shape[0])
    ds = open_idx(put_pair(tmp_path, "train", images, labels), chunks=chunks)
    assert ds.image.dims == dims
    assert ds.image.dtype == np.int16
    assert ds.image.shape == shape
    assert (ds.image.values == images).all()
    assert (ds.label.values == labels).all()
    assert ds.source_index.values.tolist() == list(range(shape[0]))


def test_a_file_of_rank_0_opens_as_one_number(tmp_path: Path) -> None:
    write_idx(np.array(2.5, np.float64), tmp_path / "number.idx")
    ds = open_idx(tmp_path / "number.idx")
    assert ds.image.dims == ()
    assert ds.image.item() == 2.5
    assert set(ds.variables) == {"image"}


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_type_comes_out_as_it_is_in_native_byte_order(
    tmp_path: Path, dtype: str, suffix: str
) -> None:
    images = pixels(5, 4, 3, dtype=dtype)
    ds = open_idx(put_pair(tmp_path, "train", images, None, suffix))
    assert ds.image.dtype == ds.image.values.dtype == np.dtype(dtype)
    assert (ds.image[3:1:-1].values == images[3:1:-1]).all()


@pytest.mark.parametrize("chunks", [None, {}])
def test_of_a_label_table_column_0_is_label(tmp_path: Path, chunks: Any) -> None:
    table = pixels(6, 8, dtype="int32")
    write_idx(table, tmp_path / "qmnist-train-labels-idx2-int.gz")
    write_idx(pixels(6, 4, 3), tmp_path / "qmnist-train-images-idx3-ubyte")
    for source in (tmp_path, tmp_path / "qmnist-train-labels-idx2-int.gz"):
        ds = open_idx(source, chunks=chunks)
        assert ds.label.dims == ("sample",)
        assert ds.label.dtype == np.int32
        assert (ds.label.values == table[:, 0]).all()
        assert (ds.label[[4, 1]].values == table[[4, 1], 0]).all()


def test_a_list_of_sources_is_concatenated_in_the_order_given(tmp_path: Path) -> None:
    parts = [pixels(count, 4, 3, seed=count) for count in (7, 0, 5, 1)]
    for suffix, part in zip(("", ".gz", "", ".gz"), parts, strict=True):
        put_pair(tmp_path, f"part{len(part)}", part, part[:, 0, 0], suffix)
    sources: list[str | Path] = [
        tmp_path / "part7-images-idx3-ubyte",
        str(tmp_path / "part0-images-idx3-ubyte.gz"),
        f"{tmp_path}/part5-images-idx3-ubyte",
        f"file://{tmp_path}/part1-images-idx3-ubyte.gz",
    ]
    whole = np.concatenate(parts)
    for chunks in (None, {}, {"sample": 4}):
        ds = open_idx(sources, chunks=chunks)
        assert (ds.image.values == whole).all()
        assert (ds.label.values == whole[:, 0, 0]).all()
        assert ds.split.values.tolist() == ["part7"] * 7 + ["part5"] * 5 + ["part1"]
        assert ds.source_index.values.tolist() == list(range(13))


def test_folders_may_stand_in_a_list(tmp_path: Path) -> None:
    first, second = pixels(3, 4, 3), pixels(2, 4, 3, seed=1)
    for name, images in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        put_pair(tmp_path / name, "train", images, images[:, 0, 0])
    ds = open_idx([tmp_path / "two", tmp_path / "one"])
    assert (ds.image.values == np.concatenate([second, first])).all()


def test_a_source_whose_name_tells_no_split_is_unknown_beside_others(tmp_path: Path) -> None:
    train = put_pair(tmp_path, "train", pixels(2, 4, 3), None)
    write_idx(pixels(1, 4, 3), tmp_path / "odd.bin")
    assert open_idx([train, tmp_path / "odd.bin"]).split.values.tolist() == [
        *("train", "train", "unknown")
    ]


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        ("label", {"image", "split", "source_index"}),
        (["label", "split"], {"image", "source_index"}),
        (["image", "no such name"], {"label", "split", "source_index"}),
        (None, {"image", "label", "split", "source_index"}),
    ],
)
def test_variables_can_be_dropped(tmp_path: Path, drop: Any, left: set[str]) -> None:
    path = put_pair(tmp_path, "train", pixels(2, 4, 3), pixels(2))
    ds = xr.open_dataset(path, drop_variables=drop)
    assert set(ds.variables) == left
    assert len(ds.encoding["source_files"]) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunks", [None, {}, {"sample": 2}])
def test_open_files_are_read_and_left_open(tmp_path: Path, suffix: str, chunks: Any) -> None:
    images = pixels(6, 4, 3)
    path = put_pair(tmp_path, "train", images, None, suffix)
    with open(path, "rb") as file, fsspec.open(f"file://{path}", "rb") as remote:
        for opened in (file, remote, io.BytesIO(Path(path).read_bytes())):
            ds = xr.open_dataset(opened, engine="idx", chunks=chunks)
            assert (ds.image[::-1].values == images[::-1]).all()
            assert (ds.image.values == images).all()
            assert set(ds.variables) == {"image", "source_index"}
            ds.close()
            assert not opened.closed


def test_storage_options_reach_the_file_system(httpserver: HTTPServer) -> None:
    images, labels = pixels(6, 4, 3), pixels(6)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        httpserver.expect_request(
            f"/train-{name}-ubyte", headers={"Key": "open"}
        ).respond_with_data(idx_bytes(array))
    url = httpserver.url_for("/train-images-idx3-ubyte")
    options = {"headers": {"Key": "open"}}
    ds = xr.open_dataset(url, engine="idx", storage_options=options)
    assert (ds.image.values == images).all()
    assert (ds.label.values == labels).all()
    with pytest.raises(SourceNotFoundError):
        xr.open_dataset(url, engine="idx")


def test_xarray_opens_several_files_at_once(tmp_path: Path) -> None:
    train, test = pixels(5, 4, 3), pixels(3, 4, 3, seed=1)
    paths = [
        put_pair(tmp_path, "train", train, train[:, 0, 0]),
        put_pair(tmp_path, "t10k", test, test[:, 0, 0], ".gz"),
    ]
    with xr.open_mfdataset(paths, combine="nested", concat_dim="sample", data_vars="all") as ds:
        assert (ds.image.values == np.concatenate([train, test])).all()
        assert (ds.label.values == np.concatenate([train, test])[:, 0, 0]).all()
        assert ds.split.values.tolist() == ["train"] * 5 + ["test"] * 3


# ---- what is refused ----


@pytest.mark.parametrize("as_folder", [False, True])
def test_images_and_labels_of_different_length_are_an_error_naming_both_counts(
    tmp_path: Path, as_folder: bool
) -> None:
    path = put_pair(tmp_path, "train", pixels(1006, 1, 1), pixels(1005))
    with pytest.raises(SourceError, match=r"1,006 images in .*1,005 labels in") as caught:
        xr.open_dataset(tmp_path if as_folder else path)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        assert str(tmp_path / name) in str(caught.value)


def test_lengths_must_agree_file_by_file_and_not_only_in_sum(tmp_path: Path) -> None:
    put_pair(tmp_path, "train", pixels(5, 4, 3), pixels(4))
    put_pair(tmp_path, "t10k", pixels(3, 4, 3), pixels(4))
    with pytest.raises(SourceError, match=r"5 images in .*train.*, 4 labels in .*train"):
        open_idx(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (pixels(2, 4, 3), pixels(2, 4, 4), ("(4, 3)", "(4, 4)")),
        (pixels(2, 4, 3), pixels(2, 4), ("(4, 3)", "(4,)")),
        (pixels(2, 4, 3), pixels(2, 4, 3, dtype="int8"), ("uint8", "int8")),
        (pixels(2), pixels(), ("uint8 rows of shape ()", "no rows (rank 0)")),
        (pixels(), pixels(), ("no rows (rank 0)",)),
    ],
)
def test_files_that_do_not_fit_together_are_an_error_that_says_why(
    tmp_path: Path, first: Array, second: Array, told: tuple[str, ...]
) -> None:
    sources = [
        put_pair(tmp_path, "train", first, None),
        put_pair(tmp_path, "t10k", second, None),
    ]
    with pytest.raises(SourceError, match="files that do not fit together") as caught:
        open_idx(sources)
    for part in (*sources, *told):
        assert part in str(caught.value)


def test_labels_for_some_sources_only_are_an_error_that_names_the_other(tmp_path: Path) -> None:
    put_pair(tmp_path, "train", pixels(2, 4, 3), pixels(2))
    alone = put_pair(tmp_path, "t10k", pixels(2, 4, 3), None)
    with pytest.raises(SourceError, match="no label file found beside it") as caught:
        open_idx(tmp_path)
    assert str(caught.value).startswith(alone)


def test_labels_for_several_sources_are_refused(tmp_path: Path) -> None:
    path = put_pair(tmp_path, "train", pixels(2, 4, 3), pixels(2))
    with pytest.raises(SourceError, match="cannot be given for several sources"):
        open_idx([path, path], labels=tmp_path / "train-labels-idx1-ubyte")


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(SourceError, match="got an empty list"):
        open_idx([])


@pytest.mark.parametrize("shape", [(), (3, 2, 2), (3, 0)])
def test_labels_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_idx(pixels(*shape), tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(SourceError, match=r"expected shape \(sample,\) or \(sample, column\)"):
        open_idx(tmp_path / "train-labels-idx1-ubyte")


def test_a_missing_source_is_not_found(tmp_path: Path, memory_url: str) -> None:
    for place in (str(tmp_path / "none"), f"{memory_url}/none", "foo://box"):
        for address in (place, f"{place}/train-images-idx3-ubyte", f"{place}/t10k-labels-idx1"):
            with pytest.raises(SourceNotFoundError, match=r"there is no such|Protocol not known"):
                open_idx(address)


def test_what_is_no_idx_file_is_refused_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(IdxFormatError, match="an HTML or XML page"):
        xr.open_dataset(path)


def test_billions_of_samples_that_hold_nothing_are_refused() -> None:
    header = IdxHeader(np.dtype("uint8"), (2**32 - 1, 0)).to_bytes()
    with pytest.raises(SourceError, match=r"4,294,967,295 samples of shape \(0,\), which hold no"):
        open_idx(io.BytesIO(header))


# ---- dask ----


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of 4 by 3 pixels in a chunk."""
    monkeypatch.setattr(stacked_module, "DASK_CHUNK_BYTES", 50)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_default_size_are_alike_in_every_variable(tmp_path: Path) -> None:
    path = put_pair(tmp_path, "train", pixels(10, 4, 3), pixels(10))
    ds = xr.open_dataset(path, chunks={})
    assert dict(ds.chunks) == {"sample": (4, 4, 2), "row": (4,), "col": (3,)}
    for variable in ds.variables.values():
        assert variable.chunks is not None
        assert variable.chunks[0] == (4, 4, 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("count", "chunks"), [(3, (3, 3, 3, 1)), (4, (4, 4, 2)), (7, (7, 3))])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chunks_of_any_size_open_without_a_warning_and_hold_the_same_values(
    tmp_path: Path, count: int, chunks: tuple[int, ...], suffix: str
) -> None:
    images, labels = pixels(10, 4, 3), pixels(10)
    path = put_pair(tmp_path, "train", images, labels, suffix)
    for ds in (
        xr.open_dataset(path, chunks={"sample": count}),
        open_idx(path, chunks={"sample": count}),
    ):
        assert ds.chunks["sample"] == chunks
        assert (ds.image.values == images).all()
        assert (ds.label.values == labels).all()
        assert ds.split.values.tolist() == ["train"] * 10


@pytest.mark.parametrize("chunks", [7, -1, {"sample": 3, "row": 2}])
def test_every_way_to_name_chunks_gives_the_same_values(tmp_path: Path, chunks: Any) -> None:
    images = pixels(10, 4, 3)
    ds = open_idx(put_pair(tmp_path, "train", images, pixels(10)), chunks=chunks)
    assert ds.image.chunks is not None
    assert (ds.image.values == images).all()


def test_a_row_larger_than_a_chunk_is_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_module, "DASK_CHUNK_BYTES", 5)
    ds = open_idx(put_pair(tmp_path, "train", pixels(3, 4, 3), None), chunks={})
    assert ds.chunks["sample"] == (1, 1, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunks", [None, {}, {"sample": 100}])
def test_a_dataset_can_be_pickled_without_its_values(
    tmp_path: Path, suffix: str, chunks: Any
) -> None:
    images, labels = noise(500, 28, 28), pixels(500)
    ds = xr.open_dataset(put_pair(tmp_path, "train", images, labels, suffix), chunks=chunks)
    packed = pickle.dumps(ds)
    assert len(packed) < images.nbytes / 10
    there = pickle.loads(packed)
    assert (there.image.values == images).all()
    assert (there.label.values == labels).all()
    assert there.split.dtype == np.dtypes.StringDType()
    assert (there.split.values == "train").all()


def test_a_pickle_opens_files_wherever_the_working_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pixels(6, 4, 3)
    put_pair(tmp_path, "train", images, None)
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(open_idx("train-images-idx3-ubyte"))
    monkeypatch.chdir("/")
    assert (pickle.loads(packed).image.values == images).all()


def test_a_gzip_file_that_was_partly_read_can_be_pickled(tmp_path: Path) -> None:
    images = noise(500, 28, 28)
    ds = open_idx(put_pair(tmp_path, "train", images, None, ".gz"))
    assert (ds.image[400].values == images[400]).all()
    assert (pickle.loads(pickle.dumps(ds)).image[3:5].values == images[3:5]).all()


def test_other_processes_of_dask_read_raw_and_gzip(tmp_path: Path) -> None:
    images = pixels(40, 4, 3)
    lazy = [
        open_idx(put_pair(tmp_path, f"{kind}-train", images, pixels(40), suffix), chunks=5)
        for kind, suffix in (("raw", ""), ("gzip", ".gz"))
    ]
    with dask.config.set(scheduler="processes", num_workers=1):
        for ds in lazy:
            there = ds.isel(sample=slice(None, None, -3)).compute()
            assert (there.image.values == images[::-3]).all()
            assert (there.label.values == pixels(40)[::-3]).all()
            assert (there.split.values == "train").all()


# ---- what is read when ----


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunks", [None, {}])
def test_to_open_and_to_index_reads_nothing_but_headers(
    tmp_path: Path, reads: ReadLog, suffix: str, chunks: Any
) -> None:
    put_pair(tmp_path, "train", noise(4000, 28, 28), noise(400_000)[:4000], suffix)
    put_pair(tmp_path, "t10k", noise(4000, 28, 28), noise(400_000)[:4000], suffix)
    ds = xr.open_dataset(tmp_path, engine="idx", chunks=chunks)
    ds = ds.isel(sample=slice(None, None, -1)).isel(sample=[5, 3, 5], row=2)
    ds = ds.transpose("col", "sample").drop_vars("label").copy().rename(col="x")
    assert ds.sizes == {"sample": 3, "x": 28}
    assert len(reads.fetched) == 4
    # gzip is fetched and decoded by pieces: of 3 MB of images one quarter of a megabyte.
    limit = 2 * 1100 if not suffix else 2 * (1 << 18) + 4
    assert max(reads.take().values()) <= limit
    ds.image.load(scheduler="synchronous") if chunks is not None else ds.image.load()
    assert reads.fetched


def test_to_open_a_url_fetches_nothing_but_headers(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_pair(memory_url, "train", noise(4000, 28, 28), noise(4000))
    memory = fsspec.filesystem("memory")
    fetched: list[int] = []
    cat_file = memory.cat_file

    def counted(place: str, start: int | None = None, end: int | None = None) -> bytes:
        data = bytes(cat_file(place, start=start, end=end))
        fetched.append(len(data))
        return data

    monkeypatch.setattr(memory, "cat_file", counted)
    ds = xr.open_dataset(path, engine="idx", chunks={"sample": 100})
    assert fetched
    assert max(fetched) <= 1024
    fetched.clear()
    assert ds.image[200:300].mean().compute() > 100
    assert sum(fetched) == 100 * 784


def test_to_select_by_label_reads_labels_and_then_only_those_images(
    tmp_path: Path, reads: ReadLog
) -> None:
    labels = np.sort(pixels(10_000)) // 10
    images = noise(10_000, 28, 28)
    ds = open_idx(put_pair(tmp_path, "train", images, labels))
    reads.take()
    sevens = ds.sel(label=7)
    assert set(reads.take()) == {"train-labels-idx1-ubyte"}
    n_sevens = int((labels == 7).sum())
    assert sevens.sizes["sample"] == n_sevens
    assert (sevens.image.values == images[labels == 7]).all()
    assert reads.take()["train-images-idx3-ubyte"] == n_sevens * 784


@pytest.mark.parametrize(
    ("key", "n_rows"), [(5, 1), (slice(3, 9), 6), (-1, 1), ([0, 3999], 2), ([7, 7, 7], 1), ([], 0)]
)
def test_of_a_raw_file_only_the_rows_asked_for_are_read(
    tmp_path: Path, reads: ReadLog, key: Any, n_rows: int
) -> None:
    images = noise(4000, 28, 28)
    ds = open_idx(put_pair(tmp_path, "train", images, None))
    reads.take()
    values = ds.image[key].values
    assert (values == (images[key] if key != [] else images[:0])).all()
    assert sum(reads.take().values()) == n_rows * 784


def test_rows_that_lie_close_are_read_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(4000, 28, 28)
    ds = open_idx(put_pair(tmp_path, "train", images, None))
    pieces: list[int] = []
    read_samples = IdxFile.read_samples

    def counted(self: IdxFile, start: int, stop: int) -> Array:
        pieces.append(stop - start)
        return read_samples(self, start, stop)

    monkeypatch.setattr(IdxFile, "read_samples", counted)
    rows = [50, 10, 12, 350, 10]
    assert (ds.image[rows].values == images[rows]).all()
    assert pieces == [41, 1]
    pieces.clear()
    assert (ds.image[::2].values == images[::2]).all()
    assert sum(pieces) < 4000
    assert max(pieces) * 784 <= MAX_SPAN_BYTES + 2 * 784
    assert len(pieces) == 2


@pytest.mark.parametrize("chunks", [None, {"sample": 500}])
def test_a_gzip_file_read_in_order_is_decoded_once(
    tmp_path: Path, reads: ReadLog, chunks: Any
) -> None:
    images = noise(4000, 28, 28)
    path = put_pair(tmp_path, "train", images, None, ".gz")
    size = os.path.getsize(path)
    assert size > 3_000_000
    ds = open_idx(path, chunks=chunks)
    for start in range(0, 4000, 500):
        part = ds.image[start : start + 500]
        assert (part.values == images[start : start + 500]).all()
    (fetched,) = reads.take().values()
    # Only the piece that holds the header is fetched again, on opening.
    assert size <= fetched <= size + 2 * (1 << 18) + 2


def test_rows_of_a_gzip_file_are_right_in_any_order(tmp_path: Path) -> None:
    images = noise(12_000, 28, 28)  # enough for a checkpoint
    ds = open_idx(put_pair(tmp_path, "train", images, None, ".gz"))
    for start in (11_990, 0, 6_000, 5_990, 11_000, 3):
        assert (ds.image[start : start + 10].values == images[start : start + 10]).all()
    assert (ds.image[[11_999, 0, 7_000, 0]].values == images[[11_999, 0, 7_000, 0]]).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunks", [None, {"sample": 1000}])
def test_memory_is_bounded_when_a_file_is_read_chunk_by_chunk(
    tmp_path: Path, suffix: str, chunks: Any
) -> None:
    count, step = 40_000, 1000
    path = put_pair(tmp_path, "train", np.zeros((count, 28, 28), np.uint8), None, suffix)
    ds = open_idx(path, chunks=chunks)
    assert ds.image[:10].values.sum() == 0  # import what is imported at first use
    tracemalloc.start()
    try:
        for start in range(0, count, step):
            assert not ds.image[start : start + step].values.any()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert step * 784 <= peak < 6 * step * 784  # of 31 MB


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_stays_open(tmp_path: Path, suffix: str) -> None:
    path = put_pair(tmp_path, "train", pixels(6, 4, 3), pixels(6), suffix)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    ds = xr.open_dataset(path)
    lazy = xr.open_dataset(path, chunks={"sample": 2})
    assert len(os.listdir("/dev/fd")) == before
    ds.image[2:4].load()
    lazy.image.load(scheduler="threads")
    ds.load()
    assert len(os.listdir("/dev/fd")) == before


# ---- what the writer needs ----


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_encoding_keeps_the_files_for_their_checksums(
    tmp_path: Path, suffix: str, chunks: Any
) -> None:
    for prefix in ("train", "t10k"):
        put_pair(tmp_path, prefix, pixels(3, 4, 3), pixels(3), suffix)
    ds = xr.open_dataset(tmp_path, engine="idx", chunks=chunks)
    for kept in (ds, ds.isel(sample=[0, 4]), ds.drop_vars("split"), pickle.loads(pickle.dumps(ds))):
        files = kept.encoding["source_files"]
        assert all(isinstance(file, IdxFile) for file in files)
        assert [os.path.basename(file.name) for file in files] == ds.attrs["source"].split(", ")
        assert len({file.sha256() for file in files}) == 2
    assert ds.image.encoding["seeks_cheaply"] is (suffix == "")


def test_one_gzip_file_among_raw_ones_makes_the_images_seek_dearly(tmp_path: Path) -> None:
    raw = put_pair(tmp_path, "train", pixels(3, 4, 3), None)
    packed = put_pair(tmp_path, "t10k", pixels(3, 4, 3), None, ".gz")
    assert open_idx([raw, raw]).image.encoding["seeks_cheaply"] is True
    assert open_idx([raw, packed]).image.encoding["seeks_cheaply"] is False


def test_the_encoding_suggests_chunks_of_a_fixed_number_of_bytes(tmp_path: Path) -> None:
    ds = open_idx(put_pair(tmp_path, "train", pixels(3, 4, 8), pixels(3)))
    for variable in ds.variables.values():
        assert variable.encoding["preferred_chunks"] == {"sample": (16 << 20) // 32}


# ---- every form of indexing, against NumPy ----

COUNTS = (7, 5, 1, 4)
SHAPE = (sum(COUNTS), 5, 4)


@pytest.fixture(scope="module", params=["raw", "gzip", "both", "dask", "unmerged"])
def stacked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[xr.Dataset, dict[str, Array]]]:
    folder = tmp_path_factory.mktemp("idx")
    whole = pixels(*SHAPE, dtype="int16")
    suffixes = {"gzip": [".gz"] * 4, "both": ["", ".gz"] * 2}.get(request.param, [""] * 4)
    paths, splits, start = [], [], 0
    for number, (count, suffix) in enumerate(zip(COUNTS, suffixes, strict=True)):
        part = whole[start : start + count]
        paths.append(put_pair(folder, f"part{number}", part, part[:, 0, 1], suffix))
        splits += [f"part{number}"] * count
        start += count
    arrays = {
        "image": whole,
        "label": whole[:, 0, 1],
        "split": np.array(splits, np.dtypes.StringDType()),
        "source_index": np.arange(SHAPE[0], dtype=np.uint32),
    }
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "unmerged":
            patch.setattr(stacked_module, "MAX_GAP_BYTES", 40)
            patch.setattr(stacked_module, "MAX_SPAN_BYTES", 80)
        chunks = {"sample": 3} if request.param == "dask" else None
        with dask.config.set(scheduler="synchronous"):
            yield open_idx(paths, chunks=chunks), arrays


def indexers(size: int) -> st.SearchStrategy[Any]:
    numbers = st.integers(-size, size - 1)
    # xarray itself takes a start before the first element for the last one if the step is < 0.
    bounds = st.none() | st.integers(-size, size + 2)
    steps = st.none() | st.integers(-size - 1, size + 1).filter(bool)
    arrays = st.lists(numbers, max_size=2 * size).map(lambda rows: np.array(rows, np.int64))
    masks = st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)
    return st.builds(slice, bounds, bounds, steps) | numbers | arrays | masks


def take_outer(array: Array, keys: tuple[Any, ...]) -> Array:
    for axis in reversed(range(len(keys))):
        array = array[(slice(None),) * axis + (keys[axis],)]
    return array


KEYS = st.tuples(*map(indexers, SHAPE))


@settings(max_examples=40)
@given(keys=KEYS)
def test_every_outer_index_gives_what_numpy_gives(
    stacked: tuple[xr.Dataset, dict[str, Array]], keys: tuple[Any, ...]
) -> None:
    ds, arrays = stacked
    got = ds.isel(sample=keys[0], row=keys[1], col=keys[2])
    np.testing.assert_array_equal(got.image.values, take_outer(arrays["image"], keys))
    for name in ("label", "split", "source_index"):
        np.testing.assert_array_equal(got[name].values, take_outer(arrays[name], keys[:1]))
        assert got[name].dtype == arrays[name].dtype


@settings(max_examples=40)
@given(data=st.data())
def test_an_index_of_an_index_gives_what_numpy_gives(
    stacked: tuple[xr.Dataset, dict[str, Array]], data: st.DataObject
) -> None:
    ds, arrays = stacked
    first = data.draw(indexers(SHAPE[0]).filter(lambda key: not isinstance(key, int)))
    expected = arrays["image"][first]
    second = data.draw(indexers(len(expected)) if len(expected) else st.just(slice(None)))
    got = ds.isel(sample=first).isel(sample=second)
    np.testing.assert_array_equal(got.image.values, expected[second])
    np.testing.assert_array_equal(got.split.values, arrays["split"][first][second])


@settings(max_examples=40)
@given(
    points=st.lists(st.tuples(*(st.integers(-size, size - 1) for size in SHAPE)), max_size=30),
    reverse=st.booleans(),
)
def test_points_give_what_numpy_gives(
    stacked: tuple[xr.Dataset, dict[str, Array]],
    points: list[tuple[int, int, int]],
    reverse: bool,
) -> None:
    ds, arrays = stacked
    table = np.array(points, np.int64).reshape(-1, 3).T[:, :: -1 if reverse else 1]
    sample, row, col = (xr.DataArray(column, dims="point") for column in table)
    got = ds.isel(sample=sample, row=row, col=col)
    np.testing.assert_array_equal(got.image.values, arrays["image"][tuple(table)])
    np.testing.assert_array_equal(got.label.values, arrays["label"][table[0]])
    both = ds.image.isel(sample=sample, col=col).values
    np.testing.assert_array_equal(both, arrays["image"][table[0], :, table[2]])
