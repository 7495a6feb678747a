"""Selecting all images of one digit, as float32 in [-1, 1] or as they are stored."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numcodecs import Zstd

from benchmarks import peers
from benchmarks.report import Cases, Results, Targets, judge, time_cases
from mnist_zarr import build, open_store, rescale, select

DIGIT = 7
N_THREADS = os.cpu_count() or 1
ORDERS = ("source", "label")
TUTORIAL = "tutorial: load, scale, mask"


def run(folder: Path, repeats: int) -> Results:
    prepare(folder)
    results = time_cases(cases(folder), repeats)
    results["targets"] = judge(targets(results))
    return results


def prepare(folder: Path) -> None:
    """Write the files that the cases read."""
    for order in ORDERS:
        build(folder / f"{order}.zarr", order=order)
    peers.build_npz(folder / "scaled.npz")
    peers.write_hdf5(folder / "mnist.h5")
    peers.write_parquet(folder / "mnist.parquet")


def cases(folder: Path) -> Cases:
    found: Cases = {
        TUTORIAL: lambda: peers.select_from_source(DIGIT),
        "np.load of the tutorial's npz, mask": lambda: peers.select_from_npz(
            folder / "scaled.npz", DIGIT
        ),
        "HDF5, gzip chunks": lambda: peers.select_from_hdf5(folder / "mnist.h5", DIGIT),
        "Parquet of PNG": lambda: peers.select_from_parquet(folder / "mnist.parquet", DIGIT),
        "idx2numpy": lambda: peers.select_with_idx2numpy(DIGIT),
    }
    for order in ORDERS:
        path = folder / f"{order}.zarr"
        opened, opened_with_dask = open_store(path, chunks=None), open_store(path)
        plain = xr.open_zarr(path, chunks=None)
        found |= {
            f"{order} order, open_store and select": lambda p=path: select_scaled(
                open_store(p, chunks=None)
            ),
            f"{order} order, select again": functools.partial(select_scaled, opened),
            f"{order} order, select again, dask": functools.partial(
                select_scaled, opened_with_dask
            ),
            f"{order} order, plain xarray": lambda p=path: sel_scaled(xr.open_zarr(p, chunks=None)),
            f"{order} order, plain xarray again": functools.partial(sel_scaled, plain),
            f"{order} order, limit: decode alone": decode_alone(path),
            f"{order} order, limit: decode, then scale": decode_and_scale(path),
            # As they are stored: what scaling hides.
            f"{order} order, uint8, open_store and select": lambda p=path: (
                select(open_store(p, chunks=None), label=DIGIT).image.values
            ),
            f"{order} order, uint8, select again": lambda ds=opened: (
                select(ds, label=DIGIT).image.values
            ),
            f"{order} order, uint8, plain xarray": lambda p=path: (
                xr.open_zarr(p, chunks=None).sel(label=DIGIT).image.values
            ),
            f"{order} order, uint8, plain xarray again": lambda ds=plain: (
                ds.sel(label=DIGIT).image.values
            ),
        }
    return found


def select_scaled(ds: xr.Dataset) -> Any:
    return rescale(select(ds, label=DIGIT)).image.values


def sel_scaled(ds: xr.Dataset) -> Any:
    return peers.scale(ds.sel(label=DIGIT).image.values)


def decode_alone(path: Path) -> Callable[[], object]:
    """Decode the chunks that hold the digit with the codec alone, from memory."""
    encoded = [chunk for _, chunk in encoded_chunks(path)]
    return lambda: peers.on_threads(N_THREADS, Zstd().decode, encoded)


def decode_and_scale(path: Path) -> Callable[[], object]:
    """Decode the same chunks, and make the float32 array that every reader has to make."""
    label = open_store(path).label.values
    chunks = encoded_chunks(path)
    chunk_samples = zarr.open_group(path, mode="r")["image"].chunks[0]
    masks = [
        label[index * chunk_samples : (index + 1) * chunk_samples] == DIGIT for index, _ in chunks
    ]

    def run() -> object:
        decoded = peers.on_threads(N_THREADS, Zstd().decode, [chunk for _, chunk in chunks])
        images = [np.frombuffer(data, np.uint8).reshape(-1, 28, 28) for data in decoded]
        chosen = [
            image[: len(mask)] if mask.all() else image[: len(mask)][mask]
            for image, mask in zip(images, masks, strict=True)
        ]
        return peers.scale(np.concatenate(chosen))

    return run


def encoded_chunks(path: Path, digit: int = DIGIT) -> list[tuple[int, bytes]]:
    """Return the index and the bytes of each chunk that holds the digit."""
    label = open_store(path).label.values
    chunk_samples = zarr.open_group(path, mode="r")["image"].chunks[0]
    indices = np.unique(np.flatnonzero(label == digit) // chunk_samples).tolist()
    return [(index, (path / f"image/c/{index}/0/0").read_bytes()) for index in indices]


def targets(results: Results) -> Targets:
    seconds = results["seconds"]
    found: dict[str, tuple[float, float]] = {}
    for order, speed_up in (("source", 10), ("label", 40)):
        of = {
            name.removeprefix(f"{order} order, "): value
            for name, value in seconds.items()
            if name.startswith(order)
        }
        found |= {
            f"{order} order: speed-up over the tutorial": (
                seconds[TUTORIAL] / of["open_store and select"],
                speed_up,
            ),
            f"{order} order: time relative to plain xarray": (
                of["uint8, open_store and select"] / of["uint8, plain xarray"],
                -1.05,
            ),
            f"{order} order: a second selection, relative to plain xarray": (
                of["uint8, select again"] / of["uint8, plain xarray again"],
                -0.7,
            ),
            f"{order} order: select again, relative to decoding and scaling": (
                of["select again"] / of["limit: decode, then scale"],
                -1.25,
            ),
        }
    return found
