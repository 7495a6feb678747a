"""What every kind of place promises: an identity that tells versions apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore, MemoryStore

import mnist_zarr
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import OptionError
from mnist_zarr.stores.object_places import GivenStore
from mnist_zarr.stores.targets import parse_target
from tests.support.object_server import BUCKET
from tests.support.partners import partner

OLD, NEW = (
    make_dataset(np.full((8, 3, 3), value, np.uint8), label=np.arange(8)) for value in (1, 2)
)
# A target that nothing is at yet, and its storage options.
Named = tuple[Any, dict[str, Any] | None]


KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": lambda path: path / "t.zarr",
    "zip": lambda path: path / "t.zarr.zip",
    "memory": lambda path: "memory://box/t.zarr",
    "s3": lambda path: f"s3://{BUCKET}/t.zarr",
    "s3 zip": lambda path: f"s3://{BUCKET}/t.zarr.zip",
    "icechunk": lambda path: f"icechunk+file://{path}/repository",
    "memory store": lambda path: MemoryStore(),
    "local store": lambda path: LocalStore(path / "t.zarr"),
}


@pytest.fixture(params=KINDS)
def named(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> Named:
    if request.param == "icechunk":
        partner("icechunk")
    is_in_bucket = request.param.startswith("s3")
    options = request.getfixturevalue("s3").options if is_in_bucket else None
    return KINDS[request.param](tmp_path), options


def test_the_identity_of_a_place_tells_one_version_from_another(named: Named) -> None:
    target, options = named
    place = parse_target(target, options)
    assert place.identity() is None
    mnist_zarr.write_zarr(OLD, target, storage_options=options)
    old = place.identity()
    assert old is not None
    assert place.identity() == old == parse_target(target, options).identity()
    image = mnist_zarr.open_store(target, storage_options=options).image
    np.testing.assert_array_equal(image.values, OLD.image.values)
    assert place.identity() == old  # reading changes nothing
    mnist_zarr.write_zarr(NEW, target, storage_options=options, overwrite=True)
    assert place.identity() not in (None, old)


@pytest.mark.parametrize("target", [None, 3, b"t.zarr", ["t.zarr"]])
def test_what_names_no_place_is_refused(target: Any) -> None:
    with pytest.raises(OptionError, match="expected a path, a URL or a Zarr store, got"):
        parse_target(target)


def test_a_store_in_memory_is_not_shared_with_workers_and_one_on_disk_is(tmp_path: Path) -> None:
    assert not GivenStore(MemoryStore()).is_shared
    assert not parse_target("memory://t.zarr").is_shared
    assert parse_target(tmp_path / "t.zarr").is_shared
    assert GivenStore(LocalStore(tmp_path)).is_shared
