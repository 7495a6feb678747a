"""A local store that is replaced while it is read: an error, never a mixture."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.errors import StoreReplacedError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import mnist_samples

LAYOUTS: list[dict[str, Any]] = [{}, {"zarr_format": 2}, {"shard_bytes": 100_000}]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_reading_a_store_that_was_replaced_raises_an_error(
    tmp_path: Path, layout: dict[str, Any], chunks: Any
) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(mnist_samples(0, 100), target, chunk_bytes=20_000, **layout)
    old = open_store(target, chunks=chunks)
    assert old.image[:30].values.any()
    there = pickle.loads(pickle.dumps(old))
    write_zarr(mnist_samples(0, 100), target, chunk_bytes=20_000, overwrite=True, **layout)
    for opened in (old, there):
        with pytest.raises(StoreReplacedError, match=r"d\.zarr: the store was replaced"):
            opened.image[50:].load()
    assert open_store(target).image.values.any()


# -- readers in other processes, while the store is built anew --------------------------

N_READERS = 8
N_BUILDS = 30


def version(number: int) -> xr.Dataset:
    """Make a Dataset each of whose samples tells label and version by every pixel."""
    label = np.random.default_rng(number).integers(0, 10, 500).astype(np.uint8)
    image = np.broadcast_to(label[:, None, None] + np.uint8(10 * (number % 20)), (500, 8, 8))
    return xr.Dataset(
        {"image": (("sample", "row", "col"), image)}, {"label": ("sample", label)}
    ).assign_attrs(number=number)


def read_digits(
    target: str, seed: int, all_begin: Barrier, is_over: Event
) -> tuple[int, int, set[int]]:
    """Select digits at random; return whole reads, refused ones, and the versions seen."""
    all_begin.wait()
    random = np.random.default_rng(seed)
    n_whole, n_refused, seen = 0, 0, set()
    while not is_over.is_set() or n_whole < 10:
        label = int(random.integers(10))
        chunks = None if random.integers(2) else "auto"
        try:
            ds = open_store(target, chunks=chunks)
            image = ds.sel(label=label).image.load()
        except StoreReplacedError:
            n_refused += 1
            continue
        number = int(ds.attrs["number"])
        assert image.sizes["sample"] == np.count_nonzero(version(number).label == label)
        assert (image == label + 10 * (number % 20)).all()
        n_whole += 1
        seen.add(number)
    return n_whole, n_refused, seen


@pytest.mark.slow
def test_readers_get_whole_versions_while_the_store_is_built_again_and_again(
    tmp_path: Path,
) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(version(0), target, chunk_bytes=2_000)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(N_READERS, context) as executor:
        all_begin, is_over = manager.Barrier(N_READERS + 1), manager.Event()
        readers = [
            executor.submit(read_digits, str(target), seed, all_begin, is_over)
            for seed in range(N_READERS)
        ]
        all_begin.wait()
        orders: tuple[Order, ...] = ("source", "label")
        for number in range(1, N_BUILDS + 1):
            order = orders[number % 2]
            write_zarr(version(number), target, order=order, chunk_bytes=2_000, overwrite=True)
        is_over.set()
        outcomes = [reader.result() for reader in readers]
    assert all(n_whole >= 10 for n_whole, _, _ in outcomes)
    assert len(set.union(*(seen for _, _, seen in outcomes))) > 2
    assert sum(n_refused for _, n_refused, _ in outcomes) > 0
