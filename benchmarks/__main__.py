"""Measure what the documentation says about speed, size and requests.

    pip install '.[bench]'
    python -m benchmarks [SECTION ...] [--repeats 7] [--output benchmarks]

Prints tables. Medians are of interleaved runs, so that the ratios within a section hold
whatever the machine does besides; only ratios are claimed. Without sections named, runs those
that take a minute; hosting and training need the extra ``test`` too. With --output, also writes
results.json into that folder, where the sections that are not run keep what it says of them. The
tables and the picture of the documentation are then made by ``python -m benchmarks.tables``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.report import Results, print_targets

# Where each is measured. Only what is asked for is imported, as some need packages of their own.
SECTIONS = {
    "build": "building.run",
    "select": "selecting.run",
    "scan": "scanning.run",
    "sizes": "sizes.run",
    "start": "starting.run",
    "hosting": "hosting.run",
    "training": "training.run",
    "out-of-core": "out_of_core.run",
    "ten-million": "out_of_core.run_ten_million",
    "defaults": "defaults.run",
    "shards": "sharding.run",
}
SHORT = ("build", "select", "scan", "sizes", "start")
PACKAGES = ("mnist-zarr", "numpy", "xarray", "zarr", "dask", "numcodecs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS), default=[]
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="also write the figures into this folder"
    )
    args = parser.parse_args()
    if unknown := set(args.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    results = dict[str, Results]()
    for name in args.sections or SHORT:
        print(f"\n== {name} ==", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found = section(name)(Path(folder), args.repeats)
        print_targets(found)
        results[name] = {**found, "machine": machine(args.repeats)}
    if args.output:
        write(results, args.output)


def section(name: str) -> Callable[[Path, int], Results]:
    module, _, function = SECTIONS[name].partition(".")
    found: Callable[[Path, int], Results] = getattr(import_module(f"benchmarks.{module}"), function)
    return found


def machine(repeats: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "threads": os.cpu_count(),
        **{name: version(name) for name in PACKAGES},
        "repeats": repeats,
    }


def write(results: dict[str, Results], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
