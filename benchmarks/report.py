"""What a section returns, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.timing import Timing, measure

Cases = dict[str, Callable[[], object]]
# JSON: "seconds" and "cpu" of each case, "targets" of the section, and what else it counts.
Results = dict[str, Any]
# A figure, and what it shall be: at least this, or at most, if negative.
Targets = Mapping[str, tuple[float, float]]


def time_cases(cases: Cases, repeats: int) -> Results:
    """Measure the cases side by side, print them, and return their times."""
    timings = measure(cases, repeats)
    print_timings(timings)
    return {
        "seconds": {name: timing.median for name, timing in timings.items()},
        "fastest": {name: timing.fastest for name, timing in timings.items()},
        "cpu": {name: timing.cpu for name, timing in timings.items()},
    }


def print_timings(timings: dict[str, Timing]) -> None:
    print(f"{'':<56}{'median':>10}{'cpu':>10}{'fastest':>10}{'slowest':>10}")
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        figures = (timing.median, timing.cpu, timing.fastest, timing.slowest)
        print(f"{name:<56}" + "".join(f"{x * 1e3:8.1f}ms" for x in figures), flush=True)


def judge(targets: Targets) -> dict[str, dict[str, Any]]:
    """Return the figure of each target, and whether it is met."""
    return {
        sentence: {
            "figure": figure,
            "bound": bound,
            "met": figure >= bound if bound > 0 else figure <= -bound,
        }
        for sentence, (figure, bound) in targets.items()
    }


def print_targets(results: Results) -> None:
    for sentence, found in results.get("targets", {}).items():
        kind = "at least" if found["bound"] > 0 else "at most"
        verdict = "met   " if found["met"] else "MISSED"
        print(f"{verdict}{found['figure']:8.2f}  {sentence} ({kind} {abs(found['bound']):g})")
