"""What every kind of place promises: an identity that tells versions apart."""

from __future__ import annotations

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
from tests.support.targets import Named

OLD, NEW = (
    make_dataset(np.full((8, 3, 3), value, np.uint8), label=np.arange(8)) for value in (1, 2)
)


def test_the_identity_of_a_place_tells_one_version_from_another(new_target: Named) -> None:
    target, options = new_target
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
