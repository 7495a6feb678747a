"""Fixtures of several modules: servers on loopback, targets of every kind, counters."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import matplotlib
import pytest
from hypothesis import settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from mnist_zarr.files.gzip_source import GzipSource
from mnist_zarr.stores.snapshot import LocalSnapshot
from tests.support.clouds import install_azurite
from tests.support.leases import make_quick
from tests.support.object_server import S3Server
from tests.support.partners import STRICT_OPTION, partner, set_strict
from tests.support.targets import KINDS, Named

settings.register_profile("no-deadline", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=5000)
settings.load_profile("no-deadline")

matplotlib.use("agg")  # no windows

# What `serve` returns: the URL of the file.
Serve = Callable[..., str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        STRICT_OPTION,
        action="store_true",
        help="fail where a package of the extra 'test' is missing",
    )


def pytest_configure(config: pytest.Config) -> None:
    set_strict(config.getoption(STRICT_OPTION))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads: an empty one for each test, and no mirror."""
    monkeypatch.setenv("MNIST_ZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MNIST_ZARR_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Close the figures of pyplot, which keeps them all."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is asked first for every download."""
    partner("pooch")
    monkeypatch.setenv("MNIST_ZARR_MIRROR", (tmp_path / "mirror").as_uri())
    return tmp_path / "mirror"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """An S3 server with one empty bucket, which anybody may read."""
    s3_server.reset()
    return s3_server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that emulates Azure's storage."""
    return install_azurite(tmp_path_factory.mktemp("azurite"))


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for builds that are dead."""
    make_quick(monkeypatch.setattr)


@pytest.fixture
def web_address(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that gives the files in ``tmp_path``, and lists no folder."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Silent, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def memory_url() -> Iterator[str]:
    """The URL of an empty folder of fsspec's memory file system."""
    _empty_memory()
    yield "memory://box"
    _empty_memory()


def _empty_memory() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each chunk of images was read."""
    counter: Counter[str] = Counter()
    get_sync = LocalSnapshot.get_sync
    lock = threading.Lock()

    def counting(self: LocalSnapshot, key: str, **options: Any) -> Any:
        with lock:
            counter[key] += key.startswith("image/c/")
        return get_sync(self, key, **options)

    monkeypatch.setattr(LocalSnapshot, "get_sync", counting)
    return counter


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of target."""
    return str(request.param)


@pytest.fixture
def new_target(kind: str, tmp_path: Path, memory_url: str, request: pytest.FixtureRequest) -> Named:
    """A target of that kind at which there is nothing, and its storage options."""
    if kind == "icechunk":
        partner("icechunk")
    options = None
    if kind.startswith("s3"):
        s3: S3Server = request.getfixturevalue("s3")
        options = s3.s3fs_options if kind == "s3 through s3fs" else s3.options
    return KINDS[kind](tmp_path), options


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each step in this process decodes of gzip files of images."""
    sizes: list[int] = []
    inflate = GzipSource._inflate

    def counting(source: GzipSource, *args: Any) -> bytes:
        data = inflate(source, *args)
        sizes.append(len(data) if "images" in source.name else 0)
        return data

    monkeypatch.setattr(GzipSource, "_inflate", counting)
    return sizes


@pytest.fixture
def serve(httpserver: HTTPServer) -> Serve:
    """Serve bytes from a loopback web server, with byte ranges or without."""
    httpserver.no_handler_status_code = 404

    def add(path: str, data: bytes, *, ranges: bool = True, announce: str | None = None) -> str:
        def answer(request: Request) -> Response:
            told = announce or ("bytes" if ranges else "none")
            response = Response(data, headers={"Accept-Ranges": told})
            if ranges and request.range and (part := request.range.range_for_length(len(data))):
                response.data, response.status_code = data[slice(*part)], 206
                response.headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{len(data)}"
            return response

        httpserver.expect_request(path).respond_with_handler(answer)
        return httpserver.url_for(path)

    return add
