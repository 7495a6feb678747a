"""Stores in a zip file, read by several processes at once, after a fork too."""

from __future__ import annotations

import multiprocessing
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xarray as xr

from mnist_zarr.errors import StoreError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import mnist_samples


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_zarr(mnist_samples(0, 400), tmp_path / "d.zarr.zip", chunk_bytes=20_000)
    return tmp_path / "d.zarr.zip"


def _read(ds: xr.Dataset, results: Any) -> None:
    results.put(all(int(ds.image.values.sum()) == SUM for _ in range(5)))


SUM = int(mnist_samples(0, 400).image.values.sum())


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_processes_read_an_opened_store_at_the_same_time(target: Path, way: Any) -> None:
    context = multiprocessing.get_context(way)
    ds, results = open_store(target, chunks=None), context.Queue()
    assert ds.image[:3].values.any()
    workers = [context.Process(target=_read, args=(ds, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [True] * 4
    for worker in workers:
        worker.join(timeout=60)


def test_a_missing_chunk_raises_an_error_that_names_it(target: Path) -> None:
    with zipfile.ZipFile(target) as whole, zipfile.ZipFile(f"{target}.zip", "w") as part:
        for name in whole.namelist():
            if name != "image/c/3/0/0":
                part.writestr(name, whole.read(name))
    image = open_store(f"{target}.zip").image
    with pytest.raises(StoreError, match=r"\.zip/image/c/3/0/0: this chunk is missing"):
        image.load()


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_metadata_that_inflate_to_more_than_the_memory_are_refused(
    kind: str, tmp_path: Path, memory_url: str
) -> None:
    place = tmp_path / "t.zarr.zip"
    with (
        zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("zarr.json", "w") as document,
    ):
        for _ in range(65):
            document.write(b" " * (1 << 20))
    target = str(place)
    if kind == "remote":
        target = f"{memory_url}/t.zarr.zip"
        fsspec.filesystem("memory").pipe("/box/t.zarr.zip", place.read_bytes())
    tracemalloc.start()
    with pytest.raises(StoreError, match=r"zarr\.json: metadata of 68,157,440 bytes"):
        open_store(target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
