"""Out of core: ten times the samples take ten times as long, in the same memory.

Builds stores from N / 10 and from N generated digits, each in its own process, and checks peak
memory and time; of ten million also how long it takes to open and to verify such a store.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.digits import write_digits
from benchmarks.memory import Usage, measure_build, measure_open, measure_verify
from benchmarks.report import Results, Targets, judge

# One byte for each of label, split and source_index.
COORDINATE_BYTES_PER_SAMPLE = 3
N_SAMPLES, TEN_MILLION = 2_000_000, 10_000_000
ORDERS = ("source", "label")
MAX_GROWTH = 1.10
MAX_PEAK_BYTES = 256_000_000
MAX_TIME_GROWTH = 1.15


def run(folder: Path, repeats: int) -> Results:
    """Build two million samples and a tenth, from raw and gzip files, in both orders."""
    rows = []
    for kind in ("raw", "gzip"):
        places = {}
        for count in (N_SAMPLES // 10, N_SAMPLES):
            part = folder / f"{kind}-{count}"
            part.mkdir()
            places[count] = write_digits(part, count, packed=kind == "gzip")
        for order in ORDERS:
            usages: dict[int, list[Usage]] = {count: [] for count in places}
            for _ in range(max(1, repeats // 3)):  # interleaved, so that both see the same load
                for count, place in places.items():
                    usages[count].append(build(folder, place, order))
            small, large = map(_median, usages.values())
            rows.append(row(kind, order, N_SAMPLES, small, large))
            print(line(rows[-1]), flush=True)
    return {"rows": rows, "targets": judge(targets(rows))}


def run_ten_million(folder: Path, repeats: int) -> Results:
    """Build, open and verify ten million samples, 7.8 GB as raw IDX files."""
    place = write_digits(folder, TEN_MILLION, packed=False)
    small = folder / "small"
    small.mkdir()
    write_digits(small, TEN_MILLION // 50, packed=False)
    found: Results = {"samples": TEN_MILLION}
    for order in ORDERS:
        target = folder / f"{order}.zarr"
        measure_build(small / "t.zarr", small, order=order, overwrite=True)
        usages = {
            "build": measure_build(target, place, order=order),
            "open_store": measure_open(target),
            "open_store of a 50th": measure_open(small / "t.zarr"),
            "verify": measure_verify(target),
            "verify of a 50th": measure_verify(small / "t.zarr"),
        }
        n_files = sum(path.is_file() for path in target.rglob("*"))
        found[order] = {"files": n_files, **{name: vars(usage) for name, usage in usages.items()}}
        print(f"{order} order, {n_files:,} files")
        for name, usage in usages.items():
            print(f"{name:<24}{usage.seconds:9.2f} s{usage.peak_bytes / 1e6:9.0f} MB", flush=True)
    growth = {
        order: found[order]["verify"]["seconds"] / found[order]["verify of a 50th"]["seconds"] / 50
        for order in ORDERS
    }
    found["targets"] = judge(
        {
            f"{order} order: verify, time per sample relative to a 50th": (figure, -MAX_TIME_GROWTH)
            for order, figure in growth.items()
        }
    )
    return found


def targets(rows: list[dict[str, Any]]) -> Targets:
    largest = max(row["peak_bytes"] for row in rows)
    return {
        "peak memory in MB": (largest / 1e6, -MAX_PEAK_BYTES / 1e6),
        "peak memory relative to a tenth, less the coordinates": (
            max(row["growth"] for row in rows),
            -MAX_GROWTH,
        ),
        "time per sample relative to a tenth": (
            max(row["time_per_sample_against_a_tenth"] for row in rows),
            -MAX_TIME_GROWTH,
        ),
    }


def build(folder: Path, place: Path, order: str) -> Usage:
    return measure_build(folder / "t.zarr", place, order=order, overwrite=True)


def _median(usages: list[Usage]) -> Usage:
    return Usage(
        statistics.median(usage.seconds for usage in usages),
        int(statistics.median(usage.peak_bytes for usage in usages)),
    )


def row(kind: str, order: str, n_samples: int, small: Usage, large: Usage) -> dict[str, Any]:
    coordinates = COORDINATE_BYTES_PER_SAMPLE * (n_samples - n_samples // 10)
    return {
        "source": kind,
        "order": order,
        "samples": n_samples,
        "seconds": large.seconds,
        "peak_bytes_of_a_tenth": small.peak_bytes,
        "peak_bytes": large.peak_bytes,
        "growth": (large.peak_bytes - coordinates) / small.peak_bytes,
        "time_per_sample_against_a_tenth": large.seconds / small.seconds / 10,
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['source']:<6}{row['order']:<8}{row['samples']:>10,} samples "
        f"{row['seconds']:6.1f} s  peak {row['peak_bytes_of_a_tenth'] / 1e6:.0f} -> "
        f"{row['peak_bytes'] / 1e6:.0f} MB  "
        f"time per sample x{row['time_per_sample_against_a_tenth']:.2f}"
    )
