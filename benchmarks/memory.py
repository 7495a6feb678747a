"""Peak memory and time of one build, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILD = """
import json, sys, time
import mnist_zarr
target, source, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
mnist_zarr.write_zarr
start = time.perf_counter()
mnist_zarr.build(target, source, progress=False, **options)
seconds = time.perf_counter() - start
# The peak of this program alone: ru_maxrss would include that of the parent before exec.
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"seconds": seconds, "peak_bytes": int(lines["VmHWM"].split()[0]) * 1024}))
"""


@dataclass(frozen=True)
class Usage:
    """What one build took."""

    seconds: float
    peak_bytes: int


def measure_build(target: Path, source: Path, **options: Any) -> Usage:
    """Build a store in a new process and return its wall time and peak resident memory."""
    command = [sys.executable, "-c", BUILD, str(target), str(source), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Usage(**json.loads(done.stdout))
