"""Lazy arrays lead back to the stores that they read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore, MemoryStore, ZipStore

import mnist_zarr
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.stores.lineage import same_objects, stores_behind
from mnist_zarr.stores.targets import parse_target

DS = make_dataset(np.arange(72, dtype=np.uint8).reshape(8, 3, 3), label=np.arange(8) % 2)
Opener = Callable[[Any], xr.Dataset]


def readable_by_zarr(target: Any) -> Any:
    return ZipStore(target, mode="r") if str(target).endswith(".zip") else target


OPENERS: dict[str, Opener] = {
    "open_store": mnist_zarr.open_store,
    "open_store, no dask": lambda target: mnist_zarr.open_store(target, chunks=None),
    "open_zarr": lambda target: xr.open_zarr(readable_by_zarr(target)),
    "open_zarr, no dask": lambda target: xr.open_zarr(readable_by_zarr(target), chunks=None),
}
CHANGES: dict[str, Opener] = {
    "as it is": lambda ds: ds,
    "selected": lambda ds: mnist_zarr.select(ds, label=1),
    "rescaled": mnist_zarr.rescale,
    "arithmetic": lambda ds: ds.assign(image=ds.chunk().image / 2),
    "concatenated": lambda ds: xr.concat([ds.chunk(), ds.chunk()], "sample"),
}


@pytest.fixture(params=["folder", "zip", "memory", "memory store"])
def target(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> Any:
    return {
        "folder": tmp_path / "t.zarr",
        "zip": tmp_path / "t.zarr.zip",
        "memory": f"{memory_url}/t.zarr",
        "memory store": MemoryStore(),
    }[request.param]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("opener", OPENERS)
def test_the_store_behind_a_lazy_array_is_found(target: Any, opener: str, change: str) -> None:
    mnist_zarr.write_zarr(DS, target)
    ds = CHANGES[change](OPENERS[opener](target))
    found = list(stores_behind([ds.image.variable]))
    assert found
    if not str(target).endswith(".zip"):  # of which plain zarr and ours are different readers
        assert all(same_objects(store, parse_target(target).open()) for store in found)


def test_no_store_is_behind_arrays_in_memory(tmp_path: Path) -> None:
    mnist_zarr.write_zarr(DS, tmp_path / "t.zarr")
    loaded = mnist_zarr.open_store(tmp_path / "t.zarr").load()
    assert list(stores_behind([loaded.image.variable, loaded.label.variable])) == []


def test_stores_with_the_same_content_are_not_the_same_objects(tmp_path: Path) -> None:
    one, other = MemoryStore(), MemoryStore()
    assert same_objects(one, one.with_read_only(True))
    assert not same_objects(one, other)
    assert not same_objects(LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b"))
