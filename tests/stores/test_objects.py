"""Objects are written only if they are as the writer knows them, wherever a store can compare."""

from __future__ import annotations

import re

import pytest
from zarr.storage import MemoryStore

from mnist_zarr.errors import StoreError
from mnist_zarr.stores import bucket
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import as_buffer, sync
from mnist_zarr.stores.objects import Found, ObjectChangedError, Objects, objects_of
from tests.support.bucket_stores import URL, store_of_obstore
from tests.support.object_server import S3Server


@pytest.fixture(params=["s3fs", "obstore"])
def objects(request: pytest.FixtureRequest, s3: S3Server) -> Objects:
    if request.param == "s3fs":
        return objects_of(BucketStore.from_url(URL, s3.options))
    return objects_of(store_of_obstore(s3))


def look(objects: Objects, key: str) -> Found:
    found = sync(objects.look(key))
    assert found is not None
    return found


def test_an_object_is_created_only_where_there_is_none(objects: Objects) -> None:
    sync(objects.put("c/0", b"one", None))
    with pytest.raises(ObjectChangedError):
        sync(objects.put("c/0", b"other", None))
    assert sync(objects.read("c/0")) == b"one"


def test_an_object_is_replaced_only_in_the_version_that_the_writer_knows(objects: Objects) -> None:
    first = sync(objects.put("c/0", b"one", None))
    assert first == look(objects, "c/0").version
    second = sync(objects.put("c/0", b"two", first))
    assert second == look(objects, "c/0").version != first
    for known in (first, None):
        with pytest.raises(ObjectChangedError):
            sync(objects.put("c/0", b"late", known))
    assert sync(objects.read("c/0")) == b"two"


def test_an_object_that_is_gone_is_not_replaced(objects: Objects) -> None:
    version = sync(objects.put("c/0", b"one", None))
    sync(objects.remove("c/0", version))
    with pytest.raises(ObjectChangedError):
        sync(objects.put("c/0", b"two", version))
    assert sync(objects.look("c/0")) is None


def test_s3_removes_an_object_only_in_the_version_that_the_writer_knows(s3: S3Server) -> None:
    objects = objects_of(BucketStore.from_url(URL, s3.options))
    first = sync(objects.put("c/0", b"one", None))
    second = sync(objects.put("c/0", b"two", first))
    with pytest.raises(ObjectChangedError):
        sync(objects.remove("c/0", first))
    sync(objects.remove("c/0", second))
    with pytest.raises(ObjectChangedError):
        sync(objects.remove("c/0", second))


def test_a_listing_has_the_versions_that_a_look_has(s3: S3Server) -> None:
    objects = objects_of(BucketStore.from_url(URL, s3.options))
    for key in ("c/0", "c/1"):
        sync(objects.put(key, key.encode(), None))
    assert sync(objects.list()) == {key: look(objects, key) for key in ("c/0", "c/1")}


def test_what_objects_are_written_with_is_what_the_store_writes_them_with(s3: S3Server) -> None:
    store = BucketStore.from_url(URL, s3.options)
    for key, kind in (("c/0", "application/octet-stream"), ("zarr.json", "application/json")):
        sync(objects_of(store).put(key, b"{}", None))
        headers = s3.headers(f"deep/t.zarr/{key}")
        assert (headers["Content-Type"], headers["Cache-Control"]) == (kind, "public, no-cache")


@pytest.mark.parametrize("etag", ["MD5", "something else"])
def test_an_object_is_compared_by_its_etag_or_else_read_back(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, etag: str
) -> None:
    if etag != "MD5":
        monkeypatch.setattr(bucket, "MD5_ETAG", re.compile("never"))
    objects = objects_of(BucketStore.from_url(URL, s3.options))
    sync(objects.put("a", b"content", None))
    found = look(objects, "a")
    assert sync(objects.holds("a", found, b"content"))
    assert not sync(objects.holds("a", found, b"Content"))
    assert not sync(objects.holds("a", found, b"content and more"))
    assert not sync(objects.holds("b", None, b"content"))
    assert bool(s3.asked("GET", "/a")) == (etag != "MD5")


@pytest.mark.parametrize("status", ["403", "503"])
def test_a_server_that_fails_is_no_conflict(s3: S3Server, status: str) -> None:
    objects = objects_of(BucketStore.from_url(URL, s3.options))
    s3.fault = lambda method, path: status if method in ("PUT", "DELETE") else None
    for request in (objects.put("a", b"1", None), objects.remove("a", '"0"')):
        with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr/a: cannot be") as raised:
            sync(request)
        assert not isinstance(raised.value, ObjectChangedError)


def test_a_bucket_compares(objects: Objects) -> None:
    sync(objects.put("zarr.json", b"1", None))
    assert sync(objects.does_compare("zarr.json", b"2"))
    assert sync(objects.read("zarr.json")) == b"1"


def test_a_store_in_memory_compares_nothing_and_belongs_to_one_process(memory_url: str) -> None:
    for store in (MemoryStore(), BucketStore.from_url(f"{memory_url}/t.zarr")):
        objects = objects_of(store)
        assert (objects.compares, objects.is_private) == (False, True)
        sync(store.set("a", as_buffer(b"1")))
        sync(objects.put("a", b"2", None))
        assert sync(objects.holds("a", sync(objects.look("a")), b"2"))
