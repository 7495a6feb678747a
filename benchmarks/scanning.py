"""Reading everything once: mean and deviation of each pixel, mean images, verification."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from matplotlib.figure import Figure
from numcodecs import Zstd

from benchmarks import peers
from benchmarks.report import Cases, Results, Targets, judge, time_cases
from mnist_zarr import build, open_store, plot, standardize, verify

N_THREADS = os.cpu_count() or 1
ORDERS = ("source", "label", "shuffled")
OURS = "standardize(per_pixel=True): mean and deviation of each pixel"
NUMPY, DECODE = "NumPy on the loaded array: mean and deviation", "limit: decode everything"
MEAN_IMAGES, NUMPY_MEANS = "plot.mean_images", "NumPy on the loaded array: mean images"
HASH = "limit: decode and hash everything"


def run(folder: Path, repeats: int) -> Results:
    for order in ORDERS:
        build(folder / f"{order}.zarr", order=order)
    results = time_cases(cases(folder), repeats)
    results["targets"] = judge(targets(results))
    return results


def cases(folder: Path) -> Cases:
    path = folder / "source.zarr"
    images, labels = peers.read_raw_arrays()
    encoded = [chunk.read_bytes() for chunk in sorted(path.glob("image/c/*/0/0"))]
    axes = Figure().subplots()

    def decode_and_hash() -> None:
        digest = sha256()
        for block in peers.on_threads(N_THREADS, Zstd().decode, encoded):
            digest.update(block)

    def means_with_numpy() -> Any:
        return [images[labels == digit].mean(axis=0) for digit in range(10)]

    return {
        OURS: lambda: standardize(open_store(path, chunks=None), per_pixel=True),
        "the same of dask arrays": lambda: standardize(open_store(path), per_pixel=True),
        "dask alone: mean and deviation of each pixel": lambda: scan(open_store(path).image),
        NUMPY: lambda: (images.mean(axis=0), images.std(axis=0)),
        MEAN_IMAGES: lambda: plot.mean_images(open_store(path, chunks=None), ax=axes),
        NUMPY_MEANS: means_with_numpy,
        DECODE: lambda: peers.on_threads(N_THREADS, Zstd().decode, encoded),
        HASH: decode_and_hash,
        **{f"verify, {order} order": verify_case(folder / f"{order}.zarr") for order in ORDERS},
    }


def verify_case(path: Path) -> Callable[[], object]:
    return lambda: verify(path)


def scan(image: xr.DataArray) -> Any:
    exact = image.astype("float64")
    return dask.compute(exact.mean("sample"), exact.std("sample"))


def targets(results: Results) -> Targets:
    seconds = results["seconds"]
    return {
        "mean and deviation of each pixel, relative to decoding and NumPy": (
            seconds[OURS] / (seconds[DECODE] + seconds[NUMPY]),
            -1.5,
        ),
        "mean images, relative to decoding and NumPy": (
            seconds[MEAN_IMAGES] / (seconds[DECODE] + seconds[NUMPY_MEANS]),
            -1.5,
        ),
        **{
            f"verify, {order} order, relative to decoding and hashing": (
                seconds[f"verify, {order} order"] / seconds[HASH],
                -1.5,
            )
            for order in ORDERS
        },
    }
