"""Samples of several files as one array: every index, what is read when, dask, memory."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.formats import stacked as stacked_module
from mnist_zarr.formats.idx import IdxFile
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.stacked import MAX_SPAN_BYTES
from tests.support.idx_pairs import SUFFIXES, Array, noise, pixels, put_pair
from tests.support.memory import traced_memory


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


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunks", [None, {}])
def test_opening_and_indexing_read_nothing_but_headers(
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


def test_opening_a_url_fetches_nothing_but_headers(
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


def test_selecting_by_label_reads_the_labels_and_then_only_those_images(
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
def test_only_the_requested_rows_of_a_raw_file_are_read(
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
    with traced_memory() as peak_bytes:
        for start in range(0, count, step):
            assert not ds.image[start : start + step].values.any()
        assert step * 784 <= peak_bytes() < 6 * step * 784  # of 31 MB


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
        assert all(isinstance(file, ByteSource) for file in files)
        assert [os.path.basename(file.name) for file in files] == ds.attrs["source"].split(", ")
        assert len({file.sha256() for file in files}) == 2
    assert ds.image.encoding["seeks_cheaply"] is (suffix == "")


def test_one_gzip_file_among_raw_ones_makes_seeking_expensive(tmp_path: Path) -> None:
    raw = put_pair(tmp_path, "train", pixels(3, 4, 3), None)
    packed = put_pair(tmp_path, "t10k", pixels(3, 4, 3), None, ".gz")
    assert open_idx([raw, raw]).image.encoding["seeks_cheaply"] is True
    assert open_idx([raw, packed]).image.encoding["seeks_cheaply"] is False


def test_the_encoding_suggests_chunks_of_a_fixed_number_of_bytes(tmp_path: Path) -> None:
    ds = open_idx(put_pair(tmp_path, "train", pixels(3, 4, 8), pixels(3)))
    for variable in ds.variables.values():
        assert variable.encoding["preferred_chunks"] == {"sample": (16 << 20) // 32}


LENGTHS = (7, 5, 1, 4)


SHAPE = (sum(LENGTHS), 5, 4)


@pytest.fixture(scope="module", params=["raw", "gzip", "both", "dask", "unmerged"])
def stacked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[xr.Dataset, dict[str, Array]]]:
    folder = tmp_path_factory.mktemp("idx")
    whole = pixels(*SHAPE, dtype="int16")
    suffixes = {"gzip": [".gz"] * 4, "both": ["", ".gz"] * 2}.get(request.param, [""] * 4)
    paths, splits, start = [], [], 0
    for number, (count, suffix) in enumerate(zip(LENGTHS, suffixes, strict=True)):
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


@settings(max_examples=40)
@given(keys=st.tuples(*map(indexers, SHAPE)))
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
