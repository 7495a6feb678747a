"""From nothing to the first result: new processes, imports included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Cases, Results, Targets, judge, time_cases
from mnist_zarr import build

PLOT, INFO, HELP = "mnist-zarr plot", "mnist-zarr info", "mnist-zarr --help"
FIRST_DIGIT = "xr.open_zarr(...).sel(label=7).load()"
IMPORTS = {
    "import xarray, zarr, matplotlib.figure": "import xarray, zarr, matplotlib.figure",
    "import xarray, zarr": "import xarray, zarr",
    "import mnist_zarr": "import mnist_zarr",
}


def run(folder: Path, repeats: int) -> Results:
    results = time_cases(cases(folder), repeats)
    results["targets"] = judge(targets(results))
    return results


def cases(folder: Path) -> Cases:
    build(folder / "mnist.zarr", order="label")
    store, picture = str(folder / "mnist.zarr"), str(folder / "digits.png")
    code = f"import xarray; xarray.open_zarr({store!r}).sel(label=7).load()"
    return {
        PLOT: command("-m", "mnist_zarr", "plot", store, "-o", picture, "--overwrite"),
        INFO: command("-m", "mnist_zarr", "info", store),
        HELP: command("-m", "mnist_zarr", "--help"),
        FIRST_DIGIT: command("-c", code),
        **{name: command("-c", code) for name, code in IMPORTS.items()},
    }


def command(*arguments: str) -> Callable[[], object]:
    call = [sys.executable, *arguments]
    return lambda: subprocess.run(call, check=True, capture_output=True)


def targets(results: Results) -> Targets:
    seconds = results["seconds"]
    return {
        "mnist-zarr plot, relative to its imports": (
            seconds[PLOT] / seconds["import xarray, zarr, matplotlib.figure"],
            -1.25,
        ),
        "mnist-zarr info, relative to its imports": (
            seconds[INFO] / seconds["import xarray, zarr"],
            -1.25,
        ),
    }
