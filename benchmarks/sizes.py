"""Bytes: on disk, and sent by a web server for one digit."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numcodecs import Zstd

from benchmarks import peers
from benchmarks.building import LEVEL
from benchmarks.report import Results, Targets, judge
from benchmarks.selecting import DIGIT, ORDERS, encoded_chunks
from benchmarks.web import serve
from mnist_zarr import build, open_dataset, open_store, rescale, write_zarr
from mnist_zarr.catalog.entries import BUNDLED_FILES

GZIP = "gzip IDX (the original files)"


def run(folder: Path, repeats: int) -> Results:
    for order in ORDERS:
        build(folder / f"{order}.zarr", order=order)
    results: Results = {"bytes": stored_bytes(folder)}
    print_bytes(results["bytes"])
    results["http"] = {order: http_traffic(folder / f"{order}.zarr") for order in ORDERS}
    print_traffic(results["http"])
    results["targets"] = judge(targets(results))
    return results


def stored_bytes(folder: Path) -> dict[str, int]:
    raw = b"".join(peers.gunzip(path.read_bytes()) for path in BUNDLED_FILES.glob("*.gz"))
    images, labels = peers.read_raw_arrays()
    peers.build_npz(folder / "scaled.npz")
    peers.write_hdf5(folder / "mnist.h5")
    peers.write_parquet(folder / "mnist.parquet")
    np.savez_compressed(folder / "uint8.npz", image=images, label=labels)
    build(folder / "opens-rescaled.zarr", rescale=(-1, 1))
    write_zarr(rescale(open_dataset("mnist")), folder / "float32.zarr", level=3)
    return {
        "raw IDX": len(raw),
        GZIP: tree_bytes(BUNDLED_FILES, "*.gz"),
        **{f"mnist_zarr, {order} order": tree_bytes(folder / f"{order}.zarr") for order in ORDERS},
        "mnist_zarr, opens rescaled": tree_bytes(folder / "opens-rescaled.zarr"),
        "mnist_zarr, float32, level 3": tree_bytes(folder / "float32.zarr"),
        "npz, uint8": (folder / "uint8.npz").stat().st_size,
        "npz, scaled float64 (tutorial)": (folder / "scaled.npz").stat().st_size,
        "HDF5, gzip chunks": (folder / "mnist.h5").stat().st_size,
        "Parquet of PNG": (folder / "mnist.parquet").stat().st_size,
        "xz of raw IDX": len(lzma.compress(raw, preset=9)),
    }


def tree_bytes(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def http_traffic(path: Path) -> dict[str, Any]:
    """Count what open + sel(label=7) + load fetches, in total and in image chunks."""
    with serve(path.parent) as (url, sent):
        xr.open_zarr(f"{url}/{path.name}").sel(label=DIGIT).load()
    chunks = [size for name, size in sent if "/image/c/" in name]
    return {
        "requests": len(sent),
        "bytes": sum(size for _, size in sent),
        "image_requests": len(chunks),
        "image_bytes": sum(chunks),
        "bytes_of_the_class": bytes_of_the_class(path, DIGIT),
        "image_bytes_against_those_of_each_class": {
            digit: stored_bytes_of(path, digit) / bytes_of_the_class(path, digit)
            for digit in range(10)
        },
    }


def stored_bytes_of(path: Path, digit: int) -> int:
    """Return the bytes of the chunks that hold a digit."""
    return sum(len(data) for _, data in encoded_chunks(path, digit))


def bytes_of_the_class(path: Path, digit: int) -> int:
    """Return the compressed bytes of the class alone, in chunks of the same length."""
    image = zarr.open_group(path, mode="r")["image"]
    chosen = open_store(path).sel(label=digit).image.values
    encode = Zstd(LEVEL, checksum=True).encode
    step = image.chunks[0]
    return sum(len(encode(chosen[i : i + step].tobytes())) for i in range(0, len(chosen), step))


def print_bytes(sizes: dict[str, int]) -> None:
    print(f"\n{'bytes':<44}{'MB':>10}{'of gzip':>10}")
    gzip_bytes = sizes[GZIP]
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        print(f"{name:<44}{size / 1e6:10.2f}{size / gzip_bytes:10.2f}")


def print_traffic(traffic: dict[str, dict[str, Any]]) -> None:
    heads = f"{'requests':>10}{'MB':>10}{'images, relative to the class':>38}"
    print(f"\n{'http: open + sel(label=7) + load':<44}{heads}")
    for order, counted in traffic.items():
        ratios = counted["image_bytes_against_those_of_each_class"]
        print(
            f"{order + ' order':<44}{counted['requests']:>10}{counted['bytes'] / 1e6:10.2f}"
            f"{ratios[DIGIT]:14.2f}, worst of ten digits {max(ratios.values()):.2f}"
        )
    print()


def targets(results: Results) -> Targets:
    size, traffic = results["bytes"], results["http"]["label"]
    return {
        "the larger store, relative to the gzip files": (
            max(size[f"mnist_zarr, {order} order"] for order in ORDERS) / size[GZIP],
            -0.94,
        ),
        "label order: image bytes sent, relative to those of the class": (
            traffic["image_bytes"] / traffic["bytes_of_the_class"],
            -1.15,
        ),
        "the same, worst of ten digits": (
            max(traffic["image_bytes_against_those_of_each_class"].values()),
            -1.15,
        ),
    }
