"""Uploads: complete or unreadable, resumed, and never over what is somebody else's."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError, Event
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

import mnist_zarr
from mnist_zarr.errors import StoreError, StoreNotFoundError, TargetBusyError, TargetExistsError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import (
    ROOT,
    as_buffer,
    copy_objects,
    is_document,
    keys_of,
    sync,
    unfinished_by,
)
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.stores.upload import Upload
from mnist_zarr.writing.writer import write_zarr
from tests.stores.test_lease import silence
from tests.support.bucket_stores import (
    CHUNK_BYTES,
    N_CHUNKS,
    N_SAMPLES,
    URL,
    keys_in_bucket,
    open_plainly,
    store_of_obstore,
    write_to_bucket,
)
from tests.support.digits import square_digits
from tests.support.object_server import BUCKET, S3Server

CHUNK = re.compile(r"/c/|/[0-9.]+$")


def fail_after(n_puts: int, s3: S3Server, answer: str = "403") -> None:
    """Refuse all chunks but the first ``n_puts``."""
    s3.fault = lambda method, path: (
        answer if method == "PUT" and path in s3.asked("PUT", "/c/")[n_puts:] else None
    )


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_the_root_metadata_are_written_last(s3: S3Server, zarr_format: Any) -> None:
    write_to_bucket(s3, zarr_format=zarr_format)
    puts = [path.removeprefix(f"/{BUCKET}/deep/t.zarr/") for path in s3.asked("PUT")]
    while puts[0] == ROOT:  # the lease, which nobody opens
        puts.pop(0)
    assert CHUNK.search(puts[0])
    roots = {3: ["zarr.json"], 2: [".zattrs", ".zgroup", ".zmetadata"]}[zarr_format]
    assert sorted(puts[-len(roots) :]) == roots
    assert puts[-1] in ("zarr.json", ".zgroup")
    assert all(is_document(key) for key in puts[-len(roots) - 4 :])
    assert not any(is_document(key) for key in puts[: -len(roots) - 4 * (4 - zarr_format)])


def test_chunks_are_sent_at_the_same_time(s3: S3Server) -> None:
    together = Barrier(N_CHUNKS // 2)

    def wait_for_others(method: str, path: str) -> None:
        if method == "PUT" and "image/c/" in path:
            with contextlib.suppress(BrokenBarrierError):
                together.wait(timeout=10)

    s3.fault = wait_for_others
    write_to_bucket(s3)
    assert not together.broken


def test_no_reader_opens_a_store_that_is_being_written(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write_to_bucket(s3)
    assert 10 <= len(keys_in_bucket(s3)) <= 13
    with pytest.raises(StoreNotFoundError):
        mnist_zarr.open_store(URL, storage_options=s3.options)
    with pytest.raises(FileNotFoundError):
        open_plainly(s3)


def test_an_interrupted_upload_resumes_without_sending_anything_twice(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write_to_bucket(s3)
    there = keys_in_bucket(s3) - {ROOT}
    s3.fault = lambda method, path: None
    s3.requests.clear()
    write_to_bucket(s3)
    sent = s3.asked("PUT")
    assert not [path for path in sent if path.removeprefix(f"/{BUCKET}/deep/t.zarr/") in there]
    assert len([path for path in sent if "/c/" in path]) == N_CHUNKS + 3 - len(there)
    assert not s3.asked("GET", "/c/")
    xr.testing.assert_equal(open_plainly(s3), square_digits())


def test_a_wrong_object_of_an_interrupted_upload_is_sent_again(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write_to_bucket(s3)
    s3.fault = lambda method, path: None
    store = BucketStore.from_url(URL, s3.options)
    for key in keys_in_bucket(s3) - {ROOT}:
        data = sync(store.get(key, default_buffer_prototype()))
        assert data is not None
        damaged = bytes([data.to_bytes()[0] ^ 1]) + data.to_bytes()[1:]
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(damaged)))
    write_to_bucket(s3)
    xr.testing.assert_equal(open_plainly(s3), square_digits())


def test_an_existing_store_is_refused_and_untouched(s3: S3Server) -> None:
    write_to_bucket(s3)
    s3.requests.clear()
    with pytest.raises(TargetExistsError, match=r"s3://bucket/deep/t\.zarr: exists already"):
        write_to_bucket(s3, square_digits(seed=1))
    assert not s3.asked("PUT")
    assert not s3.asked("DELETE")


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_nothing_opens_before_the_last_object_is_there(
    s3: S3Server, zarr_format: Any, quick_lease: None
) -> None:
    last = {3: "t.zarr/zarr.json", 2: "t.zarr/.zgroup"}[zarr_format]
    s3.fault = lambda method, path: (
        "403" if path.endswith(last) and method == "PUT" and s3.asked("PUT", "image/") else None
    )
    with pytest.raises(StoreError):
        write_to_bucket(s3, zarr_format=zarr_format)
    with pytest.raises(FileNotFoundError):
        open_plainly(s3)
    s3.fault = lambda method, path: None
    write_to_bucket(s3, zarr_format=zarr_format)
    assert open_plainly(s3).sizes["sample"] == 200


def test_a_store_is_kept_when_overwriting_fails_before_it_begins(s3: S3Server) -> None:
    write_to_bucket(s3)
    s3.fault = lambda method, path: "403" if method == "DELETE" else None
    with pytest.raises(StoreError, match="cannot be removed"):
        write_to_bucket(s3, square_digits(seed=1), overwrite=True)
    s3.fault = lambda method, path: None
    with pytest.raises(TargetExistsError):
        write_to_bucket(s3, square_digits(seed=1))
    xr.testing.assert_equal(open_plainly(s3), square_digits())


def test_overwriting_makes_the_old_store_unreadable_before_its_first_chunk_changes(
    s3: S3Server,
) -> None:
    write_to_bucket(s3)
    s3.requests.clear()
    openable: list[bool] = []

    def look(method: str, path: str) -> None:
        if method == "PUT" and "/c/" in path:
            openable.append(not unfinished_by(s3.content("deep/t.zarr/zarr.json")))

    s3.fault = look
    write_to_bucket(s3, square_digits(seed=1), overwrite=True)
    assert len(openable) >= N_CHUNKS
    assert not any(openable)
    xr.testing.assert_equal(open_plainly(s3), square_digits(seed=1))


def test_chunks_of_the_old_layout_are_removed(s3: S3Server) -> None:
    write_to_bucket(s3)
    write_to_bucket(s3, square_digits(50, seed=1), chunk_bytes=400, overwrite=True)
    keys = keys_in_bucket(s3)
    assert len([key for key in keys if key.startswith("image/c/")]) == 2
    write_to_bucket(s3, square_digits(seed=1), zarr_format=2, overwrite=True)
    assert "zarr.json" not in keys_in_bucket(s3)
    assert open_plainly(s3).sizes["sample"] == 200


def test_shards_take_the_place_of_chunks_and_of_older_shards_without_reading_them(
    s3: S3Server,
) -> None:
    write_to_bucket(s3)
    for seed in (1, 2):  # 190 samples: the last shard is not full
        write_to_bucket(s3, square_digits(190, seed), shard_bytes=640, overwrite=True)
        ds = open_plainly(s3).load()
        xr.testing.assert_equal(ds, square_digits(190, seed))
        s3.requests.clear()
    write_to_bucket(s3, square_digits(seed=3), shard_bytes=640, overwrite=True)
    assert not s3.asked("GET", "image/c/")


def test_other_peoples_objects_are_left_alone_even_when_overwriting(s3: S3Server) -> None:
    store = BucketStore.from_url(URL, s3.options)
    sync(store.set("thesis.txt", default_buffer_prototype().buffer.from_bytes(b"ten years")))
    with pytest.raises(StoreError, match=r"has objects, such as 'thesis\.txt', but is not a Zarr"):
        write_to_bucket(s3, overwrite=True)
    assert keys_in_bucket(s3) == {"thesis.txt"}


def test_an_object_that_vanished_meanwhile_keeps_the_store_closed(s3: S3Server) -> None:
    upload = Upload(MemoryStore(), "t.zarr")
    upload.begin(overwrite=False)
    source = MemoryStore()
    write_zarr(square_digits(), source, chunk_bytes=160)
    lost = "image/c/3/0/0"
    copy_objects(source, upload, keys_of(source) - {lost})
    with pytest.raises(StoreError, match="1 of 23 chunks, such as 'image/c/3/0/0', did not"):
        upload.finish()
    upload.give_up()


def test_a_store_of_obstore_is_a_target_with_the_same_guarantees(s3: S3Server) -> None:
    store = store_of_obstore(s3)
    s3.fault = lambda method, path: "403" if method == "PUT" and "/c/" in path else None
    with pytest.raises(StoreError, match=r"^object_store.*cannot be written: .*403 Forbidden: ?$"):
        write_zarr(square_digits(), store, chunk_bytes=160)
    s3.fault = lambda method, path: None
    write_zarr(square_digits(), store, chunk_bytes=160)
    assert s3.asked("PUT")[-1].endswith("t.zarr/zarr.json")
    with pytest.raises(TargetExistsError):
        write_zarr(square_digits(), store)
    xr.testing.assert_equal(open_plainly(s3), square_digits())


def test_a_server_killed_half_way_raises_an_error_and_the_build_resumes_later(
    s3: S3Server, quick_lease: None
) -> None:
    reached = Event()

    def watch(method: str, path: str) -> str | None:
        if path in s3.asked("PUT")[10:]:
            reached.set()
            return "503"
        return None

    s3.fault = watch
    with ThreadPoolExecutor(1) as threads:
        build = threads.submit(write_to_bucket, s3)
        assert reached.wait(60)
        s3.stop()
        try:
            with pytest.raises(StoreError, match=r"cannot be (written|read)"):
                build.result()
        finally:  # other tests use the same server
            s3.fault = lambda method, path: None
            s3.start()
    s3.requests.clear()
    write_to_bucket(s3)
    assert len([path for path in s3.asked("PUT") if "/c/" in path]) < N_CHUNKS + 3
    xr.testing.assert_equal(open_plainly(s3), square_digits())


# -- two builds at one place --------------------------------------------------------------


@pytest.fixture(params=["memory store", "memory", "s3"])
def place(request: pytest.FixtureRequest, memory_url: str) -> Place:
    if request.param == "s3":
        return parse_target(URL, request.getfixturevalue("s3").options)
    return parse_target(
        MemoryStore() if request.param == "memory store" else f"{memory_url}/t.zarr"
    )


def write_chunks(upload: Any, seed: int, n_samples: int = N_SAMPLES) -> None:
    """Write the chunks of a store, and set its metadata."""
    store = MemoryStore()
    write_zarr(square_digits(n_samples, seed), store, chunk_bytes=CHUNK_BYTES)
    copy_objects(store, upload, keys_of(store))


def test_of_two_builds_the_second_does_not_begin(place: Place, quick_lease: None) -> None:
    with place.create() as one:
        write_chunks(one, seed=1)
        with pytest.raises(TargetBusyError, match="another build of this target is under way"):
            _build(place, seed=2)
    np.testing.assert_array_equal(
        open_store(place.open(), chunks=None).image.values, square_digits(seed=1).image.values
    )


def _build(place: Place, seed: int, *, overwrite: bool = False) -> None:
    with place.create(overwrite=overwrite) as store:
        write_chunks(store, seed)


def test_of_two_builds_that_overwrite_the_one_whose_first_chunk_is_ready_goes_on(
    place: Place,
) -> None:
    _build(place, seed=1)
    with pytest.raises(TargetBusyError, match="has begun, or ended, since this one began"):
        _overtake(place)
    ds = open_store(place.open(), chunks=None)
    np.testing.assert_array_equal(ds.image.values, square_digits(seed=2).image.values)


def _overtake(place: Place) -> None:
    with place.create(overwrite=True) as late:
        _build(place, seed=2, overwrite=True)
        write_chunks(late, seed=3)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_dead_build_still_had_under_way_changes_nothing(
    s3: S3Server, quick_lease: None, overwrite: bool
) -> None:
    if overwrite:
        write_to_bucket(s3, square_digits(seed=1))
    dead = Upload(BucketStore.from_url(URL, s3.options), URL)
    dead.begin(overwrite=overwrite)
    objects = dead._lease.objects
    known = sync(objects.list())
    sync(dead.set("image/c/0/0/0", as_buffer(b"of the dead build")))
    silence(dead._lease)
    write_to_bucket(s3, square_digits(seed=2))
    late = [objects.put("image/c/3/0/0", b"late", None), objects.put("late/c", b"late", '"0"')]
    if overwrite and (found := known["image/c/3/0/0"]):
        late += [objects.put("image/c/3/0/0", b"late", found.version)]
        late += [objects.remove("image/c/4/0/0", found.version)]
    late += [dead._lease.end(b"the root document")]
    for request in late:
        with pytest.raises(TargetBusyError):
            sync(request)
    with pytest.raises(TargetBusyError, match="has begun, or ended, since this one began"):
        sync(dead.set("image/c/5/0/0", as_buffer(b"late")))
    dead.give_up()
    xr.testing.assert_equal(open_plainly(s3), square_digits(seed=2))
    assert verify(URL, storage_options=s3.options).is_whole


def test_a_chunk_of_another_build_is_found_by_verify(s3: S3Server) -> None:
    for seed in (1, 2):
        write_to_bucket(s3, square_digits(seed=seed), overwrite=True)
        store = BucketStore.from_url(URL, s3.options)
        chunk = sync(store.get("image/c/3/0/0", default_buffer_prototype()))
        if seed == 1:
            other = chunk
    assert other is not None
    sync(store.set("image/c/3/0/0", other))
    assert not verify(URL, storage_options=s3.options).is_whole


def test_a_chunk_that_another_writer_has_changed_keeps_the_store_closed(place: Place) -> None:
    with pytest.raises(StoreError, match=r"are not as they were sent|did not arrive"):
        _build_while_a_chunk_is_overwritten(place)
    with pytest.raises(StoreNotFoundError):
        open_store(place.open())


def _build_while_a_chunk_is_overwritten(place: Place) -> None:
    one: Any
    with place.create() as one:
        write_chunks(one, seed=1)
        sync(one._store.set("image/c/3/0/0", as_buffer(b"of another build")))


def test_the_old_store_stays_until_the_first_chunk_is_ready(place: Place) -> None:
    with place.create() as old:
        write_chunks(old, seed=1)
    before = place.identity()

    def fail(source: Exception) -> None:
        with place.create(overwrite=True):
            raise source

    with pytest.raises(OSError, match="the source is gone"):
        fail(OSError("the source is gone"))
    assert place.identity() == before
    np.testing.assert_array_equal(
        open_store(place.open(), chunks=None).image.values, square_digits(seed=1).image.values
    )


def test_objects_that_are_not_of_the_store_are_never_removed(place: Place) -> None:
    old: Any
    with place.create() as old:
        write_chunks(old, seed=1)
        sync(old._store.set("payroll.csv", as_buffer(b"salaries")))
        sync(old._store.set("reports/2024", as_buffer(b"minutes")))
    with place.create(overwrite=True) as new:
        write_chunks(new, seed=2, n_samples=20)
    keys = keys_of(place.open())
    assert {"payroll.csv", "reports/2024"} <= keys
    assert "image/c/15/0/0" not in keys
