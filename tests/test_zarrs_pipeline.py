"""Decoding with zarrs: the same values, and no black pictures for what is missing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr import zarrs_pipeline
from mnist_zarr.catalog import open_catalog
from mnist_zarr.errors import StoreError
from mnist_zarr.local_pipeline import ThreadedPipeline
from mnist_zarr.reader import open_store
from mnist_zarr.template import ZarrFormat
from mnist_zarr.writer import write_zarr
from mnist_zarr.zarrs_pipeline import CheckedZarrsPipeline, fast_pipeline


@pytest.fixture
def store(tmp_path: Path) -> Path:
    target = tmp_path / "t.zarr"
    digits = open_catalog("mnist").isel(sample=slice(59_000, 61_000))
    write_zarr(digits, target, order="label", chunk_bytes=50_000, level=1)
    return target


def pipeline_of(ds: xr.Dataset) -> object:
    lazy = ds.image.variable._data
    while hasattr(lazy, "array"):
        lazy = lazy.array
    return lazy.get_array().async_array.codec_pipeline


def test_a_local_store_is_decoded_by_zarrs_to_what_plain_xarray_reads(store: Path) -> None:
    fast = open_store(store, chunks=None)
    assert isinstance(pipeline_of(fast), CheckedZarrsPipeline)
    plain = xr.open_zarr(store, chunks=None)
    assert not isinstance(pipeline_of(plain), CheckedZarrsPipeline)
    xr.testing.assert_identical(fast.load(), plain.load())


def test_any_selection_is_the_same(store: Path) -> None:
    fast, plain = open_store(store, chunks=None), xr.open_zarr(store).load()
    rng = np.random.default_rng(0)
    for rows in (rng.integers(0, 2000, 50), slice(3, 700, 7), slice(None, None, -1), [5, 5, 0]):
        for columns in (slice(None), slice(2, 20), [4, 1], 3):
            indexers = {"sample": rows, "col": columns}
            assert fast.image.isel(indexers).values.tolist() == (
                plain.image.isel(indexers).values.tolist()
            )


def test_dask_arrays_of_it_travel_to_other_processes(store: Path) -> None:
    there = pickle.loads(pickle.dumps(open_store(store)))
    assert (there.image.values == xr.open_zarr(store).image.values).all()


def test_a_missing_chunk_is_an_error_that_names_it(store: Path) -> None:
    (store / "image" / "c" / "3" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=r"image/c/3/0/0: this chunk is missing"):
        open_store(store).image.load()


def test_a_damaged_chunk_is_an_error(store: Path) -> None:
    chunk = store / "image" / "c" / "3" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(OSError, match="checksum"):
        open_store(store).image.load()


def test_without_zarrs_the_usual_codecs_decode_on_threads(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarrs_pipeline, "ZarrsCodecPipeline", None)
    assert type(pipeline_of(open_store(store, chunks=None))) is ThreadedPipeline


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_only_local_stores_of_format_3_are_decoded_by_zarrs(
    zarr_format: ZarrFormat, tmp_path: Path
) -> None:
    target = tmp_path / "t.zarr"
    digits = open_catalog("mnist").isel(sample=slice(0, 10))
    write_zarr(digits, target, zarr_format=zarr_format)
    expected = CheckedZarrsPipeline if zarr_format == 3 else ThreadedPipeline
    assert type(pipeline_of(open_store(target, chunks=None))) is expected
    assert fast_pipeline(MemoryStore()) == {}
    xr.testing.assert_identical(open_store(target).load(), xr.open_zarr(target).load())
