"""A static web server on loopback: byte ranges, headers of choice, a list of what was asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class WebSite:
    """A server that gives the files in a folder, and lists none.

    Attributes
    ----------
    headers : those of every answer, besides the usual
    has_ranges : whether it answers with a part where one is asked for
    counts_from_end : whether it knows ranges such as the last 100 bytes, else 416
    knows_head : whether it answers HEAD, else 405
    says_length : whether it says how long its answers are, else the connection ends with them
    requests : list of (method, path, range) in the order in which they came
    """

    root: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    has_ranges: bool = True
    counts_from_end: bool = True
    knows_head: bool = True
    says_length: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def asked(self, part: str) -> list[str]:
        """Return the paths with ``part`` in them that were asked for with GET."""
        return [path for method, path, _ in self.requests if method == "GET" and part in path]


@contextmanager
def running_site(root: Path) -> Iterator[WebSite]:
    """Serve a folder."""
    site = WebSite(root)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            path = self.path.partition("?")[0]
            site.requests.append((self.command, path, asked))
            place = Path(self.translate_path(path + "index.html" if path.endswith("/") else path))
            if not place.is_file():
                self.answer(HTTPStatus.NOT_FOUND)
                return
            data = place.read_bytes()
            match = RANGE.fullmatch(asked) if site.has_ranges else None
            if match is None:
                self.answer(HTTPStatus.OK, data)
                return
            if not (match[1] or site.counts_from_end):
                self.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            first = int(match[1]) if match[1] else max(0, len(data) - int(match[2]))
            stop = int(match[2]) + 1 if match[1] and match[2] else len(data)
            part = data[first:stop]
            content_range = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            self.answer(HTTPStatus.PARTIAL_CONTENT, part, {"Content-Range": content_range})

        def do_HEAD(self) -> None:
            if site.knows_head:
                self.do_GET()
                return
            site.requests.append((self.command, self.path, ""))
            self.answer(HTTPStatus.METHOD_NOT_ALLOWED)

        def do_OPTIONS(self) -> None:
            site.requests.append((self.command, self.path, ""))
            self.answer(HTTPStatus.NO_CONTENT)

        def answer(
            self, status: HTTPStatus, data: bytes = b"", headers: Mapping[str, str] | None = None
        ) -> None:
            self.send_response(status)
            is_page = self.path.partition("?")[0].endswith(("/", ".html"))
            content_type = "text/html" if is_page else "application/octet-stream"
            length = {"Content-Length": str(len(data))}
            own = {
                "Content-Type": content_type,
                **(length if site.says_length else {"Connection": "close"}),
            }
            for name, value in {**own, **site.headers, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def translate_path(self, path: str) -> str:
            self.directory = str(site.root)
            return super().translate_path(path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
