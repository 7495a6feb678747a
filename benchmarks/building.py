"""Building a store of MNIST from the four gzip files."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from unittest import mock

import zarr
from numcodecs import Zstd

from benchmarks import peers
from benchmarks.report import Cases, Results, Targets, judge, time_cases
from mnist_zarr import build
from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.stores import local

LEVEL = 9
N_THREADS = os.cpu_count() or 1
SOURCE, NO_FSYNC = "mnist_zarr, source order", "mnist_zarr, source order, without fsync"
TUTORIAL = "tutorial: load, scale, savez_compressed"
TO_ZARR = "Dataset.to_zarr, same codec, level and chunks"
GUNZIP, ZSTD, HASH = "limit: gunzip alone", "limit: zstd alone", "limit: SHA-256 alone"


def run(folder: Path, repeats: int) -> Results:
    results = time_cases(cases(folder), repeats)
    results["targets"] = judge(targets(results))
    return results


def cases(folder: Path) -> Cases:
    build(folder / "source.zarr")
    packed = [path.read_bytes() for path in sorted(BUNDLED_FILES.glob("*.gz"))]
    chunks = zarr.open_group(folder / "source.zarr", mode="r")["image"].chunks
    images, _ = peers.read_raw_arrays()
    blocks = [images[i : i + chunks[0]].tobytes() for i in range(0, len(images), chunks[0])]
    encode = Zstd(LEVEL, checksum=True).encode
    numbers = itertools.count()

    def fresh(suffix: str = ".zarr") -> Path:
        """Return a path where nothing exists: removing an old store is no part of a build."""
        return folder / f"built-{next(numbers)}{suffix}"

    def build_without_fsync() -> None:
        with mock.patch.object(local, "flush"), mock.patch.object(local, "fsync"):
            build(fresh())

    on_threads: Callable[..., object] = functools.partial(peers.on_threads, N_THREADS)
    return {
        SOURCE: lambda: build(fresh()),
        NO_FSYNC: build_without_fsync,
        "mnist_zarr, label order": lambda: build(fresh(), order="label"),
        TUTORIAL: lambda: peers.build_npz(fresh(".npz")),
        TO_ZARR: lambda: peers.build_with_xarray(fresh(), chunks, LEVEL),
        "Dataset.to_zarr, its own encoding": lambda: peers.build_with_xarray(fresh()),
        GUNZIP: lambda: [peers.gunzip(data) for data in packed],
        ZSTD: lambda: on_threads(encode, blocks),
        HASH: lambda: [sha256(block) for block in blocks],
    }


def targets(results: Results) -> Targets:
    seconds, cpu = results["seconds"], results["cpu"]
    spread = (cpu[GUNZIP] + cpu[ZSTD] + cpu[HASH]) / N_THREADS
    return {
        "speed-up over the tutorial": (seconds[TUTORIAL] / seconds[SOURCE], 5),
        "time relative to zstd alone": (seconds[SOURCE] / seconds[ZSTD], -1.2),
        "the same, without fsync": (seconds[NO_FSYNC] / seconds[ZSTD], -1.2),
        "time relative to gunzip, zstd and SHA-256, spread over the threads": (
            seconds[NO_FSYNC] / spread,
            -1.1,
        ),
        "time relative to Dataset.to_zarr with the same codec, level and chunks": (
            seconds[SOURCE] / seconds[TO_ZARR],
            -1.0,
        ),
    }
