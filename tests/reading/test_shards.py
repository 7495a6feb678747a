"""Shards read in few requests; damage in them is an error that names the chunk."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.storage import MemoryStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.selection import select
from mnist_zarr.errors import StoreError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.shards import MAX_GAP_BYTES, MAX_RANGE_BYTES, Box, merge_ranges
from mnist_zarr.reading.threaded_pipeline import pipeline_of
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import as_buffer
from mnist_zarr.stores.shard_index import encode_index
from mnist_zarr.stores.snapshot import LocalSnapshot
from mnist_zarr.writing.writer import write_zarr
from tests.support.files import file_contents
from tests.support.shards import edit_shard
from tests.support.web_site import running_site

DS = open_dataset("mnist").isel(sample=slice(59_000, 61_000)).load()
CHUNKS_PER_SHARD = 4
# 32 chunks of 63 samples, in 8 shards.
LAYOUT: dict[str, Any] = {"order": "label", "chunk_bytes": 50_000, "shard_bytes": 200_000}
SHARD = "image/c/3/0/0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_zarr(DS, tmp_path / "t.zarr", level=1, **LAYOUT)
    return tmp_path / "t.zarr"


@st.composite
def selections(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]]:
    """Return the shape of a shard, that of its chunks, and a selection as Zarr makes them."""
    chunk_shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = tuple(size * draw(st.integers(1, 5)) for size in chunk_shape)
    axes: list[Any] = []
    for length in shape:
        position = st.integers(0, length - 1)
        kind = draw(st.sampled_from(["slice", "number", "numbers"]))
        if kind == "slice":
            axes.append(
                slice(draw(position), draw(st.integers(1, length)), draw(st.integers(1, 6)))
            )
        elif kind == "number":
            axes.append(draw(position))
        else:
            axes.append(np.array(draw(st.lists(position, min_size=1, max_size=6))))
    if all(isinstance(axis, np.ndarray) for axis in axes):
        axes = list(np.ix_(*axes))
    return shape, chunk_shape, tuple(axes)


@given(selections())
def test_a_box_has_what_is_wanted_and_no_chunk_besides(given_: Any) -> None:
    shape, chunk_shape, wanted = given_
    values = np.arange(np.prod(shape)).reshape(shape)
    box = Box(wanted, shape, chunk_shape)
    read = np.full(box.shape, -1)
    indices = []
    for part in box.parts():
        places = zip(part.index, chunk_shape, strict=True)
        chunk = values[tuple(slice(i * size, (i + 1) * size) for i, size in places)]
        read[part.place] = chunk[part.wanted]
        indices.append(part.index)
    expected = values[wanted]
    np.testing.assert_array_equal(read[box.wanted], expected)
    if box.is_wanted_whole:
        np.testing.assert_array_equal(read, expected)
    holding = [np.unravel_index(expected.reshape(-1), shape)] if expected.size else []
    touched = (
        {tuple(np.array(p) // chunk_shape) for p in zip(*holding[0], strict=True)}
        if holding
        else set()
    )
    assert len(indices) == len(set(indices))
    is_separable = not any(isinstance(axis, np.ndarray) and axis.ndim == 1 for axis in wanted)
    assert touched == set(indices) or not is_separable


@given(st.lists(st.tuples(st.integers(0, 1 << 26), st.integers(1, 1 << 22)), max_size=30))
def test_ranges_are_merged_within_bounds(ranges: list[tuple[int, int]]) -> None:
    groups = merge_ranges(ranges)
    assert sorted(number for group in groups for number in group) == list(range(len(ranges)))
    for group in groups:
        starts = [ranges[number][0] for number in group]
        stops = np.maximum.accumulate([sum(ranges[number]) for number in group])
        assert starts == sorted(starts)
        assert len(group) == 1 or stops[-1] - starts[0] <= MAX_RANGE_BYTES
        assert all(starts[1:] - stops[:-1] <= MAX_GAP_BYTES)


@pytest.mark.parametrize("chunks", ["auto", None])
def test_a_digit_takes_two_requests_of_each_shard_over_http(chunks: Any, tmp_path: Path) -> None:
    layout: dict[str, Any] = {"order": "label", "chunk_bytes": 50_000, "shard_bytes": 2_000_000}
    write_zarr(DS, tmp_path / "t.zarr", level=1, **layout)
    with running_site(tmp_path) as site:
        ds = open_store(f"{site.address}/t.zarr", chunks=chunks)
        site.requests.clear()
        sevens = select(ds, label=7).image.load()
        (asked,) = set(site.asked("/image/"))
        assert len(site.asked("/image/")) == 2
    assert asked == "/t.zarr/image/c/0/0/0"
    expected = DS.image.values[DS.label.values == 7]
    np.testing.assert_array_equal(sevens.values, expected)


def remove_second(chunks: dict[int, bytes]) -> None:
    del chunks[1]


def damage_second(chunks: dict[int, bytes]) -> None:
    chunks[1] = chunks[1][:-9] + b"\xff" * 9


def bloat_second(chunks: dict[int, bytes]) -> None:
    chunks[1] = bytes(ZSTD_OF_A_GIGABYTE)


# A frame that states its size, and has no block.
ZSTD_OF_A_GIGABYTE = b"\x28\xb5\x2f\xfd\xe0" + (1 << 30).to_bytes(8, "little") + b"\x01\x00\x00"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (remove_second, f"{SHARD}, chunk 1: this chunk is missing; the store is damaged"),
        (damage_second, f"{SHARD}, chunk 1: cannot be decoded: .*(Zstd|checksum)"),
        (bloat_second, f"{SHARD}, chunk 1: cannot be decoded: .*decodes to 1,073,741,824 bytes"),
    ],
)
@pytest.mark.parametrize("place", ["folder", "web server", "store object"])
def test_damage_in_a_shard_names_the_chunk(
    edit: Callable[[dict[int, bytes]], object], message: str, place: str, store: Path
) -> None:
    edit_shard(store / SHARD, CHUNKS_PER_SHARD, edit)
    in_memory = {key: as_buffer(data) for key, data in file_contents(store).items()}
    with running_site(store.parent) as site:
        sources = {
            "folder": store,
            "web server": f"{site.address}/t.zarr",
            "store object": MemoryStore(in_memory),
        }
        source: Any = sources[place]
        with pytest.raises(StoreError, match=message):
            open_store(source).image.load()
        with pytest.raises(StoreError, match=message):
            open_store(source, chunks=None).image.isel(sample=[800, 850]).load()
        (problem,) = verify(source).problems
    assert problem.place == SHARD
    first = 3 * CHUNKS_PER_SHARD * 63 + 63
    assert problem.what.startswith(f"samples {first} to {first + 62} cannot be decoded: ")


def test_a_changed_index_is_damage(store: Path) -> None:
    data = bytearray((store / SHARD).read_bytes())
    data[-20] ^= 1
    (store / SHARD).write_bytes(data)
    with pytest.raises(StoreError, match=f"{SHARD}: cannot be decoded: the index of this shard"):
        open_store(store).image.load()
    assert {problem.place for problem in verify(store).problems} == {SHARD}


@pytest.mark.parametrize(
    ("first", "size", "message"),
    [
        (0, 10_000, "the shard is shorter than its index says"),
        (0, 1 << 40, "promises a chunk of 1,099,"),
        (1 << 62, 10, "promises a chunk up to byte 4,611,"),
    ],
)
def test_an_index_that_points_outside_is_damage(
    store: Path, first: int, size: int, message: str
) -> None:
    places = {n: (first + 10 * n, size) for n in range(CHUNKS_PER_SHARD)}
    (store / SHARD).write_bytes(b"x" * 100 + encode_index(places, CHUNKS_PER_SHARD))
    with pytest.raises(StoreError, match=f"{SHARD}: cannot be decoded: .*{message}"):
        open_store(store).image.load()
    assert {problem.place for problem in verify(store).problems} == {SHARD}


def test_chunks_that_another_program_left_out_of_a_shard_hold_the_fill_value(
    tmp_path: Path,
) -> None:
    values = np.zeros((40, 3), np.uint8)
    values[17] = 5
    encoding = {"image": {"chunks": (5, 3), "shards": (20, 3), "fill_value": 0}}
    ds = xr.Dataset({"image": (("sample", "x"), values)})
    with warnings.catch_warnings():  # xarray's, of consolidated metadata
        warnings.simplefilter("ignore")
        ds.to_zarr(tmp_path / "a.zarr", encoding=encoding, zarr_format=3, consolidated=True)
    assert len(list((tmp_path / "a.zarr/image/c").iterdir())) == 1
    ds = open_store(tmp_path / "a.zarr", chunks=None)
    np.testing.assert_array_equal(ds.image.values, values)
    np.testing.assert_array_equal(ds.image[[3, 17, 39]].values, values[[3, 17, 39]])


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index_codecs", [[BytesCodec()], [BytesCodec(), Crc32cCodec()]])
def test_shards_of_other_programs_are_read(
    tmp_path: Path, location: Any, index_codecs: list[Any]
) -> None:
    values = np.arange(120, dtype=np.int32).reshape(12, 10)
    codec = ShardingCodec(
        chunk_shape=(3, 5),
        codecs=[BytesCodec(), ZstdCodec()],
        index_codecs=index_codecs,
        index_location=location,
    )
    zarr.create_array(
        tmp_path / "t",
        data=values,
        chunks=(6, 10),
        serializer=codec,
        compressors=None,
        filters=None,
    )
    with pipeline_of(LocalSnapshot(tmp_path / "t")):
        array = zarr.open_array(LocalSnapshot(tmp_path / "t"), mode="r")
    assert isinstance(array, zarr.Array)
    for chosen in (np.s_[...], np.s_[2:9, 3], np.s_[::5, 1:8:3]):
        assert np.asarray(array[chosen]).tolist() == values[chosen].tolist()
    rows, columns = np.array([1, 11]), np.array([0, 9])
    assert (
        np.asarray(array.oindex[rows, columns]).tolist() == values[np.ix_(rows, columns)].tolist()
    )
    assert np.asarray(array.vindex[rows, columns]).tolist() == values[rows, columns].tolist()


def test_shards_of_one_dimension_are_read(tmp_path: Path) -> None:
    numbers = np.arange(100)
    zarr.create_array(tmp_path / "t", data=numbers, chunks=(4,), shards=(20,))
    with pipeline_of(LocalSnapshot(tmp_path / "t")):
        array = zarr.open_array(LocalSnapshot(tmp_path / "t"), mode="r")
    assert isinstance(array, zarr.Array)
    chosen = np.array([99, 3, 50, 3])
    assert np.asarray(array.oindex[chosen]).tolist() == chosen.tolist()
    assert np.asarray(array.vindex[chosen]).tolist() == chosen.tolist()
    assert np.asarray(array[5:90:30]).tolist() == [5, 35, 65]
    assert np.asarray(array[7]).item() == 7
    assert np.asarray(array[3:3]).tolist() == []
    mask = numbers % 17 == 0
    assert np.asarray(array[mask]).tolist() == numbers[mask].tolist()


@pytest.mark.parametrize("order", ["source", "label"])
def test_scattered_samples_hold_a_few_shards_in_memory(order: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40_000, 28, 28)).astype(np.uint8)
    ds = make_dataset(images, label=np.arange(40_000) % 10)
    write_zarr(
        ds, tmp_path / "t.zarr", order=order, level=1, shard_bytes=1_000_000, chunk_bytes=200_000
    )
    image = open_store(tmp_path / "t.zarr", chunks=None).image
    tracemalloc.start()
    try:
        image[::1000].load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 3


def test_plain_xarray_reads_the_same(store: Path) -> None:
    xr.testing.assert_identical(open_store(store).load(), xr.open_zarr(store).load())
