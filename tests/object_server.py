"""An S3 server on loopback that writes down every request, and fails when it is told to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

KEYS = {"key": "reader", "secret": "secret"}
BUCKET = "bucket"

StartResponse = Callable[..., Any]
Answer = Callable[[StartResponse], Iterable[bytes]]
# Looks at a request, before (None) or after it was served; returns another answer, or None.
Fault = Callable[[str, str], str | None]


@dataclass
class S3Server:
    """moto's S3 behind a WSGI layer that counts, and injects faults.

    Attributes
    ----------
    requests : list of (method, path) in the order in which they came
    fault : returns "503" (or another status), "cut" or None for a request
    """

    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda method, path: None
    port: int = 0

    def __post_init__(self) -> None:
        # moto asks for some credentials where it calls itself.
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.start()

    def start(self) -> None:
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", self.port, self._serve, threaded=True
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """What s3fs needs to get here; it gives up soon, for the tests' sake."""
        return {
            **KEYS,
            "endpoint_url": self.address,
            "config_kwargs": {"retries": {"max_attempts": 3}, "connect_timeout": 5},
            "skip_instance_cache": True,
        }

    def asked(self, method: str, part: str = "") -> list[str]:
        """Return the paths of requests of this method with ``part`` in them."""
        return [path for verb, path in self.requests if verb == method and part in path]

    def _serve(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = self.fault(method, path)
        if fault and fault.isdigit():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} Fault", [("Content-Length", "0")])
            return
        body = b"".join(self._moto(environ, start_response))
        yield body[: len(body) // 2] if fault == "cut" else body
