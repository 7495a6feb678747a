"""Files as bytes, wherever they are: the same bytes, few requests, one version."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fsspec
import numpy as np
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from mnist_zarr.errors import SourceError, SourceNotFoundError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.sources import FileObjectSource, open_bytes
from mnist_zarr.files.zip_source import zip_members
from tests.support.object_server import BUCKET, S3Server
from tests.support.servers import free_port

if TYPE_CHECKING:
    from tests.conftest import Serve
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from tests.support.digits import digits
from tests.support.files import PACKED, PLAIN, pipe_of


@pytest.fixture(params=["path", "open file", "pipe", "memory url", "http", "http without ranges"])
def source(
    request: pytest.FixtureRequest, tmp_path: Path, memory_url: str, serve: Serve
) -> Iterator[Any]:
    """The bytes of PLAIN, from wherever bytes come from."""
    path = tmp_path / "plain"
    path.write_bytes(PLAIN)
    match request.param:
        case "path":
            yield path
        case "open file":
            with path.open("rb") as file:
                yield file
        case "pipe":
            with pipe_of(PLAIN) as file:
                yield file
        case "memory url":
            with fsspec.open(f"{memory_url}/plain", "wb") as file:
                file.write(PLAIN)
            yield f"{memory_url}/plain"
        case "http":
            yield serve("/plain", PLAIN)
        case _:
            yield serve("/plain", PLAIN, ranges=False)


def test_bytes_are_the_same_from_everywhere(source: Any) -> None:
    opened = open_bytes(source)
    assert opened.size in (None, len(PLAIN))
    assert opened.read(0, 10) == PLAIN[:10]
    assert opened.read(1_234_567, 1000) == PLAIN[1_234_567:1_235_567]
    assert opened.read(len(PLAIN) - 5, 100) == PLAIN[-5:]
    assert opened.read(len(PLAIN) + 5, 100) == b""


def test_a_web_server_with_ranges_sends_only_what_is_asked_for(
    serve: Serve, httpserver: HTTPServer
) -> None:
    opened = open_bytes(serve("/plain", PLAIN))
    opened.read(1_000_000, 1000)
    sent = sum(
        len(response.data)
        for request, response in httpserver.log
        if request.method == "GET" and response.status_code == 206
    )
    assert 0 < sent < 100_000


def test_a_web_server_without_ranges_sends_the_file_once(
    serve: Serve, httpserver: HTTPServer
) -> None:
    opened = open_bytes(serve("/plain", PLAIN, ranges=False))
    for offset in (0, 2_000_000, 1_000_000):
        assert opened.read(offset, 1000) == PLAIN[offset : offset + 1000]
    whole = [
        response
        for request, response in httpserver.log
        if request.method == "GET" and len(response.data) == len(PLAIN)
    ]
    assert len(whole) <= 2  # one of them may be what looked for ranges, cut off


def test_a_web_server_that_announces_ranges_falsely_is_found_out(serve: Serve) -> None:
    opened = open_bytes(serve("/plain", PLAIN, ranges=False, announce="bytes"))
    assert opened.read(1_000_000, 1000) == PLAIN[1_000_000:1_001_000]


def test_what_the_web_server_does_not_have_is_not_found(httpserver: HTTPServer) -> None:
    httpserver.no_handler_status_code = 404
    with pytest.raises(SourceNotFoundError, match="there is no such file"):
        open_bytes(httpserver.url_for("/nothing"))


def test_an_unknown_protocol_raises_an_error_that_names_it() -> None:
    with pytest.raises(SourceNotFoundError, match="nosuch://x: cannot be opened"):
        open_bytes("nosuch://x")


def test_after_an_interrupted_read_a_pipe_is_not_read_on() -> None:
    class Interrupted(io.RawIOBase):
        reads = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            Interrupted.reads += 1
            if Interrupted.reads == 3:
                raise KeyboardInterrupt
            buffer[:] = PLAIN[: len(buffer)]
            return len(buffer)

    opened = FileObjectSource(cast(Any, Interrupted()))
    opened.read(0, 5000)
    with pytest.raises(KeyboardInterrupt):
        opened.read(5000, 100)
    with pytest.raises(SourceError, match="cannot go back"):
        opened.read(5000, 100)


def test_a_pipe_cannot_go_back() -> None:
    with pipe_of(PLAIN) as file:
        opened = open_bytes(file)
        assert opened.read(100_000, 10) == PLAIN[100_000:100_010]
        with pytest.raises(SourceError, match="cannot go back to byte 50000"):
            opened.read(50_000, 10)


def test_an_open_file_stays_open() -> None:
    file = io.BytesIO(PLAIN)
    opened = open_bytes(file)
    opened.read(0, 10)
    del opened
    assert not file.closed
    assert isinstance(open_bytes(file), FileObjectSource)


def test_web_sources_travel_to_other_processes(serve: Serve) -> None:
    for ranges in (True, False):
        opened = open_bytes(serve(f"/plain-{ranges}", PLAIN, ranges=ranges))
        there = pickle.loads(pickle.dumps(opened))
        assert there.read(2_000_000, 10) == PLAIN[2_000_000:2_000_010]


@pytest.mark.parametrize("packed", [False, True])
def test_threads_may_share_a_source(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACKED if packed else PLAIN)
    opened = open_bytes(path)
    offsets = random.Random(0).choices(range(0, len(PLAIN) - 1000), k=60)
    with ThreadPoolExecutor(4) as threads:
        got = threads.map(lambda offset: opened.read(offset, 1000), offsets)
    assert list(got) == [PLAIN[offset : offset + 1000] for offset in offsets]


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(PACKED)
    before = set(os.listdir("/proc/self/fd"))
    opened = [open_bytes(tmp_path / "x") for _ in range(20)]
    assert all(source.read(10, 1) == PLAIN[10:11] for source in opened)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_file_that_changes_or_vanishes_while_it_is_read_raises_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PLAIN)
    opened = open_bytes(path)
    path.write_bytes(PLAIN[:-1])
    with pytest.raises(SourceError, match=r"x: the file was changed while it was being read"):
        opened.read(0, 10)
    path.unlink()
    with pytest.raises(SourceNotFoundError, match=r"x: the file vanished"):
        opened.read(0, 10)


# -- identity ----------------------------------------------------------------------------


class Place:
    """Somewhere that a file lies, and can be overwritten."""

    def __init__(self, url: str, write: Callable[[bytes], object], options: Any = None) -> None:
        self.url, self.write, self.options = url, write, options
        self.is_copied = False

    def open(self) -> ByteSource:
        return open_bytes(self.url, storage_options=self.options)


@pytest.fixture(params=["path", "file url", "memory", "http", "http without ranges", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, memory_url: str, httpserver: HTTPServer
) -> Place:
    kind: str = request.param
    if kind == "path":
        return Place(str(tmp_path / "x"), (tmp_path / "x").write_bytes)
    if kind.startswith("http"):
        web_place = _web_place(httpserver, ranges=kind == "http")
        web_place.is_copied = kind == "http without ranges"
        return web_place
    options = request.getfixturevalue("s3").options if kind == "s3" else None
    folder = {"file url": f"file://{tmp_path}", "memory": memory_url, "s3": f"s3://{BUCKET}"}[kind]
    fs, path = fsspec.core.url_to_fs(f"{folder}/x", **(options or {}))
    return Place(f"{folder}/x", lambda data: fs.pipe(path, data), options)


def _web_place(httpserver: HTTPServer, *, ranges: bool) -> Place:
    content = [b""]

    def answer(request: Request) -> Response:
        data = content[0]
        response = Response(data, headers={"Accept-Ranges": "bytes" if ranges else "none"})
        response.set_etag(hashlib.md5(data).hexdigest())
        return response.make_conditional(request, ranges, len(data))

    httpserver.expect_request("/x").respond_with_handler(answer)
    return Place(httpserver.url_for("/x"), lambda data: content.__setitem__(0, data))


def test_versions_of_a_file_have_identities_of_their_own(place: Place) -> None:
    place.write(b"old")
    old = place.open().identity
    assert old
    assert place.open().identity == old
    place.write(b"new")
    assert place.open().identity not in (old, None)


def test_a_file_that_is_replaced_while_it_is_read_raises_an_error(place: Place) -> None:
    place.write(b"old version")
    opened = place.open()
    assert opened.read(0, 3) == b"old"
    place.write(b"new or other")
    if place.is_copied:
        assert opened.read(4, 7) == b"version"
    else:
        with pytest.raises(SourceError, match=r"x: the file was changed while it was being read"):
            opened.read(4, 7)


def test_another_process_reads_the_version_that_was_opened_or_none(place: Place) -> None:
    place.write(b"old version")
    opened = pickle.dumps(place.open())
    assert pickle.loads(opened).read(0, 3) == b"old"
    place.write(b"new version")
    with pytest.raises(SourceError, match=r"x: the file was changed while it was being read"):
        pickle.loads(opened).read(0, 3)


def test_an_outdated_listing_does_not_tell_the_identity(s3: S3Server) -> None:
    fs = fsspec.filesystem("s3", **s3.options)
    fs.pipe(f"{BUCKET}/z", b"old")
    fs.ls(BUCKET)
    other = fsspec.filesystem("s3", **s3.options, skip_instance_cache=True)
    other.pipe(f"{BUCKET}/z", b"newer")
    assert open_bytes(f"s3://{BUCKET}/z", storage_options=s3.options).read(0, 9) == b"newer"


def test_gzip_and_members_of_an_archive_have_the_identity_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(PACKED)
    packed = open_bytes(tmp_path / "x.gz")
    assert packed.identity == packed.encoded.identity is not None
    assert pickle.loads(pickle.dumps(packed)).identity == packed.identity
    np.savez(tmp_path / "stored.npz", a=np.zeros(9))
    np.savez_compressed(tmp_path / "deflated.npz", a=np.zeros(9))
    for name in ("stored.npz", "deflated.npz"):
        archive = open_bytes(tmp_path / name)
        (member,) = zip_members(archive).values()
        assert member.identity == archive.identity is not None


@pytest.mark.parametrize("source", [None, 5, b"bytes", np.zeros(3)])
def test_what_is_no_source_raises_an_error_of_ours(source: Any) -> None:
    with pytest.raises(SourceError, match="expected a path, a URL or an open binary file, got"):
        open_bytes(source)


def test_a_source_in_a_bucket_that_refuses_is_reported_in_one_sentence(s3: S3Server) -> None:
    url = f"s3://{BUCKET}/train-images-idx3-ubyte"
    with fsspec.open(url, "wb", **s3.options) as file:
        write_idx(digits().image.values, file)
    assert open_idx(url, storage_options=s3.options).sizes["sample"] == 60
    s3.fault = lambda method, path: "403" if path.endswith("ubyte") else None
    with pytest.raises(SourceError, match="train-images-idx3-ubyte: cannot be opened: Forbidden"):
        open_idx(url, storage_options=s3.options)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_path_that_is_no_regular_file_is_refused_without_waiting(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "x" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(place)
    with pytest.raises(SourceError, match="expected a file, got a pipe or device"):
        open_bytes(place)


@pytest.mark.parametrize("status", [403, 500])
def test_a_server_that_does_not_answer_for_a_file_is_not_said_to_lack_it(
    httpserver: HTTPServer, status: int
) -> None:
    httpserver.expect_request("/private").respond_with_data("no", status=status)
    for url, reason in (
        (httpserver.url_for("/private"), str(status)),
        (f"http://127.0.0.1:{free_port()}/x", "Cannot connect to host"),
    ):
        with pytest.raises(SourceError, match=reason) as caught:
            open_bytes(url)
        assert not isinstance(caught.value, FileNotFoundError)
        assert url in str(caught.value)
