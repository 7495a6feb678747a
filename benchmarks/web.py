"""A static web server on loopback that counts what it sends."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Serve a folder on a free port; yield its URL and the list of (path, bytes) sent.

    Supports byte ranges, which readers of zip files need.
    """
    sent: list[tuple[str, int]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place = Path(self.translate_path(self.path))
            if not place.is_file():
                sent.append((self.path, 0))
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            data = place.read_bytes()
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            if asked:
                first = int(asked[1]) if asked[1] else max(len(data) - int(asked[2]), 0)
                stop = min(int(asked[2]) + 1, len(data)) if asked[1] and asked[2] else len(data)
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(data)}")
                data = data[first:stop]
            sent.append((self.path, len(data)))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_HEAD(self) -> None:
            place = Path(self.translate_path(self.path))
            sent.append((self.path, 0))
            self.send_response(HTTPStatus.OK if place.is_file() else HTTPStatus.NOT_FOUND)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(place.stat().st_size if place.is_file() else 0))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()
