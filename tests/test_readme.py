"""The Python blocks of README run, in the order in which they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import mnist_zarr
from mnist_zarr.builder import build
from mnist_zarr.catalog import BUNDLED_FILES
from mnist_zarr.idx import write_idx

TOP = Path(__file__).parent.parent
README = TOP / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def place_with_what_readme_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build("mnist.zarr", level=1)
    for path in BUNDLED_FILES.glob("train-*.gz"):
        (tmp_path / path.name).symlink_to(path)
    for name in ("folder/of/idx/files", "monday", "tuesday"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for split in ("train", "t10k"):
            write_idx(np.zeros((4, 2, 2), np.uint8), folder / f"{split}-images-idx3-ubyte")
            write_idx(np.zeros(4, np.uint8), folder / f"{split}-labels-idx1-ubyte")
    return tmp_path


@pytest.mark.usefixtures("place_with_what_readme_names", "memory_url")
def test_the_blocks_run_without_a_warning() -> None:
    namespace: dict[str, object] = {}
    for block in python_blocks():
        exec(compile(block, "README.md", "exec"), namespace)


def test_there_are_blocks_to_run() -> None:
    assert len(python_blocks()) >= 3


def test_every_picture_exists() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert len(pictures) >= 2
    assert all((README.parent / picture).exists() for picture in pictures)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", (TOP / name).read_text())
    assert [link for link in links if not (TOP / link).exists()] == []


def test_the_table_of_modules_names_every_module() -> None:
    table = README.read_text().split("| modules | job |")[1].split("\n\n")[0]
    modules = {path.stem for path in Path(mnist_zarr.__file__).parent.glob("[!_]*.py")}
    assert set(re.findall(r"`(\w+)`", table)) == modules


def test_files_that_contributing_names_exist() -> None:
    named = re.findall(r"pytest (tests/\S+\.py)", (TOP / "CONTRIBUTING.md").read_text())
    assert len(named) >= 4
    assert [name for name in named if not (TOP / name).exists()] == []
