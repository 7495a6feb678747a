"""A web server for this machine alone, which shows one store in the browser."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from mnist_zarr.errors import MnistZarrError, OptionError
from mnist_zarr.hosting.page import make_page
from mnist_zarr.stores.inventory import read_root
from mnist_zarr.stores.keys import PAGE, sync
from mnist_zarr.stores.targets import Target, local_path, parse_target

LOOPBACK = "127.0.0.1"
RANGE = re.compile(r"bytes=(?:(\d+)-(\d+)|-(\d+))")
# No key of a store goes up, names a disk or has an empty part.
NO_KEY = re.compile(r"(^|/)\.{0,2}(/|$)|[\\:\0]")


@contextlib.contextmanager
def serve_store(
    target: Target, *, port: int = 0, storage_options: dict[str, Any] | None = None
) -> Iterator[str]:
    """Serve a store and its page to browsers of this machine; yield the URL of the page.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    port : int
        Where to listen; 0 for any free port.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL, or to Icechunk.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreError
        If what is there cannot be opened.
    OptionError
        If the port is in use, or the target takes no ``storage_options``.
    MissingExtraError
        If the package that can open the URL is not installed.

    Examples
    --------
    >>> import tempfile, mnist_zarr, urllib.request
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     with serve_store(f"{folder}/mnist.zarr") as url:
    ...         urllib.request.urlopen(url).status
    200
    """
    place = parse_target(target, storage_options)
    store = place.open()
    if not read_root(store):
        raise place.not_found(store)
    path = local_path(place.name)
    page = make_page(place.name if path is None else str(Path(path).absolute()))
    with _listen(store, page, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _listen(store: Store, page: bytes, port: int) -> ThreadingHTTPServer:
    class Handler(_Handler):
        """Answers with the objects of this store."""

    Handler.store, Handler.page = store, page
    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise OptionError(
            f"`port`: cannot listen at {port}: {error.strerror}; choose another one, or 0 for any"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD, with byte ranges."""

    store: Store
    page: bytes
    protocol_version = "HTTP/1.1"
    server_version = "mnist-zarr"
    sys_version = ""

    def do_GET(self) -> None:
        key = unquote(urlsplit(self.path).path).removeprefix("/")
        if not self._is_meant():
            self._answer(HTTPStatus.FORBIDDEN, b"this server is for this machine alone")
        elif key in ("", PAGE):
            self._answer(HTTPStatus.OK, self.page, "text/html; charset=utf-8")
        elif NO_KEY.search(key):
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._answer_with_object(key)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _is_meant(self) -> bool:
        """Whether the browser was sent here by name: other sites can give a name of theirs."""
        port = self.connection.getsockname()[1]
        return self.headers.get("Host") in (f"{LOOPBACK}:{port}", f"localhost:{port}")

    def _answer_with_object(self, key: str) -> None:
        part = _parse_range(self.headers.get("Range", ""))
        try:
            value = sync(self.store.get(key, default_buffer_prototype(), part))
        except (MnistZarrError, OSError) as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode())
            return
        if value is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        self._answer(status, value.to_bytes(), "application/octet-stream")

    def _answer(
        self, status: HTTPStatus, body: bytes = b"", content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing: the page counts requests."""


def _parse_range(header: str) -> ByteRequest | None:
    """Return the range of bytes that is asked for; None for all, as for forms that pages omit."""
    asked = RANGE.fullmatch(header)
    if asked is None:
        return None
    first, last, n_last = asked.groups()
    if n_last is not None:
        return SuffixByteRequest(int(n_last))
    return RangeByteRequest(int(first), int(last) + 1)
