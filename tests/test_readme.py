"""The blocks and commands of README run, in the order in which they stand."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

import mnist_zarr
from mnist_zarr.builder import build
from mnist_zarr.catalog import qmnist
from mnist_zarr.catalog.entries import CATALOG, QMNIST, RemoteFile
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.cli import main
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.writing.defaults import CHUNK_BYTES_OF_ORDER
from mnist_zarr.writing.layout import COORDINATE_CHUNK_SAMPLES, STRING_CHUNK_SAMPLES
from tests.support.object_server import KEYS, S3Server
from tests.support.openml_server import OpenmlServer, point_to
from tests.support.partners import partner
from tests.support.small_copy import SmallCopy

TOP = Path(__file__).parent.parent
README = TOP / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def _downloads(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files behind the names of the catalog, and MNIST's labels as if with writers."""
    for name in ("fashion-mnist", "emnist-letters"):
        monkeypatch.setitem(CATALOG, name, SmallCopy(CATALOG[name], mirror).entry)
    table = np.zeros((70_000, 8), np.int32)
    table[:, 0] = open_dataset("mnist").label
    table[:115, 2] = 2154
    table[:300, 1] = 4
    splits = []
    for split, rows in zip(QMNIST.splits, (table[:60_000], table[60_000:]), strict=True):
        assert isinstance(split.labels, RemoteFile)
        path = mirror / "qmnist" / split.labels.name
        path.parent.mkdir(exist_ok=True, parents=True)
        write_idx(rows, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        labels = replace(
            split.labels, mirrors=(), checksum=f"sha256:{sha256}", size=path.stat().st_size
        )
        splits.append(replace(split, labels=labels))
    monkeypatch.setattr(qmnist, "QMNIST", replace(QMNIST, splits=tuple(splits)))


@pytest.fixture
def _openml(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "scikit_learn_data"))
    point_to(httpserver.url_for("/"), monkeypatch)
    some = open_dataset("mnist").isel(sample=slice(0, 100)).load()
    OpenmlServer(httpserver).offer(some.image.values.reshape(100, -1), some.label.values)


@pytest.mark.usefixtures("empty_folder", "memory_url", "_downloads", "_openml")
def test_the_blocks_of_python_run_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    partner("distributed")
    build("mnist.zarr", level=1)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.slow
def test_the_block_for_a_cluster_is_a_script_of_its_own(tmp_path: Path) -> None:
    partner("distributed")
    (block,) = [block for block in blocks("python") if "distributed" in block]
    (tmp_path / "script.py").write_text(block)
    command = [sys.executable, "-W", "error", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # where a busy machine may say more
    assert xr.open_zarr(tmp_path / "on-a-cluster.zarr").sizes["sample"] == 70_000


def test_the_sizes_of_chunks_that_readme_states_are_those_of_the_code() -> None:
    text = " ".join(README.read_text().split())
    assert f"{COORDINATE_CHUNK_SAMPLES:,} numbers or {STRING_CHUNK_SAMPLES:,} strings" in text
    assert f"chunks of {CHUNK_BYTES_OF_ORDER['source'] // 10**6} MB in source order" in text
    assert f"{CHUNK_BYTES_OF_ORDER['label'] / 1e6:g} MB in label order" in text


@pytest.fixture
def s3_address(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an S3 server to which plain ``s3://`` leads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secret"])
    return s3.address


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    parts = (part for line in lines for part in line.split("&&"))
    return [words for part in parts if (words := shlex.split(part, comments=True))]


@pytest.mark.slow
@pytest.mark.usefixtures("empty_folder", "_downloads")
def test_the_commands_run(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.setattr("mnist_zarr.cli._wait", lambda: None)
    extras = metadata("mnist-zarr").get_all("Provides-Extra")
    for program, *arguments in commands():
        if program == "pip":
            (requirement,) = arguments[1:]
            named = re.findall(r"\[(.*)\]", requirement)
            assert set(",".join(named).split(",")) <= {"", *(extras or ())}
        elif program == "mnist-zarr":
            here = [word.replace("https://s3.example.org", s3_address) for word in arguments]
            done = CliRunner().invoke(main, here)
            assert done.exit_code == 0, f"{arguments}: {done.output}"
        else:
            assert program == "python", f"nobody runs {program}"


def test_there_are_blocks_to_run() -> None:
    assert len(blocks("python")) >= 8
    assert sum(program == "mnist-zarr" for program, *_ in commands()) >= 10


def test_every_picture_exists() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert len(pictures) >= 2
    assert all((README.parent / picture).exists() for picture in pictures)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", (TOP / name).read_text())
    assert [link for link in links if not (TOP / link).exists()] == []


def test_the_table_of_the_layout_names_every_folder_and_module() -> None:
    section = README.read_text().split("## Layout of the code")[1].split("\n\n")[2]
    named = {
        name for row in section.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    package = Path(mnist_zarr.__file__).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == folders | {path.stem for path in package.glob("[!_]*.py")}


def test_every_test_that_readme_names_exists() -> None:
    named = re.findall(r"`(tests/\S+)`", README.read_text())
    assert len(named) >= 5
    assert [name for name in named if not (TOP / name).exists()] == []


def test_files_that_contributing_names_exist() -> None:
    named = re.findall(r"pytest (tests/\S+\.py)", (TOP / "CONTRIBUTING.md").read_text())
    assert len(named) >= 4
    assert [name for name in named if not (TOP / name).exists()] == []
