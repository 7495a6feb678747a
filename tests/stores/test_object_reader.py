"""Objects read through obstore: the same as through fsspec, which is asked for all it cannot do."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_httpserver import HTTPServer
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

import mnist_zarr
from mnist_zarr.errors import StoreError, StoreNotFoundError
from mnist_zarr.files.urls import identity_of
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.inventory import list_sizes
from mnist_zarr.stores.keys import as_buffer, keys_of, sync
from mnist_zarr.stores.object_reader import ObjectReader, open_reader
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.forks import in_fork
from tests.support.object_server import BUCKET, S3Server
from tests.support.partners import partner
from tests.support.servers import free_port
from tests.support.web_site import WebSite, running_site

DOCUMENT = b'{"zarr_format": 3}'
OBJECTS = {"zarr.json": DOCUMENT, "image/c/0/0": b"0123456789", "odd name/100%/ä": b"odd name"}
RANGES = [None, RangeByteRequest(2, 5), OffsetByteRequest(7), SuffixByteRequest(3)]


@pytest.fixture(autouse=True)
def _obstore() -> None:
    partner("obstore")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    (tmp_path / "site").mkdir()
    with running_site(tmp_path / "site") as running:
        yield running


@pytest.fixture(params=["s3", "http"])
def both(request: pytest.FixtureRequest) -> tuple[ObjectReader, BucketStore]:
    """The same objects, through obstore and through fsspec."""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        url, options = f"s3://{BUCKET}/deep/t.zarr", s3.options
        writer = BucketStore.from_url(url, options)
        for key, value in OBJECTS.items():
            sync(writer.set(key, as_buffer(value)))
    else:
        site: WebSite = request.getfixturevalue("site")
        url, options = f"{site.address}/t.zarr", {}
        for key, value in OBJECTS.items():
            place = site.root / "t.zarr" / key
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(value)
    reader = open_reader(url, options)
    assert isinstance(reader, ObjectReader)
    return reader, BucketStore.from_url(url, options, read_only=True)


def get(store: Any, key: str, byte_range: Any = None) -> bytes | None:
    value = sync(store.get(key, default_buffer_prototype(), byte_range))
    return None if value is None else bytes(value.to_bytes())


def identity(store: Any, key: str) -> str:
    return identity_of(sync(store.info(key)))


def asks_fsspec(reader: Any) -> bool:
    return "through_fsspec" in vars(reader)


def test_every_answer_is_that_of_fsspec(both: tuple[ObjectReader, BucketStore]) -> None:
    reader, of_fsspec = both
    for key in OBJECTS:
        for byte_range in RANGES:
            part = get(reader, key, byte_range)
            assert part == get(of_fsspec, key, byte_range), (key, byte_range)
        assert sync(reader.getsize(key)) == len(OBJECTS[key])
        assert sync(reader.exists(key))
        assert identity(reader, key) == identity(of_fsspec, key)
    wanted = [("image/c/0/0", RangeByteRequest(0, 2)), ("nothing", None)]
    first, missing = sync(reader.get_partial_values(default_buffer_prototype(), wanted))
    assert first is not None
    assert (first.to_bytes(), missing) == (b"01", None)
    assert get(reader, "nothing") is None
    assert sync(reader.info("nothing")) is None
    assert not sync(reader.exists("nothing"))
    with pytest.raises(StoreNotFoundError, match=r"t\.zarr/nothing: cannot be read: "):
        sync(reader.getsize("nothing"))
    assert reader.supports_listing == of_fsspec.supports_listing
    assert not asks_fsspec(reader)


def test_a_bucket_is_listed_as_by_fsspec(s3: S3Server) -> None:
    url = f"s3://{BUCKET}/deep/t.zarr"
    writer = BucketStore.from_url(url, s3.options)
    for key, value in OBJECTS.items():
        sync(writer.set(key, as_buffer(value)))
    reader = open_reader(url, s3.options)
    s3.requests.clear()

    async def collect(names: Any) -> set[str]:
        return {name async for name in names}

    assert keys_of(reader) == OBJECTS.keys()
    assert list_sizes(reader) == {key: len(value) for key, value in OBJECTS.items()}
    assert [method for method, _ in s3.requests] == ["GET", "GET"]
    assert sync(collect(reader.list_prefix("im"))) == {"image/c/0/0"}
    assert sync(collect(reader.list_dir(""))) == {"zarr.json", "image", "odd name"}
    assert sync(collect(reader.list_dir("image"))) == {"c"}
    assert not asks_fsspec(reader)


def test_no_asynchronous_function_of_obstore_is_called(
    both: tuple[ObjectReader, BucketStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads abort a process that ends while they call Python: one of ten did."""
    obstore = partner("obstore")

    def fail(*_args: Any, **_options: Any) -> None:
        raise AssertionError("would be asked in a thread of obstore")

    names = [name for name in dir(obstore) if name.endswith("_async")]
    assert "get_async" in names
    for name in names:
        monkeypatch.setattr(obstore, name, fail)
    reader, _ = both
    assert DOCUMENT in [get(reader, "zarr.json", part) for part in RANGES]
    assert sync(reader.exists("zarr.json"))
    assert not asks_fsspec(reader)


def test_it_only_reads(both: tuple[ObjectReader, BucketStore]) -> None:
    reader, _ = both
    assert reader.with_read_only(True) is reader
    with pytest.raises(NotImplementedError):
        reader.with_read_only(False)
    for write in (reader.set("a", as_buffer(b"")), reader.delete("zarr.json")):
        with pytest.raises(ValueError, match="read-only"):
            sync(write)
    assert get(reader, "zarr.json") == DOCUMENT


def test_a_copy_in_another_process_is_a_reader_of_its_own(
    both: tuple[ObjectReader, BucketStore],
) -> None:
    reader, _ = both
    there = pickle.loads(pickle.dumps(reader))
    assert there == reader
    assert get(there, "zarr.json") == DOCUMENT
    assert str(there) == str(reader)


@pytest.mark.parametrize("is_opened_before", [True, False])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks by itself")
def test_a_forked_process_asks_fsspec(
    both: tuple[ObjectReader, BucketStore], is_opened_before: bool
) -> None:
    """The threads of obstore are in the parent."""
    reader, _ = both
    assert get(reader, "zarr.json") == DOCUMENT

    def read() -> Any:
        store = reader if is_opened_before else pickle.loads(pickle.dumps(reader))
        return type(store).__name__, get(store, "zarr.json"), identity(store, "zarr.json")

    kind = "ObjectReader" if is_opened_before else "BucketStore"
    assert in_fork(read) == (kind, DOCUMENT, identity(reader, "zarr.json"))
    assert get(reader, "zarr.json") == DOCUMENT
    assert not asks_fsspec(reader)


# What only fsspec can do


def serve_store(site: WebSite, **options: Any) -> str:
    write_zarr(digits(40), site.root / "t.zarr", chunk_bytes=60, **options)
    return f"{site.address}/t.zarr"


def no_length(site: WebSite) -> None:
    site.says_length = False


def no_head(site: WebSite) -> None:
    site.knows_head = False


def no_ranges(site: WebSite) -> None:
    site.has_ranges = False


def no_count_from_end(site: WebSite) -> None:
    site.counts_from_end = False


@pytest.mark.parametrize("lack", [no_length, no_head, no_ranges, no_count_from_end])
def test_a_web_server_that_lacks_something_is_read_through_fsspec(
    site: WebSite, lack: Callable[[WebSite], None]
) -> None:
    url = serve_store(site, shard_bytes=240)
    lack(site)
    ds = mnist_zarr.open_store(url, chunks=None)
    np.testing.assert_array_equal(ds.image.values, digits(40).image.values)
    np.testing.assert_array_equal(ds.sel(label=1).image.values, digits(40).sel(label=1).image)


def test_what_fsspec_has_answered_once_it_is_asked_from_then_on(site: WebSite) -> None:
    (site.root / "t.zarr").mkdir()
    for name in "ab":
        (site.root / "t.zarr" / name).write_bytes(b"content")
    reader = open_reader(f"{site.address}/t.zarr")
    site.says_length = False
    assert get(reader, "a") == b"content"
    assert len(site.asked("/a")) == 2
    assert get(reader, "b") == b"content"
    assert len(site.asked("/b")) == 1


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, StoreError, r"zarr\.json: cannot be read: 401, message='UNAUTHORIZED'"),
        (403, StoreError, r"zarr\.json: cannot be read: 403, message='FORBIDDEN'"),
        (404, StoreNotFoundError, r"t\.zarr: there is no Zarr store"),
        (410, StoreError, r"zarr\.json: cannot be read: 410, message='GONE'"),
        (500, StoreError, r"zarr\.json: cannot be read: 500, message='INTERNAL SERVER ERROR'"),
    ],
)
def test_an_error_has_the_words_that_it_has_through_fsspec(
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    error: type[Exception],
    message: str,
) -> None:
    httpserver.expect_request("/t.zarr/zarr.json").respond_with_data("", status=status)
    httpserver.no_handler_status_code = 404
    url = httpserver.url_for("/t.zarr")
    said = []
    for is_installed in (True, False):
        if not is_installed:
            monkeypatch.setitem(sys.modules, "obstore", None)
        with pytest.raises(error, match=message) as caught:
            mnist_zarr.open_store(url, storage_options={"headers": {"X": str(is_installed)}})
        assert "\n" not in str(caught.value)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


def test_an_unreachable_server_is_named_soon() -> None:
    url = f"http://127.0.0.1:{free_port()}/t.zarr"
    with pytest.raises(StoreError, match=rf"^{url}/zarr\.json: cannot be read: Cannot connect"):
        mnist_zarr.open_store(url)


# What is installed


def test_without_obstore_fsspec_reads(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve_store(site)
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert type(open_reader(url, {"headers": {"a": "without obstore"}})) is BucketStore


def test_without_the_file_system_of_fsspec_obstore_reads_and_says_what_fails(
    httpserver: HTTPServer, site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/t.zarr/zarr.json").respond_with_data("", status=403)
    # Where aiohttp is missing, the import of the file system fails.
    monkeypatch.setitem(sys.modules, "fsspec.implementations.http", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"].__dict__["_registry"], "http", False)
    assert mnist_zarr.open_store(serve_store(site)).sizes["sample"] == 40
    with pytest.raises(StoreError, match=r"t\.zarr/zarr\.json: cannot be read: .* 403 Forbidden"):
        mnist_zarr.open_store(httpserver.url_for("/t.zarr"))


FIRST_READ = """
import sys
import mnist_zarr
ds = mnist_zarr.open_store(sys.argv[1], chunks=None)
assert ds.image[0].values.shape == (4, 3)
loaded = {"aiohttp", "botocore", "s3fs"} & set(sys.modules)
assert not loaded, loaded
"""


def test_a_process_that_reads_through_obstore_loads_no_file_system_and_warns_of_nothing(
    site: WebSite,
) -> None:
    command = [sys.executable, "-W", "error", "-c", FIRST_READ, serve_store(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_proxy_of_the_environment_is_asked(site: WebSite) -> None:
    # A proxy is asked for whole addresses, which here are folders.
    write_zarr(digits(40), site.root / "http:" / "store.example" / "t.zarr")
    environment = {**os.environ, "http_proxy": site.address, "no_proxy": ""}
    command = [sys.executable, "-c", FIRST_READ, "http://store.example/t.zarr"]
    subprocess.run(command, check=True, timeout=60, env=environment)
    assert site.asked("http://store.example/t.zarr/image/c")
