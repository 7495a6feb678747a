"""The tables of the documentation, made from results.json.

    python -m benchmarks.tables [--write] [FILE ...]

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Exits with 1 if one
in README.md or docs/ is not what results.json says; with --write, makes it so, and draws
docs/images/benchmarks.png.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import building, hosting, pictures, selecting, sizes

TOP = Path(__file__).parent.parent
RESULTS = TOP / "benchmarks" / "results.json"
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
Results = dict[str, Any]
Row = Iterable[object]
TORCHVISION = "torchvision + ToTensor, DataLoader"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="write the tables into the files")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text())
    stale = []
    for path in args.files or documents():
        text = path.read_text()
        fresh = with_tables(text, results)
        if fresh != text:
            stale.append(str(path))
            if args.write:
                path.write_text(fresh)
    if args.write:
        pictures.draw(results).savefig(TOP / "docs" / "images" / "benchmarks.png", dpi=110)
    print("\n".join(stale) or "all tables are as results.json says")
    if stale and not args.write:
        raise SystemExit(1)


def documents() -> list[Path]:
    return [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]


def with_tables(text: str, results: Results) -> str:
    """Return a document with all its tables made anew."""
    return TABLE.sub(lambda found: found[1] + TABLES[found[2]](results) + found[3], text)


def table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [[*heads], ["---" for _ in heads], *map(list, rows)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def ratio(value: float) -> str:
    return f"{value:.{0 if value >= 10 else 1 if value >= 1 else 2}f}"


def by_speed(seconds: dict[str, float], reference: str) -> list[tuple[str, str]]:
    """Return names with how many times as fast they are as one of them, fastest first."""
    fastest_first = sorted(seconds.items(), key=lambda item: item[1])
    return [(name, ratio(seconds[reference] / value)) for name, value in fastest_first]


def select_table(results: Results) -> str:
    seconds = results["select"]["seconds"]
    shown = {
        name: value
        for name, value in seconds.items()
        if "order" not in name or name.endswith(("open_store and select", "plain xarray"))
    }
    shown = {name: value for name, value in shown.items() if "uint8" not in name}
    heads = ("all 7293 sevens as float32, from disk", "times as fast as the tutorial")
    return table(heads, by_speed(shown, selecting.TUTORIAL))


def build_table(results: Results) -> str:
    seconds = results["build"]["seconds"]
    shown = {name: value for name, value in seconds.items() if not name.startswith("limit")}
    heads = ("a store of the four gzip files", "times as fast as the tutorial")
    return table(heads, by_speed(shown, building.TUTORIAL))


def sizes_table(results: Results) -> str:
    found = results["sizes"]["bytes"]
    rows = [
        (name, f"{size / 1e6:.1f}", f"{size / found[sizes.GZIP]:.2f}")
        for name, size in sorted(found.items(), key=lambda item: item[1])
    ]
    return table(("70,000 images", "MB", "relative to the gzip files"), rows)


def training_table(results: Results) -> str:
    speeds = results["training"]["samples_per_second"]
    rows = [
        (name, ratio(speed / speeds[TORCHVISION]))
        for name, speed in sorted(speeds.items(), key=lambda item: -item[1])
    ]
    return table(("one epoch in shuffled batches of 256", "times as fast as torchvision"), rows)


def out_of_core_table(results: Results) -> str:
    rows = [
        (
            f"{row['source']}, {row['order']} order",
            f"{row['peak_bytes_of_a_tenth'] / 1e6:.0f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            ratio(row["time_per_sample_against_a_tenth"]),
        )
        for row in results["out-of-core"]["rows"]
    ]
    count = results["out-of-core"]["rows"][0]["samples"]
    heads = (
        "source and order",
        f"MB of memory, {count // 10:,} samples",
        f"MB, {count:,} samples",
        "time per sample, relative",
    )
    return table(heads, rows)


def ten_million_table(results: Results) -> str:
    found = results["ten-million"]
    rows = [
        (
            f"{order} order, {found[order]['files']:,} files",
            *(
                f"{found[order][task]['seconds']:.{1 if task == 'open_store' else 0}f} s, "
                f"{found[order][task]['peak_bytes'] / 1e6:.0f} MB"
                for task in ("build", "open_store", "verify")
            ),
        )
        for order in ("source", "label")
    ]
    return table((f"{found['samples']:,} samples", "build", "open_store", "verify"), rows)


def hosting_table(results: Results) -> str:
    found = results["hosting"]
    objects = [
        f"{chunks} + {documents} documents" if documents else str(chunks)
        for chunks, documents in found["objects"].values()
    ]
    rows = [["objects", *objects], *hosting.rows(found["fetched"], found["sent"])]
    return table(("", *found["fetched"]), rows)


def first_digit_table(results: Results) -> str:
    places = results["hosting"]["first_digit"]
    rows = [
        [
            reader,
            *(
                ratio(times[hosting.PLAIN]["fastest"] / times[reader]["fastest"])
                for times in places.values()
            ),
        ]
        for reader in places["S3"]
    ]
    heads = ("first digit of a new process, times as fast as fsspec", *places)
    return table(heads, rows)


def targets_table(results: Results) -> str:
    rows = [
        (
            f"{section}: {sentence}",
            f"{found['figure']:.2f}",
            f"{'at least' if found['bound'] > 0 else 'at most'} {abs(found['bound']):g}",
            "met" if found["met"] else "missed",
        )
        for section, figures in results.items()
        for sentence, found in figures.get("targets", {}).items()
    ]
    return table(("target", "figure", "shall be", ""), rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "build": build_table,
    "select": select_table,
    "sizes": sizes_table,
    "training": training_table,
    "out-of-core": out_of_core_table,
    "ten-million": ten_million_table,
    "hosting": hosting_table,
    "first-digit": first_digit_table,
    "targets": targets_table,
}


if __name__ == "__main__":
    main()
