"""Stores in an S3 bucket: complete or unreadable, resumed, and clear about what fails."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, ObjectStore

import mnist_zarr
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import (
    MissingExtraError,
    SourceError,
    StoreError,
    StoreNotFoundError,
    TargetExistsError,
)
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.stores import bucket
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import copy_objects, is_document, keys_of, sync
from mnist_zarr.stores.upload import MARKER, Upload
from mnist_zarr.writing.writer import write_zarr
from tests.support.object_server import BUCKET, KEYS, S3Server

URL = f"s3://{BUCKET}/deep/t.zarr"
N_CHUNKS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(server: S3Server) -> S3Server:
    server.reset()
    return server


def small_dataset(seed: int = 0, n_samples: int = 200) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return make_dataset(
        rng.integers(0, 256, (n_samples, 4, 4)).astype(np.uint8),
        label=rng.integers(0, 10, n_samples).astype(np.uint8),
        split=np.where(np.arange(n_samples) < 150, "train", "test").astype(object),
    )


def write(s3: S3Server, ds: xr.Dataset | None = None, **options: Any) -> None:
    chunk_bytes = options.pop("chunk_bytes", 160)
    ds = small_dataset() if ds is None else ds
    write_zarr(ds, URL, chunk_bytes=chunk_bytes, storage_options=s3.options, **options)


def opened(s3: S3Server) -> xr.Dataset:
    options = {"anon": True, "endpoint_url": s3.address}
    ds: xr.Dataset = xr.open_zarr(URL, storage_options=options, chunks=None)
    return ds


def keys_in_bucket(s3: S3Server) -> set[str]:
    return keys_of(BucketStore.from_url(URL, s3.options))


def fail_after(n_puts: int, s3: S3Server, answer: str = "403") -> None:
    s3.fault = lambda method, path: (
        answer if method == "PUT" and path in s3.asked("PUT")[n_puts:] else None
    )


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_plain_xarray_reads_anonymously_what_was_built(s3: S3Server, zarr_format: Any) -> None:
    write(s3, zarr_format=zarr_format)
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())
    xr.testing.assert_identical(
        mnist_zarr.open_store(URL, storage_options=s3.options).load(), opened(s3).load()
    )
    assert MARKER not in keys_in_bucket(s3)


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_the_root_metadata_are_written_when_everything_else_is_there(
    s3: S3Server, zarr_format: Any
) -> None:
    write(s3, zarr_format=zarr_format)
    puts = [path.removeprefix(f"/{BUCKET}/deep/t.zarr/") for path in s3.asked("PUT")]
    assert puts[0] == MARKER
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
    write(s3)
    assert not together.broken


def test_no_reader_opens_a_store_that_is_being_written(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write(s3)
    assert 10 <= len(keys_in_bucket(s3)) <= 12
    with pytest.raises(StoreNotFoundError):
        mnist_zarr.open_store(URL, storage_options=s3.options)
    with pytest.raises(FileNotFoundError):
        opened(s3)


def test_an_interrupted_upload_goes_on_without_sending_twice(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write(s3)
    there = keys_in_bucket(s3) - {MARKER}
    s3.fault = lambda method, path: None
    s3.requests.clear()
    write(s3)
    sent = s3.asked("PUT")
    assert not [path for path in sent if path.removeprefix(f"/{BUCKET}/deep/t.zarr/") in there]
    assert len([path for path in sent if "/c/" in path]) == N_CHUNKS + 3 - len(there)
    assert not s3.asked("GET", "/c/")
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())


def test_a_wrong_object_of_an_interrupted_upload_is_sent_again(s3: S3Server) -> None:
    fail_after(12, s3)
    with pytest.raises(StoreError):
        write(s3)
    s3.fault = lambda method, path: None
    store = BucketStore.from_url(URL, s3.options)
    for key in keys_in_bucket(s3) - {MARKER}:
        data = sync(store.get(key, default_buffer_prototype()))
        assert data is not None
        damaged = bytes([data.to_bytes()[0] ^ 1]) + data.to_bytes()[1:]
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(damaged)))
    write(s3)
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())


def test_an_existing_store_is_refused_and_untouched(s3: S3Server) -> None:
    write(s3)
    s3.requests.clear()
    with pytest.raises(TargetExistsError, match=r"s3://bucket/deep/t\.zarr: exists already"):
        write(s3, small_dataset(1))
    assert not s3.asked("PUT")
    assert not s3.asked("POST")


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_nothing_opens_before_the_last_object_is_there(s3: S3Server, zarr_format: Any) -> None:
    last = {3: "t.zarr/zarr.json", 2: "t.zarr/.zgroup"}[zarr_format]
    s3.fault = lambda method, path: "403" if method == "PUT" and path.endswith(last) else None
    with pytest.raises(StoreError):
        write(s3, zarr_format=zarr_format)
    with pytest.raises(FileNotFoundError):
        opened(s3)
    s3.fault = lambda method, path: None
    write(s3, zarr_format=zarr_format)
    assert opened(s3).sizes["sample"] == 200


def test_a_store_is_kept_when_overwriting_it_ended_before_it_began(s3: S3Server) -> None:
    write(s3)
    s3.fault = lambda method, path: "403" if method == "POST" else None
    with pytest.raises(StoreError, match="cannot be removed"):
        write(s3, small_dataset(1), overwrite=True)
    s3.fault = lambda method, path: None
    assert MARKER in keys_in_bucket(s3)
    with pytest.raises(TargetExistsError):
        write(s3, small_dataset(1))
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())


def test_overwriting_makes_the_old_store_unreadable_before_its_first_chunk_changes(
    s3: S3Server,
) -> None:
    write(s3)
    s3.requests.clear()
    openable: list[bool] = []

    def look(method: str, path: str) -> None:
        if method == "PUT" and "/c/" in path:
            openable.append(s3.holds("deep/t.zarr/zarr.json"))

    s3.fault = look
    write(s3, small_dataset(1), overwrite=True)
    assert len(openable) >= N_CHUNKS
    assert not any(openable)
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset(1))


def test_chunks_of_another_layout_do_not_stay(s3: S3Server) -> None:
    write(s3)
    write(s3, small_dataset(1, n_samples=50), chunk_bytes=400, overwrite=True)
    keys = keys_in_bucket(s3)
    assert len([key for key in keys if key.startswith("image/c/")]) == 2
    write(s3, small_dataset(1), zarr_format=2, overwrite=True)
    assert "zarr.json" not in keys_in_bucket(s3)
    assert opened(s3).sizes["sample"] == 200


def test_shards_take_the_place_of_chunks_and_of_older_shards_without_reading_them(
    s3: S3Server,
) -> None:
    write(s3)
    for seed in (1, 2):  # 190 samples: the last shard is not full
        write(s3, small_dataset(seed, n_samples=190), shard_bytes=640, overwrite=True)
        ds = opened(s3).drop_vars("source_index").load()
        xr.testing.assert_equal(ds, small_dataset(seed, n_samples=190))
        s3.requests.clear()
    write(s3, small_dataset(3), shard_bytes=640, overwrite=True)
    assert not s3.asked("GET", "image/c/")


def test_other_peoples_objects_are_left_alone_even_when_overwriting(s3: S3Server) -> None:
    store = BucketStore.from_url(URL, s3.options)
    sync(store.set("thesis.txt", default_buffer_prototype().buffer.from_bytes(b"ten years")))
    with pytest.raises(StoreError, match=r"has objects, such as 'thesis\.txt', but is not a Zarr"):
        write(s3, overwrite=True)
    assert keys_in_bucket(s3) == {"thesis.txt"}


def test_an_object_that_vanished_meanwhile_keeps_the_store_closed(s3: S3Server) -> None:
    upload = Upload(MemoryStore())
    upload.begin("t.zarr", overwrite=False)
    source = MemoryStore()
    write_zarr(small_dataset(), source, chunk_bytes=160)
    lost = "image/c/3/0/0"
    copy_objects(source, upload, keys_of(source) - {lost})
    with pytest.raises(StoreError, match="1 of 23 chunks, such as 'image/c/3/0/0', did not"):
        upload.finish("t.zarr")


def test_content_types_and_cache_headers(s3: S3Server) -> None:
    write(s3)
    store = BucketStore.from_url(URL, s3.options)

    async def head(key: str) -> Any:
        return await store.fs._call_s3("head_object", Bucket=BUCKET, Key=f"deep/t.zarr/{key}")

    chunk, root = sync(head("image/c/0/0/0")), sync(head("zarr.json"))
    assert (chunk["ContentType"], root["ContentType"]) == (
        "application/octet-stream",
        "application/json",
    )
    assert chunk["CacheControl"] == root["CacheControl"] == "public, no-cache"


@pytest.mark.parametrize("etag", ["MD5", "something else"])
def test_an_object_is_compared_by_its_etag_or_else_read_back(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, etag: str
) -> None:
    store = BucketStore.from_url(URL, s3.options)
    sync(store.set("a", default_buffer_prototype().buffer.from_bytes(b"content")))
    if etag != "MD5":
        monkeypatch.setattr(bucket, "MD5_ETAG", re.compile("never"))
    assert sync(store.holds("a", b"content"))
    assert not sync(store.holds("a", b"Content"))
    assert not sync(store.holds("a", b"content and more"))
    assert not sync(store.holds("b", b"content"))
    assert bool(s3.asked("GET", "/a")) == (etag != "MD5")


def test_open_store_needs_no_answer_about_documents_of_another_format(s3: S3Server) -> None:
    """A bucket that the public may not list answers 403 for what is not there."""
    write(s3)
    s3.fault = lambda method, path: None if s3.holds(path.removeprefix(f"/{BUCKET}/")) else "403"
    options = {"anon": True, "endpoint_url": s3.address}
    assert mnist_zarr.open_store(URL, storage_options=options).sizes["sample"] == 200
    with pytest.raises(PermissionError):
        opened(s3)


@pytest.mark.slow
@pytest.mark.parametrize("target", [URL, URL + ".zip"])
def test_workers_of_a_cluster_write_into_a_bucket(
    s3: S3Server, tmp_path: Path, target: str
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra 'distributed'")
    ds = small_dataset()
    write_idx(ds.image.values, tmp_path / "a-images-idx3-ubyte")
    write_idx(ds.label.values, tmp_path / "a-labels-idx1-ubyte")
    source = tmp_path / "a-images-idx3-ubyte"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        for overwrite in (False, True):
            mnist_zarr.build(
                target,
                source,
                chunk_bytes=160,
                storage_options=s3.options,
                client=client,
                overwrite=overwrite,
            )
            assert len(s3.asked("PUT", "image/c/")) == (N_CHUNKS if target == URL else 0)
    back = mnist_zarr.open_store(target, storage_options=s3.options).load()
    np.testing.assert_array_equal(back.image.values, ds.image.values)
    np.testing.assert_array_equal(back.label.values, ds.label.values)


def test_a_store_of_obstore_is_a_target_with_the_same_guarantees(s3: S3Server) -> None:
    obstore = pytest.importorskip("obstore.store", reason="needs the extra 'obstore'")
    place = obstore.S3Store(
        BUCKET,
        prefix="deep/t.zarr",
        endpoint=s3.address,
        region="us-east-1",
        access_key_id=KEYS["key"],
        secret_access_key=KEYS["secret"],
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    s3.fault = lambda method, path: "403" if method == "PUT" and "/c/" in path else None
    with pytest.raises(StoreError, match=r"^object_store.*cannot be written: .*403 Forbidden: ?$"):
        write_zarr(small_dataset(), ObjectStore(place), chunk_bytes=160)
    s3.fault = lambda method, path: None
    write_zarr(small_dataset(), ObjectStore(place), chunk_bytes=160)
    assert s3.asked("PUT")[-1].endswith("t.zarr/zarr.json")
    with pytest.raises(TargetExistsError):
        write_zarr(small_dataset(), ObjectStore(place))
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())


# Faults


def test_wrong_credentials_are_one_sentence(s3: S3Server) -> None:
    options = {**s3.options, "key": "wrong"}
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr.*: cannot be .*Forbidden"):
        write_zarr(small_dataset(), URL, storage_options=options)
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr.*: cannot be read: Forbidden"):
        mnist_zarr.open_store(URL, storage_options=options)


def test_an_address_with_nothing_between_two_slashes_is_refused(s3: S3Server) -> None:
    """Few tools list such a folder, and so nobody would find the objects in it."""
    with pytest.raises(StoreError, match=r"//t\.zarr: has nothing between two slashes"):
        write_zarr(small_dataset(), f"s3://{BUCKET}//t.zarr", storage_options=s3.options)
    assert not s3.asked("PUT")


def test_no_credentials_may_read_but_not_write(s3: S3Server) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_zarr(small_dataset(), URL, storage_options={"anon": True, "endpoint_url": s3.address})


def test_a_missing_bucket_is_one_sentence(s3: S3Server) -> None:
    with pytest.raises(StoreError, match=r"s3://nowhere/t\.zarr.*bucket does not exist"):
        write_zarr(small_dataset(), "s3://nowhere/t.zarr", storage_options=s3.options)
    with pytest.raises(StoreNotFoundError, match=r"s3://nowhere/t\.zarr: there is no Zarr store"):
        mnist_zarr.open_store("s3://nowhere/t.zarr", storage_options=s3.options)


@pytest.mark.parametrize("status", ["500", "503"])
def test_a_server_that_fails_for_a_while_is_asked_again(s3: S3Server, status: str) -> None:
    s3.fault = lambda method, path: (
        status if "image/c/" in path and len(s3.asked(method, path)) == 1 else None
    )
    options = {**s3.options, "config_kwargs": {"retries": {"max_attempts": 4}}}
    write_zarr(small_dataset(n_samples=30), URL, chunk_bytes=160, storage_options=options)
    s3.requests.clear()
    ds = mnist_zarr.open_store(URL, storage_options=options).load()
    xr.testing.assert_equal(ds.drop_vars("source_index"), small_dataset(n_samples=30))
    assert len(s3.asked("GET", "image/c/0")) == 2


def test_a_server_that_keeps_failing_is_one_sentence(s3: S3Server) -> None:
    s3.fault = lambda method, path: "503" if "/c/" in path else None
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr/\w+/c/.* cannot be written: "):
        write(s3)
    s3.fault = lambda method, path: None
    write(s3)
    s3.fault = lambda method, path: "503" if "image/c/" in path else None
    ds = mnist_zarr.open_store(URL, storage_options=s3.options, chunks=None)
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr/image/c/.* cannot be read: "):
        ds.load()


@pytest.mark.parametrize("times", [1, 10**9])
def test_a_connection_cut_in_a_chunk_is_repeated_or_an_error(s3: S3Server, times: int) -> None:
    write(s3)
    chunk = "image/c/3/0/0"
    s3.fault = lambda method, path: (
        "cut" if chunk in path and len(s3.asked(method, chunk)) <= times else None
    )
    ds = opened(s3)
    if times == 1:
        xr.testing.assert_equal(ds.drop_vars("source_index").load(), small_dataset())
        assert len(s3.asked("GET", chunk)) > 1
    else:
        with pytest.raises(Exception, match=r".+"):
            ds.load()


def test_a_connection_cut_in_a_chunk_over_plain_http_is_an_error(s3: S3Server) -> None:
    write(s3)
    s3.fault = lambda method, path: "cut" if "image/c/3/0/0" in path else None
    ds = mnist_zarr.open_store(f"{s3.address}/{BUCKET}/deep/t.zarr", chunks=None)
    with pytest.raises(StoreError, match=r"image/c/3/0/0: cannot be read: "):
        ds.load()


def test_a_server_killed_half_way_is_an_error_and_the_build_goes_on_later(s3: S3Server) -> None:
    reached = Event()

    def watch(method: str, path: str) -> str | None:
        if path in s3.asked("PUT")[10:]:
            reached.set()
            return "503"
        return None

    s3.fault = watch
    with ThreadPoolExecutor(1) as threads:
        build = threads.submit(write, s3)
        assert reached.wait(30)
        s3.stop()
        with pytest.raises(StoreError, match="cannot be written"):
            build.result()
    s3.fault = lambda method, path: None
    s3.start()
    s3.requests.clear()
    write(s3)
    assert len([path for path in s3.asked("PUT") if "/c/" in path]) < N_CHUNKS + 3
    xr.testing.assert_equal(opened(s3).drop_vars("source_index").load(), small_dataset())


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_opens_and_goes_on_later(
    s3: S3Server, tmp_path: Path
) -> None:
    ds = small_dataset()
    write_idx(ds.image.values, tmp_path / "a-images-idx3-ubyte")
    held, killed = Event(), Event()

    def hold(method: str, path: str) -> None:
        if path in s3.asked("PUT")[10:]:
            held.set()
            killed.wait(60)

    s3.fault = hold
    options = [
        f"--storage-option={name}={value}"
        for name, value in s3.options.items()
        if name in ("key", "secret", "endpoint_url")
    ]
    command = [sys.executable, "-m", "mnist_zarr", "build", URL, "--chunk-bytes=160", *options]
    command.append(f"--source={tmp_path}/a-images-idx3-ubyte")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert held.wait(60)
        process.kill()
        killed.set()
    with pytest.raises(FileNotFoundError):
        opened(s3)
    s3.fault = lambda method, path: None
    there = keys_in_bucket(s3) - {MARKER}
    assert there
    s3.requests.clear()
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not [path for path in s3.asked("PUT") if path.split("t.zarr/")[1] in there]
    np.testing.assert_array_equal(opened(s3).image.values, ds.image.values)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/t", "s3"), ("gs://b/t", "gcs"), ("az://b/t", "azure")]
)
def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mnist-zarr\[{extra}\]'"):
        mnist_zarr.open_store(url)


@pytest.mark.parametrize("action", [mnist_zarr.open_store, mnist_zarr.build])
def test_an_unknown_protocol_is_a_clear_error(action: Callable[[str], Any]) -> None:
    with pytest.raises(StoreError, match=r"^nope://x: cannot be used as an address"):
        action("nope://x")


# Icechunk


def icechunk_options(s3: S3Server, key: str = KEYS["key"]) -> dict[str, Any]:
    return {
        "access_key_id": key,
        "secret_access_key": KEYS["secret"],
        "endpoint_url": s3.address,
        "region": "us-east-1",
        "allow_http": True,
        "force_path_style": True,
    }


REPOSITORY = f"icechunk+s3://{BUCKET}/repository"


def test_a_build_into_a_repository_in_a_bucket_is_seen_when_it_is_committed(s3: S3Server) -> None:
    options = icechunk_options(s3)
    for ds, overwrite in ((small_dataset(), False), (small_dataset(1), True)):
        write_zarr(ds, REPOSITORY, storage_options=options, overwrite=overwrite)
        back = mnist_zarr.open_store(REPOSITORY, storage_options=options).load()
        xr.testing.assert_equal(back.drop_vars("source_index"), ds)


def test_a_failed_commit_leaves_the_last_one(s3: S3Server) -> None:
    options = icechunk_options(s3)
    write_zarr(small_dataset(), REPOSITORY, storage_options=options)
    s3.fault = lambda method, path: (
        "403" if method == "PUT" and len(s3.asked("PUT", "/chunks/")) > 30 else None
    )
    with pytest.raises(StoreError, match=r"^icechunk\+s3://bucket/repository"):
        write_zarr(
            small_dataset(1, n_samples=4000),
            REPOSITORY,
            chunk_bytes=1600,
            storage_options=options,
            overwrite=True,
        )
    s3.fault = lambda method, path: None
    back = mnist_zarr.open_store(REPOSITORY, storage_options=options).load()
    xr.testing.assert_equal(back.drop_vars("source_index"), small_dataset())


def test_a_repository_that_cannot_be_reached_is_one_sentence(s3: S3Server) -> None:
    with pytest.raises(StoreError, match=r"^icechunk\+s3://bucket/repository: Icechunk says: .+$"):
        write_zarr(small_dataset(), REPOSITORY, storage_options=icechunk_options(s3, key="wrong"))


def test_a_source_in_a_bucket_that_refuses_is_one_sentence(s3: S3Server) -> None:
    url = f"s3://{BUCKET}/train-images-idx3-ubyte"
    with fsspec.open(url, "wb", **s3.options) as file:
        write_idx(small_dataset().image.values, file)
    assert open_idx(url, storage_options=s3.options).sizes["sample"] == 200
    s3.fault = lambda method, path: "403" if path.endswith("ubyte") else None
    with pytest.raises(SourceError, match="train-images-idx3-ubyte: cannot be read: Forbidden"):
        open_idx(url, storage_options=s3.options)
