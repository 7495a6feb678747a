"""Whatever the kind of target: no store is mixed, half there, or destroyed by its own sink."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.errors import SourceNotFoundError, StoreError, StoreReplacedError, TargetBusyError
from mnist_zarr.hosting import publication
from mnist_zarr.hosting.publication import publish
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import as_buffer, copy_objects, keys_of, sync
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing import chunks
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.stores import in_memory
from tests.support.targets import IN_PLACE, Named


@pytest.fixture
def named(new_target: Named) -> Named:
    """A target of any kind, at which there is a store."""
    target, options = new_target
    write_zarr(digits(90, seed=1), target, chunk_bytes=200, storage_options=options)
    return new_target


def opened(named: Named, chunks: Any = None) -> xr.Dataset:
    return open_store(named[0], chunks=chunks, storage_options=named[1])


@pytest.mark.parametrize("chunks", [None, "auto"])
@pytest.mark.parametrize("order", ["label", "source"])
def test_a_store_is_not_destroyed_by_being_written_onto_itself(
    kind: str, named: Named, chunks: Any, order: Any
) -> None:
    ds, place = opened(named, chunks), parse_target(*named)
    before = place.identity()

    def write_onto_itself() -> None:
        write_zarr(ds, named[0], order=order, overwrite=True, storage_options=named[1])

    if kind in IN_PLACE:
        with pytest.raises(StoreError, match="the Dataset is read from this very store"):
            write_onto_itself()
        assert place.identity() == before
    else:
        write_onto_itself()
    assert verify(named[0], storage_options=named[1]).is_whole
    back = opened(named).sortby("source_index").load()
    np.testing.assert_array_equal(back.image.values, digits(90, seed=1).image.values)
    np.testing.assert_array_equal(back.label.values, digits(90, seed=1).label.values)


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_store_whose_chunks_did_not_arrive_takes_no_place(
    named: Named, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write = chunks.ArrayWriter.write

    def write_into_nothing(self: Any, start: int, samples: Any) -> Any:
        """Stand for a worker with a disk of its own."""
        if self.array.path != "image" or start != 0:
            return write(self, start, samples)
        if what == "empty":
            sync(self.array.store.set("image/c/0/0/0", as_buffer(b"")))
        return chunks.Written("image", 0, False, {})

    place = parse_target(*named)
    before = place.identity()
    monkeypatch.setattr(chunks.ArrayWriter, "write", write_into_nothing)
    with pytest.raises(StoreError, match=r"1 of \d+ chunks, such as 'image/c/0/0/0'"):
        write_zarr(digits(90, seed=2), named[0], overwrite=True, storage_options=named[1])
    # What is replaced as a whole is as it was; what is written in place is closed.
    assert place.identity() in (before, None)


def test_a_source_that_is_replaced_while_it_is_published_raises_an_error(
    named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = publication._send

    def send_and_replace(*args: Any) -> Any:
        sent = send(*args)
        write_zarr(digits(90, seed=2), named[0], overwrite=True, storage_options=named[1])
        return sent

    monkeypatch.setattr(publication, "_send", send_and_replace)
    with pytest.raises(StoreReplacedError, match="was replaced while it was being copied"):
        publish(named[0], tmp_path / "published.zarr", source_options=named[1])
    assert not (tmp_path / "published.zarr").exists()


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_what_open_store_reads_is_of_one_version(named: Named, chunks: Any) -> None:
    old = opened(named, chunks)
    travelled = pickle.loads(pickle.dumps(old)) if isinstance(named[0], str | Path) else old
    assert old.image[:3].values.any()
    write_zarr(
        digits(90, seed=2), named[0], chunk_bytes=200, overwrite=True, storage_options=named[1]
    )
    for ds in (old, travelled):
        if str(named[0]).startswith("icechunk+"):  # the commit that was opened is still there
            np.testing.assert_array_equal(ds.image.values, digits(90, seed=1).image.values)
        else:
            with pytest.raises(StoreReplacedError, match="was replaced while it was being read"):
                ds.image.load()
    np.testing.assert_array_equal(opened(named).image.values, digits(90, seed=2).image.values)


def _fail(block: Any) -> Any:
    raise SourceNotFoundError("the source is gone")


def test_a_build_that_fails_before_its_first_chunk_leaves_the_old_store(named: Named) -> None:
    place = parse_target(*named)
    before = place.identity()
    ds = digits(90, seed=2).chunk()
    broken = ds.assign(image=ds.image.copy(data=ds.image.data.map_blocks(_fail, dtype="u1")))
    with pytest.raises(SourceNotFoundError, match="the source is gone"):
        write_zarr(broken, named[0], overwrite=True, storage_options=named[1])
    assert place.identity() == before
    assert verify(named[0], storage_options=named[1]).is_whole


def test_of_two_concurrent_builds_the_one_that_is_there_is_whole(
    kind: str, named: Named, quick_lease: None
) -> None:
    def build_both() -> None:
        store = in_memory(digits(90, seed=2))
        with parse_target(*named).create(overwrite=True) as first:
            copy_objects(store, first, keys_of(store))
            with expected:
                write_zarr(digits(90, seed=3), named[0], overwrite=True, storage_options=named[1])

    expected: Any = pytest.raises(TargetBusyError)
    if kind == "s3 zip":  # a single object: the last one to be sent
        expected = contextlib.nullcontext()
    if kind == "icechunk":
        expected = contextlib.nullcontext()
        with pytest.raises(TargetBusyError):
            build_both()
    else:
        build_both()
    assert verify(named[0], storage_options=named[1]).is_whole
    winner = digits(90, seed=3 if kind == "icechunk" else 2).image.values
    np.testing.assert_array_equal(opened(named).image.values, winner)
