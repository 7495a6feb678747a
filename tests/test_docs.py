"""README and the pages of docs: their blocks run, and they leave nothing public out."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
import zlib
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

import mnist_zarr
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
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def id_of(page: Path) -> str:
    return page.relative_to(TOP).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each block that runs."""
    return BLOCK.findall(page.read_text())


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


@pytest.fixture
def s3_address(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an S3 server to which plain ``s3://`` leads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secret"])
    return s3.address


def run_command(line: str, s3_address: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "pip":
        extras = metadata("mnist-zarr").get_all("Provides-Extra") or []
        named = re.findall(r"(?:mnist-zarr|\.)\[(.*?)\]", " ".join(arguments))
        assert set(",".join(named).split(",")) <= {"", *extras}
    elif program == "mnist-zarr":
        here = [word.replace("https://s3.example.org", s3_address) for word in arguments]
        done = CliRunner().invoke(main, here)
        assert done.exit_code == 0, f"{arguments}: {done.output}"
    else:
        pytest.fail(f"nobody runs {program}")


def is_slow(page: Path) -> bool:
    return any(word in page.read_text() for word in ("import distributed", "s3://bucket"))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if is_slow(page) else [], id=id_of(page))
        for page in PAGES
        if blocks(page)
    ],
)
@pytest.mark.usefixtures("empty_folder", "memory_url", "_downloads", "_openml")
def test_the_blocks_of_a_page_run_in_order_without_a_warning(
    page: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    s3_address = request.getfixturevalue("s3_address") if is_slow(page) else ""
    partner("distributed")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.setattr("mnist_zarr.cli._wait", lambda: None)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for language, block in blocks(page):
        if language == "python":
            exec(compile(block, id_of(page), "exec"), namespace)
        else:
            for line in re.split(r"\n|&&", block.strip()):
                run_command(line, s3_address)


@pytest.mark.slow
def test_the_block_for_a_cluster_is_a_script_of_its_own(tmp_path: Path) -> None:
    partner("distributed")
    page = DOCS / "how-to" / "build.md"
    (script,) = [block for _, block in blocks(page) if "import distributed" in block]
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-W", "error", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # where a busy machine may say more
    assert xr.open_zarr(tmp_path / "on-a-cluster.zarr").sizes["sample"] == 70_000


def test_there_are_blocks_to_run() -> None:
    languages = [language for page in PAGES for language, _ in blocks(page)]
    assert languages.count("python") >= 15
    assert languages.count("sh") >= 10


def test_the_sizes_of_chunks_that_are_stated_are_those_of_the_code() -> None:
    text = " ".join((DOCS / "explanation" / "layout.md").read_text().split())
    assert f"{COORDINATE_CHUNK_SAMPLES:,} numbers or {STRING_CHUNK_SAMPLES:,} strings" in text
    assert f"chunks of {CHUNK_BYTES_OF_ORDER['source'] // 10**6} MB in source order" in text
    assert f"{CHUNK_BYTES_OF_ORDER['label'] / 1e6:g} MB in label order" in text


def test_the_readme_is_short() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) <= 200


TEXTS = [*PAGES, TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", TOP / "SECURITY.md"]


@pytest.mark.parametrize("page", TEXTS, ids=id_of)
def test_links_to_files_and_pictures_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_pictures_are_shown() -> None:
    assert (TOP / "README.md").read_text().count("![") >= 3


def test_the_table_of_the_layout_names_every_folder_and_module() -> None:
    section = (TOP / "CONTRIBUTING.md").read_text().split("## Where things are")[1]
    table = section.split("\n\n")[2]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    package = Path(mnist_zarr.__file__).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == folders | {path.stem for path in package.glob("[!_]*.py")}


def test_every_test_that_the_pages_name_exists() -> None:
    texts = "".join(page.read_text() for page in TEXTS)
    named = re.findall(r"(?:`|pytest )(tests/[\w/.]+)", texts)
    assert len(named) >= 10
    assert [name for name in named if not (TOP / name).exists()] == []


def documented_functions() -> set[str]:
    text = (DOCS / "reference" / "functions.rst").read_text()
    return set(re.findall(r"^\.\. autofunction:: (\w+)$", text, re.MULTILINE))


def test_the_reference_has_every_public_function_and_module() -> None:
    names: list[str] = vars(mnist_zarr)["__all__"]
    modules = {name for name in names if isinstance(getattr(mnist_zarr, name), ModuleType)}
    functions = set(names) - modules
    assert documented_functions() - {"validate"} == functions
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.rst"))
    assert [name for name in modules if f"module:: mnist_zarr.{name}\n" not in pages] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Building it fails upon any warning."""
    for package in ("sphinx", "myst_nb", "sphinx_click", "pydata_sphinx_theme"):
        partner(package)
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 0, done.stderr
    return site


def inventory(site: Path) -> set[str]:
    """Return the names that the site documents."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    return {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_the_site_builds_and_documents_every_public_name(site: Path) -> None:
    for module in (mnist_zarr, mnist_zarr.plot, mnist_zarr.errors):
        names = [f"{module.__name__}.{name}" for name in dir(module) if name != "__version__"]
        assert len(names) >= 6
        assert set(names) <= inventory(site)


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_the_site_documents_every_command_and_option(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text()
    assert len(main.commands) >= 8
    for name, command in main.commands.items():
        assert f'id="mnist-zarr-{name}"' in page
        for param in command.params:
            if isinstance(param, click.Option):
                assert f"mnist-zarr-{name}.{param.opts[-1]}" in inventory(site)
