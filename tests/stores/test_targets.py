"""What a target names, and what a store promises whose place cannot be swapped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from zarr.storage import MemoryStore

import mnist_zarr
from mnist_zarr.errors import OptionError, StoreError, TargetExistsError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.keys import copy_objects, keys_of
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.stores import TEN_DIGITS, in_memory, put_text


@pytest.mark.parametrize("target", ["object", "url"])
def test_a_store_that_cannot_be_renamed_has_no_metadata_before_it_is_complete(target: str) -> None:
    place: Any = MemoryStore() if target == "object" else "memory://storage-test.zarr"
    source = in_memory()
    for overwrite in (False, True):
        with parse_target(place).create(overwrite=overwrite) as store:
            copy_objects(source, store, keys_of(source))
            with pytest.raises(StoreError):
                open_store(place)
        xr.testing.assert_identical(open_store(place).load(), open_store(source).load())
    with pytest.raises(TargetExistsError), parse_target(place).create():
        pass


def test_a_file_url_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    with parse_target(f"file://{tmp_path}/a.zarr").create() as store:
        put_text(store, "zarr.json", "new")
        assert not (tmp_path / "a.zarr").exists()
    assert (tmp_path / "a.zarr" / "zarr.json").read_text() == "new"


def test_storage_options_of_a_local_path_or_a_store_are_refused(tmp_path: Path) -> None:
    for target in (tmp_path / "bucket" / "a.zarr", MemoryStore()):
        for action in (lambda **options: write_zarr(TEN_DIGITS, **options), open_store):
            with pytest.raises(OptionError, match="takes no `storage_options`, got anon, endpoint"):
                action(target=target, storage_options={"anon": True, "endpoint_url": "x"})
    assert os.listdir(tmp_path) == []


# A single file


# Icechunk


@pytest.mark.parametrize("action", [mnist_zarr.open_store, mnist_zarr.build])
def test_an_unknown_protocol_raises_a_clear_error(action: Callable[[str], Any]) -> None:
    with pytest.raises(StoreError, match=r"^nope://x: cannot be used as an address"):
        action("nope://x")
