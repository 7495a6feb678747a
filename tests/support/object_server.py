"""An S3 server on loopback that writes down every request, and fails when it is told to."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.request import Request, urlopen

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.support.partners import partner

KEYS = {"key": "reader", "secret": "secret"}
BUCKET = "bucket"
PUBLIC = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:*",  # writing is refused below
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        }
    ],
}
SIGNATURE = (
    f"AWS4-HMAC-SHA256 Credential={KEYS['key']}/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)

StartResponse = Callable[..., Any]
Answer = Callable[[StartResponse], Iterable[bytes]]
# Looks at a request, before (None) or after it was served; returns another answer, or None.
Fault = Callable[[str, str], str | None]


class _Silent(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        """The tests look at ``requests`` instead."""


@dataclass
class S3Server:
    """moto's S3 behind a WSGI layer that counts, and injects faults.

    Attributes
    ----------
    requests : list of (method, path) in the order in which they came
    fault : returns "503" (or another status), "cut", "lost" or None for a request; "lost" serves it
        and answers that it failed
    ignored : a condition that the server does not know, or "501" if it refuses all of them
    """

    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda method, path: None
    ignored: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        # moto asks for some credentials where it calls itself.
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
        # botocore gives up soon, for the tests' sake.
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
        partner("s3fs")
        app = partner("moto.moto_server.werkzeug_app")
        self._one_at_a_time = threading.Lock()
        self._moto = app.DomainDispatcherApplication(app.create_backend_app)
        self.start()

    def reset(self) -> None:
        """Begin again with one empty bucket, which anybody may list."""
        self.fault, self.ignored = lambda method, path: None, ""
        for method, path, body in (
            ("POST", "/moto-api/reset", b""),
            ("PUT", f"/{BUCKET}", b""),
            ("PUT", f"/{BUCKET}?policy", json.dumps(PUBLIC).encode()),
        ):
            headers = {"Authorization": SIGNATURE, "Content-Type": "application/json"}
            request = Request(self.address + path, body, headers, method=method)
            urlopen(request, timeout=30).close()
        self.requests.clear()

    def start(self) -> None:
        self._server = self._listen()
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _listen(self) -> BaseWSGIServer:
        until = time.monotonic() + 30
        while True:
            try:
                return make_server(
                    "127.0.0.1", self.port, self._serve, threaded=True, request_handler=_Silent
                )
            except (OSError, SystemExit):  # somebody uses the port of a server that was stopped
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs to get here."""
        return {**KEYS, "endpoint_url": self.address}

    @property
    def s3fs_options(self) -> dict[str, Any]:
        """The same in words that obstore has none for, so that s3fs reads as well."""
        return {**self.options, "config_kwargs": {"connect_timeout": 5}}

    @property
    def public_options(self) -> dict[str, Any]:
        """What s3fs needs to read as anybody."""
        return {"anon": True, "endpoint_url": self.address}

    def holds(self, key: str) -> bool:
        """Whether there is such an object, without a request."""
        return key in self._objects

    def content(self, key: str) -> bytes:
        """Return the content of an object, without a request."""
        content: bytes = self._objects[key].value
        return content

    @property
    def _objects(self) -> Any:
        account = partner("moto.core.models").DEFAULT_ACCOUNT_ID
        return partner("moto.s3.models").s3_backends[account]["aws"].buckets[BUCKET].keys

    def headers(self, key: str) -> Message:
        """Return the headers with which the object is served."""
        request = Request(f"{self.address}/{BUCKET}/{key}", method="HEAD")
        with urlopen(request, timeout=30) as response:
            headers: Message = response.headers
            return headers

    def asked(self, method: str, part: str = "") -> list[str]:
        """Return the paths of requests of this method with ``part`` in them."""
        return [path for verb, path in self.requests if verb == method and part in path]

    def _serve(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = self.fault(method, path)
        if not fault and not self._may(method, environ.get("HTTP_AUTHORIZATION")):
            fault = "403"
        environ.pop(self.ignored, None)
        if self.ignored == "501" and {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
            fault = "501"
        if fault == "lost":
            list(self._moto({**environ}, lambda *_, **__: None))
            start_response("500 Fault", [("Content-Length", "0")])
            return
        if fault and fault.isdigit():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} Fault", [("Content-Length", "0")])
            return
        # What a client that is halted has not sent yet keeps nobody else waiting.
        n_bytes = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(n_bytes))
        with self._one_at_a_time:  # moto itself lets others write between a comparison and a write
            body = b"".join(self._moto(environ, start_response))
        yield body[: len(body) // 2] if fault == "cut" else body

    @staticmethod
    def _may(method: str, authorization: str | None) -> bool:
        """Anybody may read; only who has the key may write (moto itself lets everybody)."""
        if authorization is None:
            return method in ("GET", "HEAD")
        return f"Credential={KEYS['key']}/" in authorization
