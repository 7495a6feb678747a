"""What shards cost and spare: files, requests for a digit, and time with plain xarray.

Label order of MNIST, in chunks by themselves and in shards, read over HTTP from loopback and from
disk. zarr 3.4 and later merge the ranges of a shard that one read needs; ``open_store`` does so
with every version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.report import Results, time_cases
from benchmarks.web import serve
from mnist_zarr import build, open_store, select

DIGIT = 7
LAYOUTS: dict[str, dict[str, Any]] = {
    "chunks of 450 kB": {"shard_bytes": 0},
    "chunks of 450 kB in shards of 30 MB": {"shard_bytes": 30_000_000},
    "chunks of 450 kB in shards of 60 MB": {"shard_bytes": 60_000_000},
    "chunks of 100 kB in shards of 60 MB": {"chunk_bytes": 100_000, "shard_bytes": 60_000_000},
    "chunks of 50 kB in shards of 60 MB": {"chunk_bytes": 50_000, "shard_bytes": 60_000_000},
}


def plain(place: str) -> object:
    return xr.open_zarr(place, zarr_format=3).sel(label=DIGIT).image.load()


def plain_without_dask(place: str) -> object:
    return xr.open_zarr(place, zarr_format=3, chunks=None).sel(label=DIGIT).image.load()


def ours(place: str) -> object:
    return select(open_store(place), label=DIGIT).image.load()


READERS: dict[str, Callable[[str], object]] = {
    "open_zarr": plain,
    "open_zarr(chunks=None)": plain_without_dask,
    "open_store": ours,
}


def run(folder: Path, repeats: int) -> Results:
    places = {name: folder / f"{number}.zarr" for number, name in enumerate(LAYOUTS)}
    for name, place in places.items():
        build(place, order="label", **LAYOUTS[name])
    files = {n: sum(path.is_file() for path in p.rglob("*")) for n, p in places.items()}
    requests = count_requests(folder, places)
    print(
        f"{'a digit: requests and kB of images':<38}{'files':>6}"
        + "".join(f"{r:>24}" for r in READERS)
    )
    for name, counts in requests.items():
        cells = (f"{count}, {size / 1e3:,.0f}" for count, size in counts.values())
        print(f"{name:<38}{files[name]:>6}" + "".join(f"{cell:>24}" for cell in cells))
    cases = {
        f"{reader}, {name}": functools.partial(read, str(place))
        for name, place in places.items()
        for reader, read in READERS.items()
    }
    return {"files": files, "requests": requests, **time_cases(cases, repeats)}


def count_requests(folder: Path, places: dict[str, Path]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the requests for images, and their bytes, of each layout and reader."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    with serve(folder) as (address, sent):
        for name, place in places.items():
            counts[name] = {}
            for reader, read in READERS.items():
                sent.clear()
                read(f"{address}/{place.name}")
                sizes = [size for path, size in sent if "/image/c/" in path]
                counts[name][reader] = len(sizes), sum(sizes)
    return counts
