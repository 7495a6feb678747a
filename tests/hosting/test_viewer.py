"""``mnist-zarr view``: a server for this machine alone, with the objects of one store."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.errors import OptionError, StoreNotFoundError
from mnist_zarr.hosting.page import make_page
from mnist_zarr.hosting.viewer import serve_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL, write_to_bucket
from tests.support.digits import digits
from tests.support.object_server import S3Server
from tests.support.partners import partner


def get(url: str, **headers: str) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_zarr(digits(), tmp_path / "t.zarr")
    return tmp_path / "t.zarr"


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    with serve_store(store) as served:
        yield served


def test_xarray_opens_what_is_served_and_the_page_names_the_store(store: Path, url: str) -> None:
    partner("aiohttp")
    opened = xr.open_zarr(url, zarr_format=3, chunks=None).load()
    xr.testing.assert_identical(opened, mnist_zarr.open_store(store).load())
    assert get(url) == get(f"{url}index.html") == (200, make_page(str(store)))


def test_parts_of_objects_are_served(store: Path, url: str) -> None:
    data = (store / "zarr.json").read_bytes()
    assert get(f"{url}zarr.json") == (200, data)
    assert get(f"{url}zarr.json", Range="bytes=10-19") == (206, data[10:20])
    assert get(f"{url}zarr.json", Range="bytes=-7") == (206, data[-7:])
    with urllib.request.urlopen(urllib.request.Request(f"{url}zarr.json", method="HEAD")) as head:
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))


@pytest.mark.parametrize(
    "path",
    ["nothing", "../secret", "%2e%2e/secret", "image/../../secret", "/secret", "image", "c:secret"],
)
def test_nothing_but_objects_of_the_store_is_served(store: Path, url: str, path: str) -> None:
    (store.parent / "secret").write_text("what nobody may see")
    address = ("127.0.0.1", int(url.rpartition(":")[2].strip("/")))
    with socket.create_connection(address) as connection:  # urllib would tidy up the path
        request = f"GET /{path} HTTP/1.0\r\nHost: {address[0]}:{address[1]}\r\n\r\n"
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 500 "))
    assert b"what nobody may see" not in answer


def test_only_this_machine_is_answered_by_its_name(url: str) -> None:
    port = url.rpartition(":")[2].strip("/")
    assert get(url, Host=f"localhost:{port}")[0] == 200
    assert get(url, Host=f"attacker.example:{port}")[0] == 403
    host = socket.gethostbyname(socket.gethostname())
    if not host.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), timeout=5)


def test_a_store_that_is_replaced_is_an_error_that_says_so(store: Path, url: str) -> None:
    write_zarr(digits(seed=1), store, overwrite=True)
    status, body = get(f"{url}label/c/0")
    assert status == 500
    assert b"replaced" in body


@pytest.mark.parametrize("kind", ["zip", "bucket", "icechunk"])
def test_every_kind_of_store_is_served(s3: S3Server, tmp_path: Path, kind: str) -> None:
    partner("aiohttp")
    options = None
    if kind == "bucket":
        write_to_bucket(s3, digits())
        target, options = URL, s3.options
    else:
        target = {"zip": f"{tmp_path}/t.zarr.zip", "icechunk": f"icechunk+file://{tmp_path}/r"}[
            kind
        ]
        if kind == "icechunk":
            partner("icechunk")
        write_zarr(digits(), target)
    with serve_store(target, storage_options=options) as url:
        assert f'<meta name="store" content="{target}">'.encode() in get(url)[1]
        opened = xr.open_zarr(url, zarr_format=3, chunks=None).load()
    xr.testing.assert_identical(
        opened, mnist_zarr.open_store(target, storage_options=options).load()
    )


def test_what_is_no_store_and_a_port_in_use_are_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with (
            pytest.raises(StoreNotFoundError, match=f"{name}: there is no Zarr store"),
            serve_store(tmp_path / name),
        ):
            pass
    with serve_store(store) as url:
        port = int(url.rpartition(":")[2].strip("/"))
        with (
            pytest.raises(OptionError, match=f"`port`: cannot listen at {port}: .* choose another"),
            serve_store(store, port=port),
        ):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_opens_the_browser_and_stops_cleanly(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    opened = tmp_path / "opened"
    monkeypatch.setenv(
        "BROWSER",
        f'{sys.executable} -c \'import sys; open("{opened}", "w").write(sys.argv[1])\' %s',
    )
    command = [sys.executable, "-m", "mnist_zarr", "view", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().split()[0]
        assert get(url)[0] == 200
        until = time.monotonic() + 20
        while not (opened.exists() and opened.read_text() == url):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(20) == (0 if number == signal.SIGINT else 128 + number)
        assert process.stderr.read() == b""
