"""What it costs to build a store in a bucket and to read it from a web server.

    pip install '.[test]'
    python -m benchmarks.hosting

The rows are those of README, section "Hosting": requests and bytes, counted by the servers. The
last line compares two clients of the bucket, which is moto's.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import xarray as xr
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from obstore.store import S3Store
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_from_directory
from zarr.storage import ObjectStore

from mnist_zarr import build, open_store

TARGETS = {"source order": "source.zarr", "label order": "label.zarr", "zip file": "label.zarr.zip"}
BUCKET = "bucket"
DIGIT = 7
REPEATS = 7
PUBLIC = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
        }
    ],
}


class Server:
    """A web application on a free port of this machine, whose answers are counted."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.answers: list[tuple[str, int]] = []
        self._application = application
        server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = b"".join(self._application(environ, start_response))
        self.answers.append((environ["REQUEST_METHOD"], len(body)))
        return [body]

    def count(self, action: Callable[..., object], *args: Any, **options: Any) -> str:
        """Return how many requests of each kind and how many bytes an action takes."""
        self.answers.clear()
        action(*args, **options)
        methods = [method for method, _ in self.answers]
        kinds = ", ".join(f"{methods.count(kind)} {kind}" for kind in sorted({*methods}))
        return f"{len(methods)} ({kinds}), {sum(size for _, size in self.answers):,} bytes"


class _Silent(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        pass


def main() -> None:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "moto")  # it calls itself
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "moto")
    s3 = Server(DomainDispatcherApplication(create_backend_app))
    owner = {"key": "owner", "secret": "secret", "endpoint_url": s3.address}
    bucket = fsspec.filesystem("s3", **owner)
    bucket.mkdir(BUCKET)
    bucket.call_s3("put_bucket_policy", Bucket=BUCKET, Policy=json.dumps(PUBLIC))
    with tempfile.TemporaryDirectory() as folder:
        web = Server(static_files(folder))
        for column, name in TARGETS.items():
            order = name.split(".")[0]
            print(column)
            cost = s3.count(build, f"s3://{BUCKET}/{name}", order=order, storage_options=owner)
            print(f"  {'build to S3':28} {cost}")
            build(Path(folder) / name, order=order)
            for what, cost in costs_of_reading(web, name):
                print(f"  {what:28} {cost}")
    n_objects, ratio = compare_clients(s3)
    print(f"obstore reads {n_objects} objects {ratio:.1f} times as fast as s3fs")


def static_files(folder: str) -> Callable[..., Iterable[bytes]]:
    """Return a web application that serves the files of a folder, with ranges."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        response: Any
        try:
            response = send_from_directory(folder, environ["PATH_INFO"].strip("/"), environ)
        except HTTPException as error:
            response = error
        return response(environ, start_response)

    return answer


def costs_of_reading(web: Server, name: str) -> Iterator[tuple[str, str]]:
    """Yield rows of the table: what is done, and what it takes."""
    address = f"{web.address}/{name}"
    url, options = address, {}
    if name.endswith(".zip"):
        url, options = f"zip::{address}", {"storage_options": {"http": {"block_size": 16384}}}
    yield "open, plain xarray", web.count(xr.open_zarr, url, **options)
    yield "open with zarr_format=3", web.count(xr.open_zarr, url, zarr_format=3, **options)
    plain = xr.open_zarr(url, zarr_format=3, **options)
    yield f"then .sel(label={DIGIT}).image", web.count(lambda: plain.sel(label=DIGIT).image.values)
    yield "open_store", web.count(open_store, address)
    ds = open_store(address)
    yield f"then .sel(label={DIGIT})", web.count(lambda: ds.sel(label=DIGIT).load())
    yield "all images", web.count(lambda: ds.image.values)


def compare_clients(server: Server) -> tuple[int, float]:
    """Return how many objects the store in label order has, and how much faster obstore reads."""
    options = {"anon": True, "endpoint_url": server.address, "max_concurrency": 1}
    place = S3Store(
        BUCKET,
        prefix="label.zarr",
        endpoint=server.address,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    stores = {"s3fs": f"s3://{BUCKET}/label.zarr", "obstore": ObjectStore(place, read_only=True)}
    times: dict[str, list[float]] = {client: [] for client in stores}
    for _ in range(REPEATS):
        for client, store in stores.items():
            known = options if client == "s3fs" else None
            ds = xr.open_zarr(store, zarr_format=3, storage_options=known)
            server.answers.clear()
            start = time.perf_counter()
            ds.image.values  # noqa: B018
            times[client].append(time.perf_counter() - start)
    medians = {client: statistics.median(taken) for client, taken in times.items()}
    return len(server.answers), medians["s3fs"] / medians["obstore"]


if __name__ == "__main__":
    main()
