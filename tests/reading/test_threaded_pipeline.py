"""Decoding on threads: the same values as zarr-python's, an error for what is missing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import MemoryStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.errors import StoreError
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.plot import mean_images
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.threaded_pipeline import ThreadedPipeline, pipeline_of
from mnist_zarr.stores.keys import as_buffer, is_document
from mnist_zarr.stores.snapshot import LocalSnapshot
from mnist_zarr.writing.writer import write_zarr
from tests.support.files import file_contents

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"codec": "gzip"},
    {"shard_bytes": 200_000},
    {"zarr_format": 2},
    {"zarr_format": 2, "codec": "gzip"},
]


def write_digits(target: Path, **layout: Any) -> Path:
    digits = open_dataset("mnist").isel(sample=slice(59_000, 61_000))
    write_zarr(digits, target, order="label", chunk_bytes=50_000, level=1, **layout)
    return target


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_any_selection_is_what_plain_xarray_reads(layout: dict[str, Any], tmp_path: Path) -> None:
    store = write_digits(tmp_path / "t.zarr", **layout)
    ours, plain = open_store(store, chunks=None), xr.open_zarr(store).load()
    xr.testing.assert_identical(ours.load(), plain)
    rng = np.random.default_rng(0)
    for rows in (rng.integers(0, 2000, 50), slice(3, 700, 7), slice(None, None, -1), [5, 5], 1999):
        for columns in (slice(None), slice(2, 20), [4, 1], [*range(1, 28), 0], 3):
            indexers = {"sample": rows, "col": columns}
            chosen = open_store(store, chunks=None).image.isel(indexers)
            assert chosen.values.tolist() == plain.image.isel(indexers).values.tolist()
    diagonal = dict.fromkeys(("sample", "row", "col"), xr.DataArray(np.arange(28), dims="point"))
    chosen = open_store(store, chunks=None).image.isel(diagonal)
    assert chosen.values.tolist() == plain.image.isel(diagonal).values.tolist()


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
def test_chunks_of_images_do_not_pass_through_zarrs_event_loop(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    ds = open_store(write_digits(tmp_path / "t.zarr", **layout), chunks=None)
    with mock.patch.object(BatchedCodecPipeline, "read_batch", side_effect=AssertionError):
        assert ds.image.values.shape == (2000, 28, 28)


@pytest.mark.parametrize("endian", ["little", "big"])
def test_numbers_of_either_byte_order_are_read(endian: Any, tmp_path: Path) -> None:
    numbers = np.arange(100_000, 100_030, dtype=np.int32).reshape(10, 3)
    zarr.create_array(
        tmp_path / "t",
        data=numbers,
        chunks=(4, 3),
        serializer=BytesCodec(endian=endian),
        compressors=ZstdCodec(),
    )
    store = LocalSnapshot(tmp_path / "t")
    with pipeline_of(store):
        array = zarr.open_array(store, mode="r")
    with mock.patch.object(BatchedCodecPipeline, "read_batch", side_effect=AssertionError):
        assert np.asarray(array[...]).tolist() == numbers.tolist()


def test_dask_arrays_of_a_store_travel_to_other_processes(tmp_path: Path) -> None:
    store = write_digits(tmp_path / "t.zarr")
    there = pickle.loads(pickle.dumps(open_store(store)))
    assert (there.image.values == xr.open_zarr(store).image.values).all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_missing_chunk_raises_an_error_that_names_it(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    store = write_digits(tmp_path / "t.zarr", **layout)
    name = "image/3.0.0" if "zarr_format" in layout else "image/c/3/0/0"
    (store / name).unlink()
    with pytest.raises(StoreError, match=f"{name}: this chunk is missing"):
        open_store(store).image.load()


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_damaged_chunk_raises_an_error(codec: Any, tmp_path: Path) -> None:
    store = write_digits(tmp_path / "t.zarr", codec=codec)
    chunk = store / "image" / "c" / "3" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(Exception, match=r"Zstd decompression error|invalid|CRC|distance"):
        open_store(store).image.load()


def test_plain_xarray_does_not_use_the_threaded_pipeline(tmp_path: Path) -> None:
    store = write_digits(tmp_path / "t.zarr")
    open_store(store)
    array = zarr.open_group(store, mode="r")["image"]
    assert isinstance(array, zarr.Array)
    assert type(array.async_array.codec_pipeline) is BatchedCodecPipeline


def test_zarr_does_not_decode_on_plain_threads_by_default(tmp_path: Path) -> None:
    """When it does, this module has less to do."""
    store = write_digits(tmp_path / "t.zarr")
    with pipeline_of(LocalSnapshot(store)):
        array = zarr.open_group(store, mode="r")["image"]
    assert isinstance(array, zarr.Array)
    assert type(array.async_array.codec_pipeline) is ThreadedPipeline
    assert zarr.config.get("codec_pipeline.path").endswith(".BatchedCodecPipeline")


READ_IN_A_FORK = """
import os, sys, warnings
from mnist_zarr import open_store

warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
image = open_store(sys.argv[1], chunks=None).image
expected = int(image.sum())
child = os.fork()
if child == 0:
    os._exit(int(image[::-1].sum()) != expected)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize("layout", [{}, {"shard_bytes": 200_000}], ids=str)
def test_a_forked_process_goes_on_reading(layout: dict[str, Any], tmp_path: Path) -> None:
    store = write_digits(tmp_path / "t.zarr", **layout)
    command = [sys.executable, "-c", READ_IN_A_FORK, str(store)]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", ["image", "label"])
def test_a_chunk_that_cannot_be_decoded_is_an_error_of_ours_in_every_use(
    tmp_path: Path, layout: dict[str, Any], name: str
) -> None:
    store = write_digits(tmp_path / "t.zarr", **layout)
    chunk = max((path for path in (store / name).rglob("*") if is_chunk(path)), key=os.path.getsize)
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"\xff" * 9)
    uses: list[Callable[[], object]] = [
        lambda: open_store(copied(store)).image.load(),
        lambda: mean_images(open_store(store)),
        lambda: write_idx_files(open_store(store), tmp_path / "idx"),
        lambda: write_npz(open_store(store, chunks=None), tmp_path / "d.npz"),
        lambda: write_zarr(open_store(store, chunks=None), tmp_path / "new.zarr"),
    ]
    for use in uses:
        with pytest.raises(StoreError, match=f"{name}/.*cannot be decoded"):
            use()
    assert os.listdir(tmp_path) == ["t.zarr"]


def is_chunk(path: Path) -> bool:
    return path.is_file() and not is_document(path.name)


def copied(store: Path) -> MemoryStore:
    contents = file_contents(store)
    return MemoryStore({key: as_buffer(data) for key, data in contents.items()})
