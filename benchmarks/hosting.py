"""What a hosted store costs: requests, bytes, and time through s3fs and obstore.

Serves MNIST on loopback, counts what readers fetch and what `build` sends to S3 (moto), and
times the same reads through s3fs and obstore, interleaved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from obstore.store import S3Store
from zarr.storage import ObjectStore

from benchmarks.report import Results
from benchmarks.timing import measure
from benchmarks.web import serve
from mnist_zarr import build, open_store
from tests.support.object_server import BUCKET, KEYS, S3Server

DIGIT = 7
STORES = {
    "source order": ("source.zarr", "source"),
    "label order": ("label.zarr", "label"),
    "label order, zip file": ("label.zarr.zip", "label"),
}


def run(folder: Path, repeats: int) -> Results:
    fetched = count_fetched(folder)
    server = S3Server()
    sent = {name: count_sent(server, *place) for name, place in STORES.items()}
    seconds = time_object_stores(server, repeats)
    server.stop()
    print_table(fetched, sent)
    for name, median in seconds.items():
        print(f"all images of label.zarr through {name:<10}{median * 1e3:8.0f} ms")
    return {"fetched": fetched, "sent": sent, "seconds": seconds}


def count_fetched(folder: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the requests and bytes of typical reads, for each store."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for target, order in STORES.values():
        build(folder / target, order=order)
    with serve(folder) as (address, sent):

        def count(task: Callable[..., object], *args: Any, **options: Any) -> tuple[int, int]:
            sent.clear()
            task(*args, **options)
            return len(sent), sum(size for _, size in sent)

        for name, (target, _) in STORES.items():
            url = f"{address}/{target}"
            ds = open_store(url)
            counts[name] = {
                "open_store, coordinates included": count(open_store, url),
                "then .sel(label=7)": count(ds.sel(label=DIGIT).image.load),
                "then all images": count(ds.image.copy().load),
            }
            if target.endswith(".zip"):
                options = {"http": {"block_size": 1 << 14}}
                counts[name]["open, plain xarray"] = count(
                    xr.open_zarr, f"zip::{url}", storage_options=options
                )
            else:
                counts[name]["open, plain xarray"] = count(xr.open_zarr, url)
                counts[name]["open with zarr_format=3"] = count(xr.open_zarr, url, zarr_format=3)
    return counts


def count_sent(server: S3Server, target: str, order: Any) -> dict[str, int]:
    """Return the number of requests of each kind in one build to S3."""
    server.reset()
    build(f"s3://{BUCKET}/{target}", order=order, storage_options=server.options)
    return dict(Counter(method for method, _ in server.requests))


def time_object_stores(server: S3Server, repeats: int) -> dict[str, float]:
    """Return the seconds to read all images through s3fs and through obstore."""
    server.reset()
    url = f"s3://{BUCKET}/label.zarr"
    build(url, order="label", storage_options=server.options)
    store = S3Store(
        BUCKET,
        prefix="label.zarr",
        endpoint=server.address,
        access_key_id=KEYS["key"],
        secret_access_key=KEYS["secret"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    through_s3fs = open_store(url, chunks=None, storage_options=server.options).image
    through_obstore = open_store(ObjectStore(store, read_only=True), chunks=None).image
    assert (np.asarray(through_s3fs[-1]) == np.asarray(through_obstore[-1])).all()
    timings = measure(
        {
            "s3fs": lambda: through_s3fs.copy().values,
            "obstore": lambda: through_obstore.copy().values,
        },
        repeats,
    )
    return {name: timing.median for name, timing in timings.items()}


def print_table(
    fetched: dict[str, dict[str, tuple[int, int]]], sent: dict[str, dict[str, int]]
) -> None:
    print(f"{'requests, kB':<34}" + "".join(f"{name:>24}" for name in fetched))
    for task in fetched["source order"]:
        cells = (counts.get(task) for counts in fetched.values())
        print(f"{task:<34}" + "".join(f"{cell(found):>24}" for found in cells))
    print(f"{'build to S3':<34}" + "".join(f"{methods(counts):>24}" for counts in sent.values()))


def cell(found: tuple[int, int] | None) -> str:
    return "" if found is None else f"{found[0]}, {found[1] / 1e3:,.0f}"


def methods(counts: dict[str, int]) -> str:
    others = sum(counts.values()) - counts.get("PUT", 0)
    return f"{counts.get('PUT', 0)} PUT, {others} others"
