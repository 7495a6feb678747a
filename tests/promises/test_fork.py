"""What was opened can be read in forked processes, also after the parent has read from it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_zarr.dataset.batches import batches
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.forks import in_fork
from tests.support.targets import Named

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks by itself")


def test_a_child_that_hangs_is_found() -> None:
    with pytest.raises(TimeoutError, match=r"has not answered within 0\.2 s"):
        in_fork(threading.Event().wait, seconds=0.2)


@pytest.mark.parametrize("chunks", [None, {"sample": 50}], ids=["lazy", "dask"])
def test_a_store_of_any_kind_is_read_after_a_fork(new_target: Named, chunks: Any) -> None:
    target, options = new_target
    ds = digits(200, shape=(40, 40))
    write_zarr(ds, target, chunk_bytes=16_000, storage_options=options)
    opened = open_store(target, chunks=chunks, storage_options=options)
    np.testing.assert_array_equal(opened.image[:10].compute(scheduler="synchronous"), ds.image[:10])

    def read() -> Any:
        return opened.image.compute(scheduler="synchronous").values

    if str(target).startswith("icechunk"):
        with pytest.raises(RuntimeError, match=r"StoreError: .* Icechunk cannot read in a process"):
            in_fork(read)
        return
    for _ in range(2):
        np.testing.assert_array_equal(in_fork(read), ds.image.values)
    np.testing.assert_array_equal(read(), ds.image.values)


@pytest.mark.parametrize("chunks", [None, "auto"], ids=["lazy", "dask"])
@pytest.mark.parametrize("kind", ["folder", "zip", "s3", "s3 through s3fs"])
def test_batches_are_made_after_a_fork_while_the_parent_makes_some(
    new_target: Named, chunks: Any
) -> None:
    target, options = new_target
    ds = digits(200, shape=(40, 40))
    write_zarr(ds, target, chunk_bytes=16_000, storage_options=options)
    window = 200_000 if chunks is None else 400_000  # the one chunk of dask is 320,000
    opened = open_store(target, chunks=chunks, storage_options=options)
    training = batches(rescale(opened), 16, window=window)
    # dask's threads are there when the child is born, and are not asked by it.
    open_store(target, storage_options=options).image.load()
    begun = iter(training)
    first = next(begun)

    def labels() -> Any:
        training.set_epoch(0)
        return [batch.labels.tolist() for batch in training]

    expected = in_fork(labels)
    assert expected == [first.labels.tolist(), *(batch.labels.tolist() for batch in begun)]
    assert len(expected) == 13


def test_files_are_read_after_a_fork(tmp_path: Path) -> None:
    ds = digits(200, shape=(40, 40))
    write_idx(ds.image.values, tmp_path / "images-idx3-ubyte.gz")
    opened = open_idx(tmp_path / "images-idx3-ubyte.gz")
    opened.image[5].load()
    np.testing.assert_array_equal(in_fork(lambda: opened.image.values), ds.image.values)
