"""Shards that are filled chunk by chunk."""

from __future__ import annotations

import errno
import itertools
import pickle
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import StoreError
from mnist_zarr.stores.shard_index import decode_index, index_bytes
from mnist_zarr.writing import shards as shards_module
from mnist_zarr.writing.shards import OpenShards
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import keys_in_bucket, open_plainly, write_to_bucket
from tests.support.digits import digits, square_digits
from tests.support.object_server import BUCKET, S3Server

CHUNKS = [b"zero", b"one" * 50, b"two"]


def fill(shards: OpenShards, numbers: Any) -> list[bytes]:
    """Return the shards that became full while these chunks were added."""
    added = [shards.add(number, CHUNKS[number], is_blank=False) for number in numbers]
    return [bytes(shard.take()) for shard in added if shard is not None]


@pytest.mark.parametrize("memory_bytes", [1, 1 << 20])
def test_the_order_in_which_chunks_come_does_not_matter(
    memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "MEMORY_BYTES", memory_bytes)
    made = {bytes(fill(OpenShards(3, 3), order)[0]) for order in itertools.permutations(range(3))}
    (shard,) = made
    assert shard.startswith(b"".join(CHUNKS))
    places = decode_index(shard[-index_bytes(3) :], 3)
    assert [shard[a : a + n] for a, n in filter(None, places)] == CHUNKS


def test_the_last_shard_is_full_when_the_last_chunk_of_the_array_is_there() -> None:
    whole, last = fill(OpenShards(2, 3), [2, 0, 1])[::-1]
    assert decode_index(last[-index_bytes(2) :], 2) == [(0, 3), None]
    assert decode_index(whole[-index_bytes(2) :], 2) == [(0, 4), (4, 150)]


def test_a_shard_is_blank_if_all_of_its_chunks_are() -> None:
    for blank in itertools.product([False, True], repeat=2):
        shards = OpenShards(2, 2)
        shards.add(0, b"", is_blank=blank[0])
        full = shards.add(1, b"", is_blank=blank[1])
        assert full is not None
        assert full.is_blank == all(blank)
        full.close()


def test_another_process_begins_without_open_shards() -> None:
    shards = OpenShards(2, 2)
    shards.add(0, b"here", is_blank=False)
    there = pickle.loads(pickle.dumps(shards))
    assert there.add(1, b"there", is_blank=False) is None
    for each in (shards, there):
        each.close()


def test_chunks_of_open_shards_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "MEMORY_BYTES", 1000)
    chunk, shards = bytes(100_000), OpenShards(10, 1000)
    tracemalloc.start()
    try:
        for number in set(range(1000)) - set(range(0, 1000, 10)):  # a hundred shards, none full
            assert shards.add(number, chunk, is_blank=False) is None
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
        shards.close()


def test_a_full_disk_of_temporary_files_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch.object(tempfile.SpooledTemporaryFile, "write", side_effect=full),
        pytest.raises(StoreError, match=f"{tempfile.gettempdir()}: was not written: No space"),
    ):
        write_zarr(digits(), tmp_path / "t.zarr", chunk_bytes=60, shard_bytes=600)
    assert not (tmp_path / "t.zarr").exists()


def test_a_build_that_fails_leaves_no_temporary_file_open(tmp_path: Path) -> None:
    """An unclosed one would warn, which is an error here."""
    ds = digits(600)
    fault = mock.patch(
        "mnist_zarr.writing.chunks.ArrayWriter._set", side_effect=OSError(errno.EIO, "broken")
    )
    with fault, pytest.raises(StoreError, match="broken"):
        write_zarr(ds, tmp_path / "t.zarr", order="label", chunk_bytes=60, shard_bytes=600)


def test_a_store_in_shards_has_the_same_samples() -> None:
    values = np.arange(1000 * 6, dtype=np.uint16).reshape(1000, 2, 3)
    store = MemoryStore()
    write_zarr(make_dataset(values), store, order="shuffled", chunk_bytes=120, shard_bytes=1000)
    stored = xr.open_zarr(store).load()
    assert (stored.image.values == values[stored.source_index.values]).all()


def test_an_interrupted_upload_of_shards_goes_on_where_it_ended(
    s3: S3Server, quick_lease: None
) -> None:
    ds, layout = square_digits(400), {"order": "label", "shard_bytes": 1600}

    def break_after_three(method: str, path: str) -> str | None:
        is_late = method == "PUT" and len(s3.asked("PUT", "/image/c/")) > 3
        return "403" if is_late else None

    s3.fault = break_after_three
    with pytest.raises(StoreError):
        write_to_bucket(s3, ds, **layout)
    there = {key for key in keys_in_bucket(s3) if "image/c/" in key}
    assert len(there) == 3
    s3.fault = lambda method, path: None
    s3.requests.clear()
    write_to_bucket(s3, ds, **layout)
    sent = s3.asked("PUT", "/image/c/")
    assert not [path for path in sent if path.removeprefix(f"/{BUCKET}/deep/t.zarr/") in there]
    assert len(sent) == 4 - len(there)
    stored = open_plainly(s3).load()
    xr.testing.assert_equal(stored.sortby("source_index").image, ds.image)
