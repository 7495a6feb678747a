"""Stores on a static web server: no listing, few requests, counted in the server's own log."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.errors import StoreError, StoreNotFoundError, StoreReplacedError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.keys import is_document
from mnist_zarr.writing.writer import write_zarr
from tests.support.commands import run_command
from tests.support.digits import digits
from tests.support.marks import needs_zip_urls
from tests.support.nginx import WebServer, running_nginx
from tests.support.servers import free_port

pytestmark = pytest.mark.xdist_group("nginx")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running_nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="module")
def mnist(web: WebServer) -> str:
    ds = mnist_zarr.open_dataset("mnist")
    for name in ("mnist.zarr", "mnist.zarr.zip"):
        write_zarr(ds, web.root / name, order="label", level=1)
    write_zarr(ds.isel(sample=slice(500)), web.root / "v2.zarr", zarr_format=2)
    return f"{web.address}/mnist.zarr"


@pytest.fixture
def served(web: WebServer, mnist: str) -> WebServer:
    web.answers()
    return web


def chunks_of_sevens(mnist: str) -> set[str]:
    ds = xr.open_zarr(mnist, chunks=None)
    sevens = np.flatnonzero(ds.label.values == 7)
    first, last = sevens[[0, -1]] // ds.image.encoding["chunks"][0]
    return {f"/mnist.zarr/image/c/{index}/0/0" for index in range(first, last + 1)}


@pytest.mark.parametrize("name", ["mnist.zarr", "v2.zarr"])
def test_plain_xarray_opens_with_at_most_four_requests_for_documents(
    served: WebServer, name: str
) -> None:
    xr.open_zarr(f"{served.address}/{name}")
    asked = [answer.path.removeprefix(f"/{name}/") for answer in served.answers()]
    documents = [path for path in asked if is_document(path)]
    assert 1 <= len(documents) <= 4
    # Before 2026.9 xarray looks at the first string of format 2 for its type.
    assert set(asked) - set(documents) <= ({"split/0"} if name == "v2.zarr" else set())


def test_naming_the_format_opens_with_one_request(served: WebServer, mnist: str) -> None:
    xr.open_zarr(mnist, zarr_format=3)
    assert [a.path for a in served.answers()] == ["/mnist.zarr/zarr.json"]
    mnist_zarr.open_store(mnist)
    answers = served.answers()
    assert [a.path for a in answers] == ["/mnist.zarr/zarr.json"] * 2
    assert [a.method for a in answers] == ["HEAD", "GET"]


def test_selecting_a_label_fetches_its_chunks_and_the_labels_only(
    served: WebServer, mnist: str
) -> None:
    expected = chunks_of_sevens(mnist)
    ds = xr.open_zarr(mnist)
    served.answers()
    sevens = ds.sel(label=7).image.values
    fetched = [a.path for a in served.answers()]
    assert len(sevens) == 7293
    assert {path for path in fetched if "/image/" in path} == expected
    assert set(fetched) - expected == {"/mnist.zarr/label/c/0"}
    assert len([path for path in fetched if "/image/" in path]) == len(expected) < 20


def test_open_store_fetches_the_coordinates_once_and_then_chunks_only(
    served: WebServer, mnist: str
) -> None:
    expected = chunks_of_sevens(mnist)
    ds = mnist_zarr.open_store(mnist)
    served.answers()
    for _ in range(2):
        ds.sel(label=7).load()
    answers = served.answers()
    fetched = [a.path for a in answers if a.method == "GET"]
    coordinates = [f"/mnist.zarr/{name}/c/0" for name in ("label", "source_index", "split")]
    assert sorted(fetched) == sorted([*expected, *expected, *coordinates])
    # After each array or dask chunk, whether the store is still the same one.
    asked = [a.path for a in answers if a.method != "GET"]
    assert set(asked) == {"/mnist.zarr/zarr.json"}
    assert len(asked) <= 4 + 3


@needs_zip_urls
def test_a_zip_file_is_read_in_place_in_ranges(served: WebServer, mnist: str) -> None:
    url = f"{mnist}.zip"
    plain = xr.open_zarr(f"zip::{url}", chunks=None)
    np.testing.assert_array_equal(
        plain.image[35000:35100].values, xr.open_zarr(mnist, chunks=None).image[35000:35100].values
    )
    served.answers()
    ds = mnist_zarr.open_store(url)
    sevens = ds.sel(label=7).load()
    assert sevens.sizes["sample"] == 7293
    zipped = [a for a in served.answers() if a.path.endswith(".zip")]
    assert {a.status for a in zipped if a.method == "GET"} == {206}
    size = (served.root / "mnist.zarr.zip").stat().st_size
    assert sum(a.n_bytes for a in zipped) < size / 4


def test_what_is_not_there_raises_a_clear_error(served: WebServer) -> None:
    with pytest.raises(StoreNotFoundError, match=r"/nowhere\.zarr: there is no Zarr store"):
        mnist_zarr.open_store(f"{served.address}/nowhere.zarr")
    message = r"/nowhere\.zarr\.zip: cannot be opened as a zip file: 404, message='Not Found'"
    with pytest.raises(StoreNotFoundError, match=message):
        mnist_zarr.open_store(f"{served.address}/nowhere.zarr.zip")


def test_an_unreachable_server_raises_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"t\.zarr.*cannot be read: "):
        mnist_zarr.open_store(f"http://127.0.0.1:{free_port()}/t.zarr")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("ending", ["", pytest.param(".zip", marks=needs_zip_urls)])
def test_info_and_plot_take_a_url(mnist: str, ending: str, tmp_path: Path) -> None:
    url = f"{mnist}{ending}"
    shown = run_command("info", url)
    assert shown.exit_code == 0
    assert "7,293" in shown.output
    assert re.search(r"^image .* 123  54,880,000  11,\d{3},\d{3} ", shown.output, re.MULTILINE)
    result = run_command("plot", url, "--label", "7", "-o", tmp_path / "7.png")
    assert (result.exit_code, result.output) == (0, "")


def test_a_server_that_is_gone_is_not_a_store_that_was_replaced(tmp_path: Path) -> None:
    write_zarr(digits(20), tmp_path / "t.zarr")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ds = open_store(f"http://127.0.0.1:{server.server_port}/t.zarr", chunks=None)
        server.shutdown()
    with pytest.raises(StoreError, match=r"cannot be read: .*[Cc]onnect") as raised:
        ds.image.load()
    assert not isinstance(raised.value, StoreReplacedError)
