"""Measure everything that README says about speed and size.

    pip install '.[bench]'
    python -m benchmarks [--repeats 7] [--output benchmarks]

Prints tables; with --output, also writes results.json and pictures/benchmarks.png into that
folder. All medians come from interleaved runs of one session, so that their ratios are
comparable.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import lzma
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr
from matplotlib.figure import Figure
from numcodecs import Zstd
from zlib_ng import zlib_ng

from benchmarks import peers
from benchmarks.output import add_output_option, write_json
from benchmarks.timing import Timing, measure
from benchmarks.web import serve
from mnist_zarr import (
    build,
    open_dataset,
    open_store,
    rescale,
    select,
    write_zarr,
)
from mnist_zarr.catalog.entries import BUNDLED_FILES

DIGIT = 7
LEVEL = 9
N_THREADS = os.cpu_count() or 1
ORDERS = ("source", "label")
Cases = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    add_output_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), args.repeats)
    if args.output:
        write_json(results, args.output / "results.json")
        pictures = args.output / "pictures"
        pictures.mkdir(exist_ok=True)
        draw(results).savefig(pictures / "benchmarks.png", dpi=120)


def run(folder: Path, repeats: int) -> dict[str, Any]:
    prepare(folder)
    results: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "threads": N_THREADS,
            "xarray": xr.__version__,
            "zarr": zarr.__version__,
            "repeats": repeats,
        }
    }
    sections = (
        ("build", build_cases(folder)),
        ("select", select_cases(folder)),
        ("scan", scan_cases(folder)),
    )
    for section, cases in sections:
        timings = measure(cases, repeats)
        results[section] = {name: timing.median for name, timing in timings.items()}
        results[f"{section}_cpu"] = {name: timing.cpu for name, timing in timings.items()}
        print_timings(section, timings)
    results["bytes"] = stored_bytes(folder)
    print_bytes(results["bytes"])
    results["http"] = {order: http_traffic(folder / f"{order}.zarr") for order in ORDERS}
    print_traffic(results["http"])
    results["targets"] = check_targets(results)
    for sentence, (figure, met) in results["targets"].items():
        print(f"{'met   ' if met else 'MISSED'}  {figure:6.2f}  {sentence}")
    return results


def prepare(folder: Path) -> None:
    """Write the files that the cases read."""
    for order in ORDERS:
        build(folder / f"{order}.zarr", order=order)
    peers.build_npz(folder / "scaled.npz")
    peers.write_hdf5(folder / "mnist.h5")
    peers.write_parquet(folder / "mnist.parquet")
    for path in BUNDLED_FILES.glob("*.gz"):
        (folder / path.stem).write_bytes(gunzip(path.read_bytes()))


def gunzip(data: bytes) -> bytes:
    return bytes(zlib_ng.decompress(data, wbits=31))


# -- build ------------------------------------------------------------------------------


def build_cases(folder: Path) -> Cases:
    packed = [path.read_bytes() for path in sorted(BUNDLED_FILES.glob("*images*"))]
    chunk_samples = zarr.open_group(folder / "source.zarr", mode="r")["image"].chunks[0]
    images, _ = peers.read_raw_arrays()
    blocks = [images[i : i + chunk_samples].tobytes() for i in range(0, len(images), chunk_samples)]
    encode = Zstd(LEVEL, checksum=True).encode
    numbers = itertools.count()

    def fresh(suffix: str) -> Path:
        """Return a path where nothing exists: removing an old store is no part of a build."""
        return folder / f"built-{next(numbers)}{suffix}"

    return {
        "mnist_zarr, source order": lambda: build(fresh(".zarr")),
        "mnist_zarr, label order": lambda: build(fresh(".zarr"), order="label"),
        "tutorial: load, scale, savez_compressed": lambda: peers.build_npz(fresh(".npz")),
        "numpy + Dataset.to_zarr": lambda: peers.build_with_plain_xarray(fresh(".zarr")),
        "limit: gunzip alone": lambda: [gunzip(data) for data in packed],
        "limit: zstd alone": lambda: peers.on_threads(N_THREADS, encode, blocks),
    }


# -- select -----------------------------------------------------------------------------


def select_cases(folder: Path) -> Cases:
    cases: Cases = {
        "tutorial: load, scale, mask": lambda: peers.select_from_source(DIGIT),
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
        cases |= {
            f"{order} order, open and select": functools.partial(open_and_select, path),
            f"{order} order, opened before": functools.partial(select_scaled, opened),
            f"{order} order, opened before, dask": functools.partial(
                select_scaled, opened_with_dask
            ),
            f"{order} order, plain xarray": functools.partial(open_and_sel, path),
            f"{order} order, limit: decode alone": decode_alone(path),
            f"{order} order, limit: decode, then scale": decode_and_scale(path),
        }
    return cases


def open_and_select(path: Path) -> Any:
    return select_scaled(open_store(path, chunks=None))


def select_scaled(ds: xr.Dataset) -> Any:
    return rescale(select(ds, label=DIGIT)).image.values


def open_and_sel(path: Path) -> Any:
    return peers.scale(xr.open_zarr(path, chunks=None).sel(label=DIGIT).image.values)


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


# -- scan -------------------------------------------------------------------------------


def scan_cases(folder: Path) -> Cases:
    return {
        "mnist_zarr + dask, lazily": lambda: scan(open_store(folder / "source.zarr").image),
        "numpy: load the files, then compute": lambda: scan_with_numpy(),
        "numpy on the loaded array": functools.partial(
            moments_with_numpy, peers.read_raw_arrays()[0]
        ),
    }


def scan(image: xr.DataArray) -> Any:
    exact = image.astype("float64")
    return dask.compute(exact.mean("sample"), exact.std("sample"))


def scan_with_numpy() -> Any:
    return moments_with_numpy(peers.read_raw_arrays()[0])


def moments_with_numpy(images: Any) -> Any:
    return images.mean(axis=0), images.std(axis=0)


# -- bytes ------------------------------------------------------------------------------


def stored_bytes(folder: Path) -> dict[str, int]:
    raw = b"".join(path.read_bytes() for path in sorted(folder.glob("*-ubyte")))
    images, labels = peers.read_raw_arrays()
    np.savez_compressed(folder / "uint8.npz", image=images, label=labels)
    build(folder / "opens-rescaled.zarr", rescale=(-1, 1))
    write_zarr(rescale(open_dataset("mnist")), folder / "float32.zarr", level=3)
    return {
        "raw IDX": len(raw),
        "gzip IDX (the original files)": tree_bytes(BUNDLED_FILES, "*.gz"),
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


# -- http -------------------------------------------------------------------------------


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


# -- report -----------------------------------------------------------------------------


def check_targets(results: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    built, chosen = results["build"], results["select"]
    ours = built["mnist_zarr, source order"]
    limit = max(built["limit: gunzip alone"], built["limit: zstd alone"])
    tutorial = chosen["tutorial: load, scale, mask"]
    size, traffic = results["bytes"], results["http"]["label"]
    figures = {
        "build: speed-up over the tutorial (at least 5)": (
            built["tutorial: load, scale, savez_compressed"] / ours,
            5,
        ),
        "build: time relative to the limit (at most 1.3)": (ours / limit, -1.3),
        "select, source order: speed-up over the tutorial (at least 10)": (
            tutorial / chosen["source order, open and select"],
            10,
        ),
        "select, label order: speed-up over the tutorial (at least 40)": (
            tutorial / chosen["label order, open and select"],
            40,
        ),
        "select, source order: time relative to decoding (at most 2.5)": (
            chosen["source order, opened before"] / chosen["source order, limit: decode alone"],
            -2.5,
        ),
        "select, label order: time relative to decoding (at most 2.5)": (
            chosen["label order, opened before"] / chosen["label order, limit: decode alone"],
            -2.5,
        ),
        "bytes: larger store relative to the gzip files (at most 0.94)": (
            max(size[f"mnist_zarr, {order} order"] for order in ORDERS)
            / size["gzip IDX (the original files)"],
            -0.94,
        ),
        "http, label order: image bytes relative to those of the class (at most 1.15)": (
            traffic["image_bytes"] / traffic["bytes_of_the_class"],
            -1.15,
        ),
        "the same, worst of ten digits (at most 1.15)": (
            max(traffic["image_bytes_against_those_of_each_class"].values()),
            -1.15,
        ),
        # The decode limit leaves out the float array that the select rows make. With it:
        "select, label order: time relative to decoding and scaling (at most 2.5)": (
            chosen["label order, opened before"] / chosen["label order, limit: decode, then scale"],
            -2.5,
        ),
    }
    return {
        sentence: (figure, figure >= bound if bound > 0 else figure <= -bound)
        for sentence, (figure, bound) in figures.items()
    }


def print_timings(section: str, timings: dict[str, Timing]) -> None:
    print(f"\n{section:<44}{'median':>10}{'cpu':>10}{'fastest':>10}{'slowest':>10}")
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        figures = (timing.median, timing.cpu, timing.fastest, timing.slowest)
        print(f"{name:<44}" + "".join(f"{x * 1e3:8.1f}ms" for x in figures), flush=True)


def print_bytes(sizes: dict[str, int]) -> None:
    print(f"\n{'bytes':<44}{'MB':>10}{'of gzip':>10}")
    gzip_bytes = sizes["gzip IDX (the original files)"]
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


OURS, THEIRS, LIMIT = "tab:blue", "0.45", "tab:orange"
SELECT_SHOWN = {
    "label order, opened before": "mnist_zarr, label order, opened before",
    "label order, plain xarray": "label order, plain xarray: open and select",
    "label order, open and select": "mnist_zarr, label order: open and select",
    "source order, opened before": "mnist_zarr, source order, opened before",
    "source order, open and select": "mnist_zarr, source order: open and select",
    "label order, limit: decode alone": "limit, label order: decode alone",
    "label order, limit: decode, then scale": "limit, label order: decode and scale",
}


def draw(results: dict[str, Any]) -> Figure:
    """Draw times as points on a log scale, and bytes as bars from zero."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    built, chosen, sizes = figure.subplots(3, 1, height_ratios=[6, 13, 10])
    tutorial = "tutorial: load, scale, savez_compressed"
    draw_times(built, results["build"], tutorial, "build from the four gzip files")
    shown = {
        SELECT_SHOWN.get(name, name): seconds
        for name, seconds in results["select"].items()
        if name in SELECT_SHOWN or "order" not in name
    }
    draw_times(
        chosen, shown, "tutorial: load, scale, mask", "all 7293 images of the digit 7 as float32"
    )
    draw_sizes(sizes, results["bytes"])
    figure.suptitle(
        "blue: stores of mnist_zarr   grey: alternatives   orange: the codec alone, a limit",
        fontsize="medium",
    )
    return figure


def color_of(name: str) -> str:
    if name.startswith("limit"):
        return LIMIT
    return OURS if name.startswith(("mnist_zarr", "label order", "source order")) else THEIRS


def draw_times(axes: Any, seconds: dict[str, float], reference: str, title: str) -> None:
    """Mark each time, with its speed-up over the reference."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    for place, (name, value) in enumerate(ordered):
        axes.plot(value * 1e3, place, "o", color=color_of(name))
        ratio = seconds[reference] / value
        faster = "" if name == reference else f"   {ratio:.{0 if ratio >= 10 else 1}f} x"
        axes.annotate(
            f"{value * 1e3:,.{0 if value >= 0.01 else 1}f} ms{faster}",
            (value * 1e3, place),
            (9, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_title(
        f"{title} (log scale; x: speed-up over the tutorial)",
        loc="left",
        fontsize="medium",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.08)
    axes.set_xlim(right=axes.get_xlim()[1] * 1.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_sizes(axes: Any, sizes: dict[str, int]) -> None:
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    names = [name for name, _ in ordered]
    bars = axes.barh(
        names, [size / 1e6 for _, size in ordered], color=[color_of(name) for name in names]
    )
    axes.bar_label(bars, [f"{size / 1e6:.2f} MB" for _, size in ordered], padding=3)
    axes.set_title("bytes on disk of the 70,000 images", loc="left", fontsize="medium")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
