"""How much memory something takes: of Python's objects, or of a whole process."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEASURED = """
import sys

def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024

{preparation}
before = peak()
{work}
print(peak() - before)
"""


@contextmanager
def traced_memory() -> Iterator[Callable[[], int]]:
    """Trace what Python allocates; yield a function that returns the peak so far in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grown_bytes(preparation: str, work: str, *args: str | Path) -> int:
    """Return by how much ``work`` raises the peak memory of a new process.

    Both are Python code, which finds ``args`` in ``sys.argv[1:]``.
    """
    code = MEASURED.format(preparation=preparation, work=work)
    command = [sys.executable, "-c", code, *map(str, args)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
