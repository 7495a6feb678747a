"""Feeding a model: samples per second, requests, memory, and how well it is shuffled.

One epoch of MNIST's 60,000 training samples in shuffled batches of 256, by all peers side by
side; those that are not installed are left out (pip install torchvision xbatcher datasets grain).
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from benchmarks.digits import write_digits
from benchmarks.report import Results, Targets, judge
from benchmarks.timing import measure
from benchmarks.web import serve
from mnist_zarr import batches, build, load, open_store, rescale, select
from mnist_zarr.catalog.entries import BUNDLED_FILES
from tests.support.object_server import BUCKET, S3Server

SIZE = 256
N_TRAIN = 60_000
N_SAMPLES = 2_000_000
# Too small for all of MNIST: as for larger data, one part after the other is in memory.
SMALL_WINDOW = 40_000_000
ORDERS = ("source", "label", "shuffled")
Cases = dict[str, Callable[[], object]]


def run(folder: Path, repeats: int) -> Results:
    for order in ORDERS:
        build(folder / f"{order}.zarr", order=order)
    _, deviations = draw_shuffles(folder)
    results = {
        "samples_per_second": samples_per_second(folder, repeats),
        "first_batch_seconds": first_batch(folder, repeats),
        "hosted": hosted(folder),
        "peak_bytes": memory(folder, N_SAMPLES),
        "deviation": deviations,
    }
    results["targets"] = judge(targets(results))
    return results


# -- samples per second -----------------------------------------------------------------


def samples_per_second(folder: Path, repeats: int) -> dict[str, float]:
    cases = our_cases(folder) | numpy_cases() | torch_cases(folder) | peer_cases(folder)
    item_by_item = torchvision_cases(folder) | hugging_face_cases()  # seconds each
    timings = measure(cases, repeats) | measure(item_by_item, 1)
    processor = {name: timing.cpu for name, timing in timings.items()}
    speeds = {name: N_TRAIN / timing.median for name, timing in timings.items()}
    print(f"{'one epoch':<52}{'samples/s':>12}{'cpu':>12}")
    for name, speed in sorted(speeds.items(), key=lambda item: -item[1]):
        print(f"{name:<52}{speed:12,.0f}{processor[name] * 1e3:9,.0f} ms", flush=True)
    return speeds


def run_through(made: Iterable[Any]) -> None:
    for _ in made:
        pass


def opened(path: Path, chunks: Any = None) -> xr.Dataset:
    return select(open_store(path, chunks=chunks), split="train")


def our_cases(folder: Path) -> Cases:
    def case(
        order: str, change: Callable[[Any], Any] = lambda ds: ds, chunks: Any = None, **options: Any
    ) -> Callable[[], object]:
        path = folder / f"{order}.zarr"
        return lambda: run_through(batches(change(opened(path, chunks)), SIZE, **options))

    kept = batches(opened(folder / "source.zarr"), SIZE)
    kept_floats = batches(rescale(opened(folder / "source.zarr")), SIZE)
    return {
        **{f"ours, {order} order, open and read": case(order) for order in ORDERS},
        "ours, window of 40 MB": case("source", window=SMALL_WINDOW),
        "ours, dask": case("source", chunks="auto"),
        "ours, float32 rescaled": case("source", rescale),
        "ours, float32 rescaled, dask": case("source", rescale, chunks="auto"),
        "ours, float32 rescaled, window of 40 MB": case("source", rescale, window=SMALL_WINDOW),
        "ours, later epochs": lambda: run_through(kept),
        "ours, later epochs, float32 rescaled": lambda: run_through(kept_floats),
    }


def numpy_cases() -> Cases:
    (images, labels), _ = load("mnist")

    def numpy_epoch() -> None:
        order = np.random.default_rng().permutation(N_TRAIN)
        for start in range(0, N_TRAIN, SIZE):
            chosen = order[start : start + SIZE]
            _ = images[chosen], labels[chosen]

    return {"NumPy in memory": numpy_epoch}


def torch_cases(folder: Path) -> Cases:
    if not is_installed("torch"):
        return {}
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    import mnist_zarr.torch as ours

    (images, labels), _ = load("mnist")
    in_memory = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))

    def loader(num_workers: int) -> None:
        dataset = ours.BatchDataset(opened(folder / "source.zarr"), SIZE)
        dataset.set_epoch(0)
        run_through(DataLoader(dataset, batch_size=None, num_workers=num_workers))

    cases: Cases = {
        "torch TensorDataset in memory": lambda: run_through(
            DataLoader(in_memory, batch_size=SIZE, shuffle=True)
        ),
        "ours, DataLoader": functools.partial(loader, 0),
        "ours, DataLoader, 2 workers": functools.partial(loader, 2),
    }
    return cases


def torchvision_cases(folder: Path) -> Cases:
    if not is_installed("torchvision"):
        return {}
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    import mnist_zarr.torch as ours

    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in BUNDLED_FILES.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))

    def through_loader(items: Any) -> None:
        run_through(DataLoader(items, batch_size=SIZE, shuffle=True))

    data_sets = {"torchvision": MNIST, "ours, drop-in": ours.MNIST}
    return {
        f"{name} + ToTensor, DataLoader": functools.partial(
            through_loader, data_set(folder, transform=ToTensor())
        )
        for name, data_set in data_sets.items()
    }


def hugging_face_cases() -> Cases:
    if not is_installed("datasets"):
        return {}
    from datasets import Array2D, Dataset, Features, Value

    (images, labels), _ = load("mnist")
    features = Features({"image": Array2D((28, 28), "uint8"), "label": Value("uint8")})
    table = Dataset.from_dict({"image": images, "label": labels}, features).with_format("numpy")
    return {
        "Hugging Face datasets, arrays": lambda: run_through(
            table.shuffle(seed=0).iter(batch_size=SIZE)
        )
    }


def peer_cases(folder: Path) -> Cases:
    (images, labels), _ = load("mnist")
    cases: Cases = {}
    if is_installed("xbatcher"):
        import xbatcher

        def in_order() -> None:
            ds = opened(folder / "source.zarr")[["image", "label"]]
            generator = xbatcher.BatchGenerator(ds, {"sample": SIZE, "row": 28, "col": 28})
            for batch in generator:
                _ = batch.image.values, batch.label.values

        cases["xbatcher, not shuffled"] = in_order
    if is_installed("grain"):
        import grain

        class Source:
            def __len__(self) -> int:
                return N_TRAIN

            def __getitem__(self, index: int) -> Any:
                return {"image": images[index], "label": labels[index]}

        dataset = grain.MapDataset.source(Source()).shuffle(seed=0).batch(SIZE)
        cases["Grain, from memory"] = lambda: run_through(dataset.to_iter_dataset())
    return cases


def is_installed(name: str) -> bool:
    found = importlib.util.find_spec(name) is not None
    if not found:
        print(f"{name} is not installed, and left out")
    return found


def first_batch(folder: Path, repeats: int) -> dict[str, float]:
    """Return the seconds from opening a store to its first batch."""

    def case(window: int, order: str) -> Callable[[], object]:
        path = folder / f"{order}.zarr"
        return lambda: next(iter(batches(opened(path), SIZE, window=window)))

    cases = {
        "all in the window": case(64_000_000, "source"),
        "window of 40 MB": case(SMALL_WINDOW, "source"),
    }
    timings = measure(cases, repeats)
    for name, timing in timings.items():
        print(f"first batch after opening, {name:<25}{timing.median * 1e3:12.0f} ms")
    return {name: timing.median for name, timing in timings.items()}


# -- hosted stores ----------------------------------------------------------------------


def hosted(folder: Path) -> dict[str, dict[str, float]]:
    """Return requests and samples per second of one epoch, opening included."""
    found = {}
    with serve(folder) as (address, sent):
        for order in ORDERS:
            sent.clear()
            seconds = seconds_of(functools.partial(epoch_of, f"{address}/{order}.zarr"))
            found[f"HTTP, {order} order"] = {
                "requests": len(sent),
                "bytes": sum(size for _, size in sent),
                "samples_per_second": N_TRAIN / seconds,
            }
    server = S3Server()
    server.reset()
    for order in ORDERS:
        url = f"s3://{BUCKET}/{order}.zarr"
        build(url, order=order, storage_options=server.options)
        server.requests.clear()
        seconds = seconds_of(functools.partial(epoch_of, url, server.options))
        found[f"S3, {order} order"] = {
            "requests": len(server.requests),
            "samples_per_second": N_TRAIN / seconds,
        }
    server.stop()
    for name, figures in found.items():
        speed, requests = figures["samples_per_second"], figures["requests"]
        print(f"{name:<30}{requests:6.0f} requests{speed:16,.0f} samples/s")
    return found


def epoch_of(url: str, options: dict[str, Any] | None = None) -> None:
    ds = open_store(url, chunks=None, storage_options=options)
    # A window that holds no more than a part, as of larger data.
    run_through(batches(select(ds, split="train"), SIZE, window=SMALL_WINDOW))


def seconds_of(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


# -- memory -----------------------------------------------------------------------------

EPOCH = """
import sys
from mnist_zarr import batches, open_store, rescale
for images, labels in batches(rescale(open_store(sys.argv[1], chunks=None))):
    pass
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(lines["VmHWM"].split()[0]) * 1024)
"""


def memory(folder: Path, n_samples: int) -> dict[int, int]:
    """Return the peak memory of a process that reads an epoch, for a tenth and all samples."""
    peaks = {}
    for count in (n_samples // 10, n_samples):
        part = folder / str(count)
        part.mkdir()
        build(part / "d.zarr", write_digits(part, count, packed=False), level=1)
        command = [sys.executable, "-c", EPOCH, str(part / "d.zarr")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout)
        print(f"memory of an epoch of {count:>10,} samples{peaks[count] / 1e6:18,.0f} MB")
    return peaks


# -- how well it is shuffled ------------------------------------------------------------


def draw_shuffles(folder: Path) -> tuple[Figure, dict[str, float]]:
    """Draw the labels of the first batches, row by row, and how far their shares deviate."""
    stored = opened(folder / "label.zarr")
    labels = stored.label.values
    rng = np.random.default_rng(0)
    neighbours = [rng.permutation(part) for part in np.array_split(labels, 3)]
    rows = {
        "not shuffled": in_batches(labels),
        "neighbouring chunks": in_batches(np.concatenate(neighbours)),
        "batches, window of 40 MB": [b.labels for b in batches(stored, window=SMALL_WINDOW)],
        "global shuffle": in_batches(rng.permutation(labels)),
    }
    ideal = deviation(rows["global shuffle"], labels)
    deviations = {name: deviation(made, labels) / ideal for name, made in rows.items()}
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (name, made) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        axes.imshow(np.stack(made[:-1])[:, :64], cmap="tab10", aspect="auto", interpolation="none")
        axes.set_title(f"{name}\nshares deviate {deviations[name]:.2f} times", fontsize=8)
        axes.set_xlabel("sample of a batch", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("batch", fontsize=8)
    for name, factor in deviations.items():
        print(f"label order, {name:<39}deviates {factor:6.2f} times")
    return figure, deviations


def in_batches(labels: Any) -> list[Any]:
    return [labels[start : start + SIZE] for start in range(0, len(labels), SIZE)]


def deviation(made: list[Any], labels: Any) -> float:
    """Return the root of the mean square by which class shares of batches deviate from all."""
    expected = np.bincount(labels, minlength=10) / len(labels)
    shares = [np.bincount(batch, minlength=10) / len(batch) for batch in made]
    return float(np.sqrt(np.mean(np.square(np.stack(shares) - expected))))


# -- report -----------------------------------------------------------------------------


def targets(results: Results) -> Targets:
    speed, peaks = results["samples_per_second"], list(results["peak_bytes"].values())
    ours = speed["ours, source order, open and read"]
    floats = speed["ours, float32 rescaled"]
    windowed = speed["ours, float32 rescaled, window of 40 MB"] / speed["ours, window of 40 MB"]
    found: dict[str, tuple[float, float]] = {
        "times as fast as NumPy in memory": (ours / speed["NumPy in memory"], 0.15),
        "float32, relative to uint8": (floats / ours, 0.5),
        "the same with a window of 40 MB": (windowed, 0.5),
        "memory of all, relative to a tenth of the samples": (peaks[1] / peaks[0], -1.1),
    }
    peers = (("torch TensorDataset in memory", 1), ("torchvision + ToTensor, DataLoader", 15))
    for name, least in peers:
        if name in speed:
            found[f"times as fast as {name}"] = (ours / speed[name], least)
    return found
