"""Everything that README says about speed and size, in one command.

    pip install '.[bench]'
    python -m benchmarks [--repeats 7] [--output benchmarks]

Prints a table and writes results.json and pictures/benchmarks.png. Every row is a
ratio of medians that were measured side by side, in turn, in this one run.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import lzma
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import xarray as xr
import zarr
from matplotlib.figure import Figure
from numcodecs import Zstd
from zlib_ng import zlib_ng

from benchmarks import peers
from benchmarks.timing import Timing, measure
from mnist_zarr import build, open_store, rescale, select, zarrs_pipeline
from mnist_zarr.catalog import BUNDLED_FILES

DIGIT = 7
LEVEL = 9
N_THREADS = os.cpu_count() or 1
ORDERS = ("source", "label")
Cases = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), args.repeats)
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results).savefig(args.output / "pictures" / "benchmarks.png", dpi=120)


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
    """Make the files that are read below."""
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
    return {
        "mnist_zarr, source order": lambda: build(folder / "b.zarr", overwrite=True),
        "mnist_zarr, label order": lambda: build(folder / "b.zarr", order="label", overwrite=True),
        "tutorial: load, scale, savez_compressed": lambda: peers.build_npz(folder / "b.npz"),
        "numpy + Dataset.to_zarr": lambda: peers.build_with_plain_xarray(folder / "plain.zarr"),
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
        fast = open_store(path, chunks=None)
        with default_codecs():
            opened, opened_with_dask = open_store(path, chunks=None), open_store(path)
        cases |= {
            f"{order} order, open and select": functools.partial(open_and_select, path),
            f"{order} order, opened before": functools.partial(select_scaled, opened),
            f"{order} order, opened before, dask": functools.partial(
                select_scaled, opened_with_dask
            ),
            f"{order} order, opened before, extra fast": functools.partial(select_scaled, fast),
            f"{order} order, plain xarray": functools.partial(open_and_sel, path),
            f"{order} order, limit: decode alone": decode_alone(path),
        }
    return cases


def default_codecs() -> Any:
    """Return a context in which stores are opened as if zarrs were not installed."""
    return mock.patch.object(zarrs_pipeline, "ZarrsCodecPipeline", None)


def open_and_select(path: Path) -> Any:
    with default_codecs():
        return select_scaled(open_store(path))


def select_scaled(ds: xr.Dataset) -> Any:
    return rescale(select(ds, label=DIGIT)).image.values


def open_and_sel(path: Path) -> Any:
    return peers.scale(xr.open_zarr(path, chunks=None).sel(label=DIGIT).image.values)


def decode_alone(path: Path) -> Callable[[], object]:
    """Decode the chunks that hold the digit with the codec alone, from memory."""
    label = open_store(path).label.values
    chunk_samples = zarr.open_group(path, mode="r")["image"].chunks[0]
    indices = np.unique(np.flatnonzero(label == DIGIT) // chunk_samples).tolist()
    encoded = [(path / f"image/c/{index}/0/0").read_bytes() for index in indices]
    return lambda: peers.on_threads(N_THREADS, Zstd().decode, encoded)


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
    return {
        "raw IDX": len(raw),
        "gzip IDX (the original files)": tree_bytes(BUNDLED_FILES, "*.gz"),
        **{f"mnist_zarr, {order} order": tree_bytes(folder / f"{order}.zarr") for order in ORDERS},
        "npz, uint8": (folder / "uint8.npz").stat().st_size,
        "npz, scaled float64 (tutorial)": (folder / "scaled.npz").stat().st_size,
        "HDF5, gzip chunks": (folder / "mnist.h5").stat().st_size,
        "Parquet of PNG": (folder / "mnist.parquet").stat().st_size,
        "xz of raw IDX": len(lzma.compress(raw, preset=9)),
    }


def tree_bytes(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


# -- http -------------------------------------------------------------------------------


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Serve a folder on a free port; yield its URL and the list of (path, bytes) sent."""
    sent: list[tuple[str, int]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            place = Path(self.translate_path(self.path))
            sent.append((self.path, place.stat().st_size if place.is_file() else 0))
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def http_traffic(path: Path) -> dict[str, int]:
    """Count what open + sel(label=7) + load fetches, and what of it are image chunks."""
    with serve(path.parent) as (url, sent):
        xr.open_zarr(f"{url}/{path.name}").sel(label=DIGIT).load()
    chunks = [size for name, size in sent if "/image/c/" in name]
    return {
        "requests": len(sent),
        "bytes": sum(size for _, size in sent),
        "image_requests": len(chunks),
        "image_bytes": sum(chunks),
        "bytes_of_the_class": bytes_of_the_class(path),
    }


def bytes_of_the_class(path: Path) -> int:
    """Compress the samples of the class alone, in chunks of the same length."""
    image = zarr.open_group(path, mode="r")["image"]
    sevens = open_store(path).sel(label=DIGIT).image.values
    encode = Zstd(LEVEL, checksum=True).encode
    step = image.chunks[0]
    return sum(len(encode(sevens[i : i + step].tobytes())) for i in range(0, len(sevens), step))


# -- report -----------------------------------------------------------------------------


def check_targets(results: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    built, chosen = results["build"], results["select"]
    ours = built["mnist_zarr, source order"]
    limit = max(built["limit: gunzip alone"], built["limit: zstd alone"])
    tutorial = chosen["tutorial: load, scale, mask"]
    size, traffic = results["bytes"], results["http"]["label"]
    figures = {
        "build: times faster than the tutorial's way (at least 5)": (
            built["tutorial: load, scale, savez_compressed"] / ours,
            5,
        ),
        "build: times the limit (at most 1.3)": (ours / limit, -1.3),
        "select, source order: times faster than the tutorial (at least 10)": (
            tutorial / chosen["source order, open and select"],
            10,
        ),
        "select, label order: times faster than the tutorial (at least 40)": (
            tutorial / chosen["label order, opened before"],
            40,
        ),
        "select, source order: times the decode limit (at most 2.5)": (
            chosen["source order, opened before"] / chosen["source order, limit: decode alone"],
            -2.5,
        ),
        "select, label order: times the decode limit (at most 2.5)": (
            chosen["label order, opened before"] / chosen["label order, limit: decode alone"],
            -2.5,
        ),
        "select, label order, extra fast: times the decode limit (at most 1.5)": (
            chosen["label order, opened before, extra fast"]
            / chosen["label order, limit: decode alone"],
            -1.5,
        ),
        "bytes: store against the gzip files (at most 0.94)": (
            size["mnist_zarr, source order"] / size["gzip IDX (the original files)"],
            -0.94,
        ),
        "http, label order: image bytes against those of the class (at most 1.15)": (
            traffic["image_bytes"] / traffic["bytes_of_the_class"],
            -1.15,
        ),
    }
    return {
        sentence: (figure, figure >= bound if bound > 0 else figure <= -bound)
        for sentence, (figure, bound) in figures.items()
    }


def print_timings(section: str, timings: dict[str, Timing]) -> None:
    print(f"\n{section:<44}{'median':>10}{'fastest':>10}{'slowest':>10}")
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        spread = "".join(f"{x * 1e3:8.1f}ms" for x in (timing.fastest, timing.slowest))
        print(f"{name:<44}{timing.median * 1e3:8.1f}ms{spread}", flush=True)


def print_bytes(sizes: dict[str, int]) -> None:
    print(f"\n{'bytes':<44}{'MB':>10}{'of gzip':>10}")
    gzip_bytes = sizes["gzip IDX (the original files)"]
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        print(f"{name:<44}{size / 1e6:10.2f}{size / gzip_bytes:10.2f}")


def print_traffic(traffic: dict[str, dict[str, int]]) -> None:
    print(f"\n{'http: open + sel(label=7) + load':<44}{'requests':>10}{'MB':>10}")
    for order, counted in traffic.items():
        print(f"{order + ' order':<44}{counted['requests']:>10}{counted['bytes'] / 1e6:10.2f}")
    print()


def draw(results: dict[str, Any]) -> Figure:
    """Draw the select section, and the bytes, as bars."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    times, sizes = figure.subplots(2, 1, height_ratios=[11, 7])
    shown = {k: v for k, v in results["select"].items() if "limit" not in k}
    draw_bars(times, {k: v * 1e3 for k, v in shown.items()}, "ms", ("source order", "label order"))
    times.set_title("select the digit 7, scaled to float32 (log scale)", loc="left")
    times.set_xscale("log")
    draw_bars(sizes, {k: v / 1e6 for k, v in results["bytes"].items()}, "MB", ("mnist_zarr",))
    sizes.set_title("bytes on disk (log scale)", loc="left")
    sizes.set_xscale("log")
    return figure


def draw_bars(axes: Any, values: dict[str, float], unit: str, ours: tuple[str, ...]) -> None:
    ordered = sorted(values.items(), key=lambda item: -item[1])
    names = [name for name, _ in ordered]
    colors = ["tab:blue" if name.startswith(ours) else "lightgray" for name in names]
    bars = axes.barh(names, [value for _, value in ordered], color=colors)
    axes.bar_label(bars, [f"{value:,.0f} {unit}" for _, value in ordered], padding=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)


if __name__ == "__main__":
    main()
