"""The notebooks run from a fresh kernel, without network and without a warning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MAX_BYTES = 20_000

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


def code_cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "added-by-the-test",
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def run(notebook: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run the cells with ``folder`` as the working folder; return their outputs."""
    notebook["cells"].insert(0, code_cell(NO_NETWORK))
    place = folder / "notebook.ipynb"
    place.write_text(json.dumps(notebook))
    command = [sys.executable, "-c", EXECUTE, "--inplace", "--timeout=120", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads(place.read_text())["cells"]
    place.unlink()
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures_and_no_warning(path: Path, tmp_path: Path) -> None:
    outputs = run(json.loads(path.read_text()), tmp_path)
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_notebook_that_needs_the_network_fails(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOKS[0].read_text())
    cell = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=1)"
    notebook["cells"] = [code_cell(cell) | {"id": "needs-the-network"}]
    with pytest.raises(AssertionError, match="a notebook needs the network"):
        run(notebook, tmp_path)


@pytest.mark.slow
def test_a_notebook_shows_a_picture_once_without_magic(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOKS[0].read_text())
    cell = "import mnist_zarr; mnist_zarr.plot.one_per_class(mnist_zarr.open_dataset('mnist'))"
    notebook["cells"] = [code_cell(cell) | {"id": "shows-a-picture"}]
    outputs = run(notebook, tmp_path)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_small_and_without_outputs(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_there_are_notebooks_to_run() -> None:
    assert len(NOTEBOOKS) >= 4
