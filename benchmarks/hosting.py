"""What a hosted store costs: requests, bytes, and time through fsspec and obstore.

Serves MNIST on loopback, counts what readers fetch from a web server and what `build` sends to S3
(moto), and times the first digit of new processes and all images, through fsspec and obstore.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from obstore.store import HTTPStore, S3Store
from zarr.storage import ObjectStore

from benchmarks.report import Cases, Results, Targets, judge, time_cases
from benchmarks.web import serve
from mnist_zarr import build, open_store
from tests.support.object_server import BUCKET, KEYS, S3Server

DIGIT = 7
STORES = {
    "source order": ("source.zarr", "source"),
    "label order": ("label.zarr", "label"),
    "label order, zip file": ("label.zarr.zip", "label"),
}
PROBING = "`xr.open_zarr(url)`"
PLAIN = "`xr.open_zarr(url, zarr_format=3)`"
OBSTORE = "the same through `ObjectStore`"
OURS = "`open_store(url)`"
THEN_DIGIT, THEN_ALL = "then `.sel(label=7)`", "then all images"
# The requests and bytes of each task of each reader.
Fetched = dict[str, dict[str, Sequence[int]]]
Open = Callable[[], xr.Dataset]

FIRST_DIGIT = """
import os, sys, time
import dask.array, matplotlib, xarray, zarr, mnist_zarr
from mnist_zarr.reading.reader import open_store
from benchmarks.hosting import readers_of
url = sys.argv[1]
options = {"anon": True, "endpoint_url": sys.argv[3]} if url.startswith("s3://") else {}
read = readers_of(url, options, chunks=None)[sys.argv[2]]
began = time.perf_counter()
assert read().sel(label=7).image[0].values.shape == (28, 28)
print(time.perf_counter() - began, flush=True)
os._exit(0)  # zarr's ObjectStore may abort a process that ends
"""


def run(folder: Path, repeats: int) -> Results:
    fetched = count_fetched(folder)
    server = S3Server()
    sent = {name: count_sent(server, *place) for name, place in STORES.items()}
    for line in rows(fetched, sent):
        print(f"{line[0]:<40}" + "".join(f"{found:>28}" for found in line[1:]), flush=True)
    first_digit = time_first_digit(folder, server, repeats)
    results = time_cases(all_images(server), repeats)
    server.stop()
    results |= {"objects": count_objects(folder), "fetched": fetched, "sent": sent}
    results["first_digit"] = first_digit
    results["targets"] = judge(targets(results))
    return results


def readers_of(url: str, options: dict[str, Any], chunks: Any = "auto") -> dict[str, Open]:
    """Return ways to open a folder or bucket, with dask or without (``chunks=None``)."""
    how: dict[str, Any] = {"chunks": None} if chunks is None else {}
    plain = {"max_concurrency": 1} if url.startswith("s3://") else {}
    plainly = functools.partial(
        xr.open_zarr, url, storage_options={**options, **plain} or None, **how
    )
    return {
        PROBING: plainly,
        PLAIN: functools.partial(plainly, zarr_format=3),
        OBSTORE: lambda: xr.open_zarr(
            object_store(url, options), zarr_format=3, **{**how, "storage_options": None}
        ),
        OURS: lambda: open_store(url, chunks=chunks, storage_options=options or None),
    }


def readers_of_zip(url: str) -> dict[str, Open]:
    """Return ways to open a zip file on a web server."""
    options = {"http": {"block_size": 1 << 14}}
    plainly = functools.partial(xr.open_zarr, f"zip::{url}", storage_options=options)
    return {PLAIN: functools.partial(plainly, zarr_format=3), OURS: lambda: open_store(url)}


def object_store(url: str, options: dict[str, Any]) -> ObjectStore[Any]:
    """Return the store that a user of obstore gives to xarray."""
    if url.startswith("http"):
        http = HTTPStore(url, client_options={"allow_http": True})
        return ObjectStore(http, read_only=True)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    keys = {"access_key_id": KEYS["key"], "secret_access_key": KEYS["secret"]}
    s3 = S3Store(
        bucket,
        prefix=prefix,
        endpoint=options["endpoint_url"],
        region="us-east-1",
        client_options={"allow_http": True},
        **keys,
    )
    return ObjectStore(s3, read_only=True)


def count_fetched(folder: Path) -> dict[str, Fetched]:
    """Return the requests and bytes of typical reads from a web server, for each store."""
    for target, order in STORES.values():
        build(folder / target, order=order)
    counts: dict[str, Fetched] = {}
    with serve(folder) as (address, sent):

        def count(task: Callable[[], Any]) -> tuple[Any, Sequence[int]]:
            sent.clear()
            return task(), (len(sent), sum(size for _, size in sent))

        for name, (target, _) in STORES.items():
            url = f"{address}/{target}"
            readers = readers_of_zip(url) if target.endswith(".zip") else readers_of(url, {})
            counts[name] = {}
            for reader, read in readers.items():
                ds, opened = count(read)
                counts[name][reader] = {"open": opened}
                if reader != PROBING:
                    counts[name][reader] |= {
                        THEN_DIGIT: count(functools.partial(read_digit, ds))[1],
                        THEN_ALL: count(ds.image.copy().load)[1],
                    }
    return counts


def read_digit(ds: xr.Dataset) -> xr.DataArray:
    return ds.sel(label=DIGIT).image.load()  # to find it reads the labels


def count_objects(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the number of chunks and of documents of each store; a zip file is one object."""
    names = {
        name: [path.name for path in (folder / target).rglob("*") if path.is_file()]
        for name, (target, _) in STORES.items()
    }
    documents = {name: found.count("zarr.json") for name, found in names.items()}
    return {name: (max(1, len(names[name]) - n), n) for name, n in documents.items()}


def count_sent(server: S3Server, target: str, order: Any) -> dict[str, int]:
    """Return the number of requests of each kind in one build to S3."""
    server.reset()
    build(f"s3://{BUCKET}/{target}", order=order, storage_options=server.options)
    return dict(Counter(method for method, _ in server.requests))


def time_first_digit(
    folder: Path, server: S3Server, repeats: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the seconds from open to the first digit in new processes, imports not included."""
    server.reset()
    build(f"s3://{BUCKET}/label.zarr", order="label", storage_options=server.options)
    with serve(folder) as (address, _):
        places = {"web server": f"{address}/label.zarr", "S3": f"s3://{BUCKET}/label.zarr"}
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(repeats):
            for place, url in places.items():
                for reader in (PLAIN, OBSTORE, OURS):
                    command = [sys.executable, "-c", FIRST_DIGIT, url, reader, server.address]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    seconds.setdefault((place, reader), []).append(json.loads(done.stdout))
    found: dict[str, dict[str, dict[str, float]]] = {place: {} for place in places}
    for (place, reader), times in seconds.items():
        found[place][reader] = {"median": statistics.median(times), "fastest": min(times)}
        figures = found[place][reader]
        print(
            f"first digit, {place}, {reader:<40}" + f"{figures['fastest'] * 1e3:8.0f} ms, fastest"
        )
    return found


def all_images(server: S3Server) -> Cases:
    """Return reads of all images of the store in S3."""
    readers = readers_of(f"s3://{BUCKET}/label.zarr", server.options, chunks=None)
    opened = {reader: readers[reader]().image for reader in (PLAIN, OBSTORE, OURS)}
    return {
        f"all images, S3, {reader}": lambda image=image: image.copy().load()
        for reader, image in opened.items()
    }


def targets(results: Results) -> Targets:
    first = {place: times[OURS]["fastest"] for place, times in results["first_digit"].items()}
    return {
        f"the first digit from a {place}, in seconds": (seconds, -0.15)
        for place, seconds in (("web server", first["web server"]), ("bucket", first["S3"]))
    }


def rows(fetched: dict[str, Fetched], sent: dict[str, dict[str, int]]) -> list[list[str]]:
    """Return the lines of the table: what is done, and what it costs for each store."""
    tasks = {
        (reader, task): reader if task == "open" else task
        for counts in fetched.values()
        for reader, tasks in counts.items()
        for task in tasks
    }
    lines = [
        [title, *(cell(store, found.get(reader, {}).get(task)) for store, found in fetched.items())]
        for (reader, task), title in tasks.items()
    ]
    # The other requests are mostly looks at the marker, once a second.
    return [*lines, ["`build` to S3", *(f"{counts['PUT']} PUT" for counts in sent.values())]]


def cell(store: str, found: Sequence[int] | None) -> str:
    if found is None:
        return ""
    count, size = found
    if "zip" in store and count > 10:  # fsspec reads ahead, more or less as threads take turns
        return f"about {round(count, -1)}, {size / 1e6:.1f} MB"
    return f"{count}, " + (f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB")
