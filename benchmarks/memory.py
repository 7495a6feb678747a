"""Peak memory and time of one call, in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALL = """
import json, sys, time
import mnist_zarr
name, args, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
call = getattr(mnist_zarr, name)
start = time.perf_counter()
call(*args, **options)
seconds = time.perf_counter() - start
# The peak of this program alone: ru_maxrss would include the parent's, before exec.
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"seconds": seconds, "peak_bytes": int(lines["VmHWM"].split()[0]) * 1024}))
"""


@dataclass(frozen=True)
class Usage:
    """Time and memory of one call."""

    seconds: float
    peak_bytes: int


def measure_build(target: Path, source: Path, **options: Any) -> Usage:
    """Build a store in a new process and return its wall time and peak resident memory."""
    return _measure("build", str(target), str(source), progress=False, **options)


def measure_open(target: Path) -> Usage:
    """Open a store in a new process and return its wall time and peak resident memory."""
    return _measure("open_store", str(target))


def measure_verify(target: Path) -> Usage:
    """Verify a store in a new process and return its wall time and peak resident memory."""
    return _measure("verify", str(target), progress=False)


def _measure(name: str, *args: str, **options: Any) -> Usage:
    command = [sys.executable, "-c", CALL, name, json.dumps(args), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Usage(**json.loads(done.stdout))
