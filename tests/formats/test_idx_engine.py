"""IDX files as Datasets: what opens, how it is labelled, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from pytest_httpserver import HTTPServer

from mnist_zarr.builder import build
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import IdxFormatError, OptionError, SourceError, SourceNotFoundError
from mnist_zarr.formats.idx import IdxHeader, write_idx
from mnist_zarr.formats.idx_engine import IdxBackendEntrypoint, open_idx

if TYPE_CHECKING:
    from tests.conftest import Serve
import gzip

import mnist_zarr
from tests.support.files import idx_bytes, idx_gz_bytes
from tests.support.idx_pairs import SUFFIXES, Array, pixels, put_pair

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
def test_given_labels_replace_those_beside_the_images(tmp_path: Path, chunks: Any) -> None:
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
        ((5, 3, 2, 2), ("sample", "dim_1", "dim_2", "dim_3")),
        ((5, 6, 2, 3), ("sample", "row", "col", "band")),
        ((5, 6, 2, 4), ("sample", "row", "col", "band")),
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
def test_column_0_of_a_label_table_becomes_the_label(tmp_path: Path, chunks: Any) -> None:
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


def test_a_list_may_contain_folders(tmp_path: Path) -> None:
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
    with pytest.raises(SourceError, match="500"):
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
def test_images_and_labels_of_different_length_raise_an_error_naming_both_counts(
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
        (pixels(2), pixels(), ("uint8 samples of shape ()", "no samples (rank 0)")),
        (pixels(), pixels(), ("no samples (rank 0)",)),
    ],
)
def test_files_that_do_not_fit_together_raise_an_error_that_says_why(
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


def test_labels_for_some_sources_only_raise_an_error_that_names_the_other(tmp_path: Path) -> None:
    put_pair(tmp_path, "train", pixels(2, 4, 3), pixels(2))
    alone = put_pair(tmp_path, "val", pixels(2, 4, 3), None)
    with pytest.raises(
        SourceError, match="has no label file beside it, unlike other sources"
    ) as caught:
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
    with pytest.raises(
        SourceError, match=r"4,294,967,295 samples of shape \(0,\), without elements"
    ):
        open_idx(io.BytesIO(header))


# ---- dask ----


# ---- what is read when ----


# ---- what the writer needs ----


# ---- every form of indexing, against NumPy ----


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_local_files_are_opened_upright_too(tmp_path: Path, suffix: str) -> None:
    upright = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
    data = idx_gz_bytes(upright.swapaxes(1, 2))
    path = tmp_path / f"own-images-idx3-ubyte{suffix}"
    path.write_bytes(data if suffix else gzip.decompress(data))
    ds = xr.open_dataset(path, transposed=True)
    assert ds.image.dims == ("sample", "row", "col")
    assert (ds.image.values == upright).all()
    sent = pickle.loads(pickle.dumps(mnist_zarr.open_idx(path, transposed=True, chunks={})))
    assert (sent.image[2].values == upright[2]).all()
    assert "source_dims" not in xr.open_dataset(path).image.attrs


def test_only_images_can_be_transposed(tmp_path: Path) -> None:
    write_idx(np.zeros((4, 6), np.uint8), tmp_path / "rows.idx")
    with pytest.raises(SourceError, match=r"expected images of shape .* got \(4, 6\)"):
        mnist_zarr.open_idx(tmp_path / "rows.idx", transposed=True)


DECODERS = {
    "mask_and_scale": False,
    "decode_times": False,
    "decode_timedelta": True,
    "use_cftime": None,
    "concat_characters": False,
    "decode_coords": False,
}


@pytest.mark.parametrize("option", DECODERS)
def test_decoders_of_xarray_decode_nothing_here(tmp_path: Path, option: str) -> None:
    path = put_pair(tmp_path, "train", pixels(3, 2, 2), pixels(3))
    plain = xr.open_dataset(path, engine="idx")
    for options in ({option: DECODERS[option]}, {"decode_cf": False}):
        xr.testing.assert_identical(xr.open_dataset(path, engine="idx", **options), plain)


def test_an_unknown_option_of_the_engine_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    path = put_pair(tmp_path, "train", pixels(3, 2, 2), None)
    with pytest.raises(OptionError, match=r"'lables': no such option; choose from .*labels"):
        xr.open_dataset(path, engine="idx", lables=None)


@pytest.mark.parametrize("columns", [3, 2])
def test_one_hot_labels_are_refused_and_one_column_is_not(tmp_path: Path, columns: int) -> None:
    labels = np.array([0, 1, 1, 0, 1], np.uint8)
    path = put_pair(tmp_path, "train", pixels(5, 2, 2), labels[:, np.newaxis])
    np.testing.assert_array_equal(open_idx(path).label, labels)
    write_idx(np.eye(columns, dtype=np.uint8)[labels], tmp_path / "one-hot")
    for act in (
        lambda: open_idx(path, labels=tmp_path / "one-hot"),
        lambda: build(tmp_path / "t.zarr", path, labels=tmp_path / "one-hot"),
        lambda: make_dataset(pixels(5, 2, 2), label=np.eye(columns)[labels]),
    ):
        with pytest.raises(SourceError, match=f"a table of {columns} columns of zeros and ones"):
            act()
    assert not (tmp_path / "t.zarr").exists()


def test_several_classes_for_a_sample_are_no_one_hot_labels(tmp_path: Path) -> None:
    path = put_pair(tmp_path, "train", pixels(2, 2, 2), np.array([[1, 1], [0, 1]], np.uint8))
    with pytest.raises(SourceError, match="with other than a single one in some rows; choose one"):
        open_idx(path)
