"""What the defaults are chosen from: level, chunk bytes per order, threads.

Builds MNIST with one option varied at a time: times, bytes, and what a reader of one digit fetches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import zarr

from benchmarks.report import Results
from benchmarks.selecting import DIGIT, encoded_chunks, select_scaled
from benchmarks.sizes import bytes_of_the_class, stored_bytes_of, tree_bytes
from benchmarks.timing import measure
from mnist_zarr import build, open_store
from mnist_zarr.catalog.entries import BUNDLED_FILES

LEVELS = (1, 3, 6, 9, 12)
CHUNK_KB = {"source": (750, 1500, 3000, 6000, 12_000), "label": (200, 300, 450, 600, 900, 1800)}
THREADS = (1, 2, 4)


def run(folder: Path, repeats: int) -> Results:
    layouts: dict[str, dict[str, Any]] = {f"level {level}": {"level": level} for level in LEVELS}
    for order, sizes in CHUNK_KB.items():
        for size in sizes:
            name = f"{order} order, chunks of {size} kB"
            layouts[name] = {"order": order, "chunk_bytes": size * 1000}
    builds: dict[str, Callable[[], object]] = {
        name: functools.partial(build, folder / f"{name}.zarr", overwrite=True, **options)
        for name, options in layouts.items()
    }
    for n_threads in THREADS:
        builds[f"{n_threads} threads"] = functools.partial(build_on, n_threads, folder)
    build_times = measure(builds, repeats)
    opened = {name: open_store(folder / f"{name}.zarr", chunks=None) for name in layouts}
    select_times = measure(
        {name: functools.partial(select_scaled, ds) for name, ds in opened.items()}, 3 * repeats
    )
    rows: list[dict[str, Any]] = []
    for name, timing in build_times.items():
        rows.append({"name": name, "build_seconds": timing.median, "build_cpu": timing.cpu})
        if name in layouts:
            place = folder / f"{name}.zarr"
            rows[-1] |= {"select_seconds": select_times[name].median, **describe(place)}
        print(line(rows[-1]), flush=True)
    return {"rows": rows}


def build_on(n_threads: int, folder: Path) -> None:
    with mock.patch("os.cpu_count", return_value=n_threads):
        build(folder / "threads.zarr", overwrite=True)


def describe(place: Path) -> dict[str, Any]:
    ratios = [
        stored_bytes_of(place, digit) / bytes_of_the_class(place, digit) for digit in range(10)
    ]
    image = zarr.open_group(place, mode="r")["image"]
    return {
        "mb": tree_bytes(place) / 1e6,
        "of_gzip": tree_bytes(place) / tree_bytes(BUNDLED_FILES, "*.gz"),
        "chunks": -(-image.shape[0] // image.chunks[0]),
        "chunks_of_the_digit": len(encoded_chunks(place, DIGIT)),
        "bytes_against_those_of_the_class": max(ratios),
    }


def line(row: dict[str, Any]) -> str:
    times = f"{row['build_seconds'] * 1e3:6.0f} ms ({row['build_cpu'] * 1e3:.0f} cpu)"
    text = f"{row['name']:<33}build {times}"
    if "mb" not in row:
        return text
    return (
        f"{text}, select {row['select_seconds'] * 1e3:5.1f} ms, {row['mb']:6.2f} MB "
        f"({row['of_gzip']:.3f} of gzip), {row['chunks']:4} chunks, a digit needs "
        f"{row['chunks_of_the_digit']:3}, at most "
        f"{row['bytes_against_those_of_the_class']:5.2f} times its bytes"
    )
