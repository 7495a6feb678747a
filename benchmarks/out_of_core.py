"""Out of core: ten times the samples take ten times as long, in the same memory.

    python -m benchmarks.out_of_core [--samples 2000000] [--output benchmarks]

Builds a store from N / 10 and from N generated digits (raw and gzip IDX files, both
orders), each in its own process, and checks peak memory and time. With --output, also writes
out_of_core.json into that folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.digits import write_digits
from benchmarks.memory import Usage, measure_build
from benchmarks.output import add_output_option, write_json

# One byte for each of label, split and source_index.
COORDINATE_BYTES_PER_SAMPLE = 3
MAX_GROWTH = 1.10
MAX_PEAK_BYTES = 400_000_000
MAX_TIME_GROWTH = 1.15


def measure(n_samples: int, repeats: int, folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind in ("raw", "gzip"):
        places = {}
        for count in (n_samples // 10, n_samples):
            part = folder / f"{kind}-{count}"
            part.mkdir()
            places[count] = write_digits(part, count, packed=kind == "gzip")
        for order in ("source", "label"):
            usages: dict[int, list[Usage]] = {count: [] for count in places}
            for _ in range(repeats):  # interleaved, so that both see the same load
                for count, place in places.items():
                    usages[count].append(build(folder, place, order))
            small, large = map(_median, usages.values())
            rows.append(row(kind, order, n_samples, small, large))
            print(line(rows[-1]), flush=True)
    return rows


def build(folder: Path, place: Path, order: str) -> Usage:
    return measure_build(folder / "t.zarr", place, order=order, overwrite=True)


def _median(usages: list[Usage]) -> Usage:
    return Usage(
        statistics.median(usage.seconds for usage in usages),
        int(statistics.median(usage.peak_bytes for usage in usages)),
    )


def row(kind: str, order: str, n_samples: int, small: Usage, large: Usage) -> dict[str, object]:
    more_samples = n_samples - n_samples // 10
    allowed = MAX_GROWTH * small.peak_bytes + COORDINATE_BYTES_PER_SAMPLE * more_samples
    time_growth = large.seconds / small.seconds / 10
    return {
        "source": kind,
        "order": order,
        "samples": n_samples,
        "seconds": large.seconds,
        "peak_bytes_of_a_tenth": small.peak_bytes,
        "peak_bytes": large.peak_bytes,
        "time_per_sample_against_a_tenth": time_growth,
        "flat": large.peak_bytes <= min(allowed, MAX_PEAK_BYTES),
        "linear": time_growth <= MAX_TIME_GROWTH,
    }


def line(row: dict[str, object]) -> str:
    return (
        f"{row['source']:<6}{row['order']:<8}{row['samples']:>10,} samples "
        f"{row['seconds']:6.1f} s  peak {_mb(row['peak_bytes_of_a_tenth'])} -> "
        f"{_mb(row['peak_bytes'])} MB  "
        f"time per sample x{row['time_per_sample_against_a_tenth']:.2f}  "
        f"{'flat' if row['flat'] else 'GROWS'}, {'linear' if row['linear'] else 'NOT LINEAR'}"
    )


def _mb(count: object) -> str:
    assert isinstance(count, int)
    return f"{count / 1e6:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    add_output_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.samples, args.repeats, Path(folder))
    if args.output:
        write_json(rows, args.output / "out_of_core.json")
    if not all(row["flat"] and row["linear"] for row in rows):
        raise SystemExit("memory or time grew more than promised")


if __name__ == "__main__":
    main()
