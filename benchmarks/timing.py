"""Times of several cases, measured side by side."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Median and spread of one case, and its processor time, in seconds."""

    median: float
    cpu: float
    fastest: float
    slowest: float


def measure(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Run every case ``repeats`` times, interleaved, so that all see the same load.

    The first round warms up and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    processor: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, case in cases.items():
            gc.collect()
            start, cpu = time.perf_counter(), processor_time()
            case()
            if number:
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(processor_time() - cpu)
    return {
        name: Timing(
            statistics.median(times), statistics.median(processor[name]), min(times), max(times)
        )
        for name, times in seconds.items()
    }


def processor_time() -> float:
    """Return the processor time of all threads, and of the processes that have ended."""
    return sum(os.times()[:4])
