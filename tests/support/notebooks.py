"""The notebooks of the tutorial: run from a fresh kernel, and stored with what they give.

    python -m tests.support.notebooks [NOTEBOOK ...]

Runs them all, or those that are named, and stores their outputs in them.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

PNG = "image/png"
N_COLORS = 64  # of a stored picture, so that a notebook stays small

# In a process of its own, so that warnings of Jupyter's are not those of the tests.
EXECUTE = "from nbclient.cli import main; main()"
# Loopback is allowed: that is where the servers of a notebook are.
NO_NETWORK = """
import socket

_connect = socket.socket.connect

def _connect_on_loopback(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(f"a notebook needs the network: {address}")
    return _connect(self, address)

socket.socket.connect = _connect_on_loopback
"""

Notebook = dict[str, Any]


def code_cell(source: str, name: str) -> dict[str, Any]:
    """Return a cell that has not been run."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def read(path: Path) -> Notebook:
    """Read a notebook."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def run(notebook: Notebook, folder: Path) -> Notebook:
    """Run the cells with ``folder`` as the working folder; return the notebook with outputs."""
    cells = [code_cell(NO_NETWORK, "no-network"), *notebook["cells"]]
    place = folder / "notebook.ipynb"
    place.write_text(json.dumps({**notebook, "cells": cells}), encoding="utf-8")
    command = [sys.executable, "-c", EXECUTE, "--inplace", "--timeout=300", str(place)]
    # A backend that is chosen by the environment would be used in place of the kernel's own.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    _, *cells = read(place)["cells"]
    place.unlink()
    return {**notebook, "cells": [_without_times(cell) for cell in cells]}


def _without_times(cell: dict[str, Any]) -> dict[str, Any]:
    """Drop when a cell was run, and do not count the one that was put before it."""
    for counted in (cell, *cell.get("outputs", [])):
        if counted.get("execution_count"):
            counted["execution_count"] -= 1
    return {**cell, "metadata": {}}


def pictures(notebook: Notebook) -> list[dict[str, str]]:
    """Return the outputs that are pictures: base64 by type."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if PNG in output.get("data", {})]


def as_image(picture: dict[str, str]) -> Image.Image:
    """Open a picture."""
    return Image.open(io.BytesIO(base64.b64decode(picture[PNG])))


def store(path: Path) -> None:
    """Run a notebook and store its outputs in it."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(read(path), Path(folder))
    for picture in pictures(notebook):
        small = io.BytesIO()
        as_image(picture).convert("RGB").quantize(N_COLORS).save(small, "png", optimize=True)
        picture[PNG] = base64.b64encode(small.getvalue()).decode()
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        store(path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
