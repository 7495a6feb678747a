"""The notebooks run from a fresh kernel, without network and without a warning, as stored."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.notebooks import NOTEBOOKS, Notebook, as_image, code_cell, pictures, read, run

MAX_BYTES = 300_000
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# Other compressors and training on other machines give slightly other numbers.
TOLERANCE = 0.05
# What differs from run to run, or with the version of the compressor.
UNSTABLE = re.compile(r"127\.0\.0\.1:\d+|/\S*/tmp\w+|\b0x[0-9a-f]{6,}|[0-9a-f]{16}…")


def test_there_are_notebooks_to_run() -> None:
    assert len(NOTEBOOKS) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_small_and_with_pictures(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    assert len(pictures(read(path))) >= 2
    assert all(cell["metadata"] == {} for cell in read(path)["cells"])


def texts(cell: dict[str, Any]) -> str:
    """Return what a cell prints and shows, as text."""
    outputs = cell.get("outputs", [])
    parts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    return UNSTABLE.sub("?", "\n".join("".join(part) for part in parts))


def words(text: str) -> list[str]:
    """Return a text without its numbers, and without the bars and blanks that follow them."""
    return NUMBER.sub(" # ", text.replace("█", " ")).split()


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def runs_here(cell: dict[str, Any]) -> bool:
    needs_torch = 'find_spec("torch")' in "".join(cell["source"])
    return not needs_torch or importlib.util.find_spec("torch") is not None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_what_is_stored_and_no_warning(path: Path, tmp_path: Path) -> None:
    stored, given = read(path), run(read(path), tmp_path)
    assert list(tmp_path.iterdir()) == []
    for before, after in zip(stored["cells"], given["cells"], strict=True):
        assert "stderr" not in {output.get("name") for output in after.get("outputs", [])}
        if runs_here(after):
            assert words(texts(after)) == words(texts(before))
            assert numbers(texts(after)) == pytest.approx(numbers(texts(before)), rel=TOLERANCE)
    for old, new in zip(pictures(stored), pictures(given), strict=True):
        assert as_image(new).size == pytest.approx(as_image(old).size, rel=TOLERANCE)


def with_cell(source: str) -> Notebook:
    return {**read(NOTEBOOKS[0]), "cells": [code_cell(source, "the-only-one")]}


@pytest.mark.slow
def test_a_notebook_that_needs_the_network_fails(tmp_path: Path) -> None:
    cell = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=1)"
    with pytest.raises(AssertionError, match="a notebook needs the network"):
        run(with_cell(cell), tmp_path)


@pytest.mark.slow
def test_a_notebook_shows_a_picture_once_without_magic(tmp_path: Path) -> None:
    cell = "import mnist_zarr; mnist_zarr.plot.one_per_class(mnist_zarr.open_dataset('mnist'))"
    assert len(pictures(run(with_cell(cell), tmp_path))) == 1
