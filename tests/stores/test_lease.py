"""The rules of a lease: who gets a place, who loses it, and who says so."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from zarr.storage import LocalStore, MemoryStore

from mnist_zarr.errors import StoreError, StoreNotFoundError, TargetBusyError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores import lease as lease_module
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import ROOT, sync, unfinished_by
from mnist_zarr.stores.lease import Lease
from mnist_zarr.stores.object_places import GivenStore
from mnist_zarr.stores.objects import objects_of
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL, open_plainly, store_of_obstore, write_to_bucket
from tests.support.digits import square_digits
from tests.support.leases import QUICK
from tests.support.object_server import BUCKET, S3Server

pytestmark = pytest.mark.usefixtures("quick_lease")
MakeLease = Callable[[], Lease]


@pytest.fixture(params=["memory store", "memory", "s3", "obstore"])
def new(request: pytest.FixtureRequest, memory_url: str) -> Iterator[MakeLease]:
    """Makes leases at one place; those that are left in the end are given up."""
    made: list[Lease] = []
    store: Any = MemoryStore()
    if request.param == "memory":
        store = BucketStore.from_url(f"{memory_url}/t.zarr")
    elif request.param in ("s3", "obstore"):
        s3 = request.getfixturevalue("s3")
        is_s3fs = request.param == "s3"
        store = BucketStore.from_url(URL, s3.options) if is_s3fs else store_of_obstore(s3)

    def make() -> Lease:
        made.append(Lease(objects_of(store), "t.zarr"))
        return made[-1]

    yield make
    for lease in made:
        silence(lease)


def silence(lease: Lease) -> None:
    """Let a lease be renewed no more, as if its build was dead."""
    if hasattr(lease, "_keeper"):
        sync(_cancel(lease))


async def _cancel(lease: Lease) -> None:
    lease._keeper.cancel()


def version(lease: Lease) -> Any:
    found = sync(lease.objects.look(ROOT))
    return found and found.version


def document(lease: Lease) -> bytes | None:
    return sync(lease.objects.read(ROOT))


def test_of_two_builds_one_gets_the_place(new: MakeLease) -> None:
    one, other = new(), new()
    sync(one.take(None))
    with pytest.raises(TargetBusyError, match="has begun, or ended, since this one began"):
        sync(other.take(None))
    sync(one.check(afresh=True))
    with pytest.raises(TargetBusyError):
        sync(other.check())


def test_a_lease_is_renewed_while_its_build_does_nothing(new: MakeLease) -> None:
    one = new()
    sync(one.take(None))
    before = version(one)
    time.sleep(3 * QUICK["RENEW_SECONDS"])
    assert version(one) != before
    with pytest.raises(TargetBusyError, match="another build of this target is under way"):
        new().await_place(version(one))


def test_the_place_of_a_silent_build_is_taken_after_the_time_of_a_lease(
    new: MakeLease, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = new(), new()
    sync(one.take(None))
    silence(one)
    began = time.monotonic()
    known = other.await_place(version(other))
    assert time.monotonic() - began >= QUICK["LEASE_SECONDS"]
    assert "t.zarr: another build has begun here; this one takes over if nothing is" in caplog.text
    sync(other.take(known))
    with pytest.raises(TargetBusyError, match="has begun, or ended, since this one began"):
        sync(one.check(afresh=True))
    with pytest.raises(TargetBusyError):
        sync(one.check())
    sync(one.end(b"{}"))  # which changes nothing any more
    assert (unfinished_by(document(other)) or {})["build"] == other._build


def test_a_build_that_wakes_up_before_it_is_replaced_goes_on(new: MakeLease) -> None:
    one, other = new(), new()
    sync(one.take(None))
    silence(one)
    known = other.await_place(version(other))
    sync(one.check())  # its trust has run out: it renews the lease
    with pytest.raises(TargetBusyError):
        sync(other.take(known))
    sync(one.end(b"the store"))
    assert document(one) == b"the store"


def test_the_place_of_a_build_that_has_ended_is_taken_at_once(
    new: MakeLease, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_module, "LOOK_SECONDS", 1e9)
    one, other = new(), new()
    sync(one.take(None))
    sync(one.give_up())
    sync(other.take(other.await_place(version(other))))
    assert "another build" not in caplog.text


def test_who_waits_sees_that_the_other_one_ends(new: MakeLease) -> None:
    one, other = new(), new()
    sync(one.take(None))
    known = version(other)
    ending = threading.Timer(QUICK["RENEW_SECONDS"] / 2, lambda: sync(one.give_up()))
    ending.start()
    sync(other.take(other.await_place(known)))
    ending.join()


def test_the_finished_store_takes_the_place_of_the_lease_only_once(new: MakeLease) -> None:
    one = new()
    sync(one.take(None))
    sync(one.end(b"the store"))
    sync(one.give_up())
    assert document(one) == b"the store"
    with pytest.raises(TargetBusyError):
        sync(one.check())


def test_the_store_of_a_build_that_has_been_replaced_does_not_appear(new: MakeLease) -> None:
    one, other = new(), new()
    sync(one.take(None))
    silence(one)
    sync(other.take(other.await_place(version(other))))
    with pytest.raises(TargetBusyError):
        sync(one.end(b"the store"))
    assert unfinished_by(document(other))


def test_a_copy_on_a_worker_looks_whether_its_build_has_the_place(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Lease(objects_of(BucketStore.from_url(URL, s3.options)), URL)
    sync(one.take(None))
    silence(one)
    copy: Lease = pickle.loads(pickle.dumps(one))
    monkeypatch.setattr(lease_module, "COPY_TRUST_SECONDS", 1e9)
    sync(copy.check())
    s3.requests.clear()
    sync(copy.check())
    assert not s3.requests  # it trusts what it has seen for a while
    sync(copy.check(afresh=True))
    assert s3.requests == [("GET", f"/{BUCKET}/deep/t.zarr/zarr.json")]
    sync(one.give_up())
    with pytest.raises(TargetBusyError):
        sync(copy.check(afresh=True))


def test_a_request_that_is_sent_twice_since_its_answer_was_lost_is_no_conflict(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 1e9)
    s3.fault = lambda method, path: "lost" if method == "PUT" and len(s3.requests) == 1 else None
    options = {**s3.options, "config_kwargs": {"retries": {"max_attempts": 2}}}
    lease = Lease(objects_of(BucketStore.from_url(URL, options)), URL)
    sync(lease.take(None))
    assert len(s3.asked("PUT")) == 2 + 2  # the second two make sure that the server compares
    sync(lease.check(afresh=True))
    sync(lease.give_up())


# -- stores that do not compare ---------------------------------------------------------


@pytest.mark.parametrize("ignored", ["HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH", "501"])
def test_a_server_that_knows_no_conditions_is_said_and_used(
    s3: S3Server, caplog: pytest.LogCaptureFixture, ignored: str
) -> None:
    s3.ignored = ignored
    for seed in (1, 2):
        write_to_bucket(s3, square_digits(seed=seed), overwrite=True)
        assert caplog.text.count("t.zarr: cannot be locked, as this kind of store compares") == seed
        assert open_plainly(s3).identical(write_and_open(square_digits(seed=seed)))
    one, other = (Lease(objects_of(BucketStore.from_url(URL, s3.options)), URL) for _ in range(2))
    known = version(one)
    sync(one.take(known))

    def take_both() -> None:
        sync(other.take(known))
        sync(one.check(afresh=True))

    with pytest.raises(TargetBusyError):  # as they look before they write
        take_both()
    for lease in (one, other):
        silence(lease)


def write_and_open(ds: Any) -> Any:
    store = MemoryStore()
    write_zarr(ds, store, chunk_bytes=160)
    return xr.open_zarr(store, chunks=None).load()


def test_it_is_not_said_of_stores_that_compare_or_belong_to_this_process(
    new: MakeLease, caplog: pytest.LogCaptureFixture
) -> None:
    sync(new().take(None))
    assert not caplog.text


def test_it_is_said_of_a_store_object_on_a_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_zarr(square_digits(), LocalStore(tmp_path / "t.zarr"))
    assert "t.zarr: cannot be locked, as this kind of store compares" in caplog.text


# -- what readers see -------------------------------------------------------------------


def test_a_place_that_is_taken_is_no_store(new: MakeLease) -> None:
    one = new()
    sync(one.take(None))
    place = GivenStore(one.objects._store)
    assert place.identity() is None
    with pytest.raises(StoreNotFoundError):
        open_store(place.open())


def test_a_build_that_fails_leaves_a_fresh_place_as_it_was(s3: S3Server) -> None:
    s3.fault = lambda method, path: "403" if "/c/" in path else None
    objects = objects_of(BucketStore.from_url(URL, s3.options))

    def fail() -> None:
        with GivenStore(BucketStore.from_url(URL, s3.options)).create():
            raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        fail()
    assert sync(objects.list()) == {}
    with pytest.raises(StoreError):
        write_to_bucket(s3)
    assert (unfinished_by(sync(objects.read(ROOT))) or {})["has_ended"]
