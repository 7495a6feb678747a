"""A local store as it was when it was opened."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mnist_zarr.errors import StoreReplacedError
from mnist_zarr.stores.snapshot import LocalSnapshot
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


def test_copies_of_a_snapshot_stay_the_same_version(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(digits(), target)
    snapshot = LocalSnapshot(target)
    write_zarr(digits(), target, overwrite=True)
    for same in (snapshot.with_read_only(True), pickle.loads(pickle.dumps(snapshot))):
        with pytest.raises(StoreReplacedError):
            same.check_version()
    LocalSnapshot(target).check_version()
