"""What GitHub, Zenodo, Binder and conda-forge read is valid, and agrees with pyproject."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mnist_zarr
from tests.support.partners import partner

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
WORKFLOWS = ".github/workflows/*.yml"
FORMS = ".github/ISSUE_TEMPLATE/[!c]*.yml"
# Files by the schema of check-jsonschema that they follow.
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.dependabot": ".github/dependabot.yml",
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "vendor.citation-file-format": "CITATION.cff",
}
# Names of conda-forge that differ from those of PyPI.
CONDA_NAMES = {
    "dask[array]": "dask-core",
    "matplotlib": "matplotlib-base",
    "zlib-ng": "python-zlib-ng",
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_follow_their_schema(schema: str) -> None:
    partner("check_jsonschema", extra="dev")
    files = [str(path) for path in TOP.glob(SCHEMAS[schema])]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_call_sections_of_the_script_and_test_every_python() -> None:
    text = (TOP / ".github" / "workflows" / "ci.yml").read_text()
    sections = set(re.findall(r"section: (\w+)", text))
    assert sections == {"lint", "docs", "lowest", "oldest", "newest"}
    (pythons,) = re.findall(r"python: \[(.*)\]", text)
    stated = [line.rsplit(" ")[-1] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert set(stated) <= set(re.findall(r'"([\d.]+)"', pythons))


def test_the_citation_has_the_version_of_the_package() -> None:
    assert f"\nversion: {mnist_zarr.__version__}\n" in (TOP / "CITATION.cff").read_text()


def test_the_conda_recipe_has_the_dependencies_and_the_version_of_the_package() -> None:
    text = (TOP / "conda" / "recipe.yaml").read_text()
    assert f"\n  version: {mnist_zarr.__version__}\n" in text
    run = text.split("  run:\n")[1].split("\n\n")[0]
    listed = [line.strip().removeprefix("- ") for line in run.splitlines()][1:]
    required = [requirement.partition(">=") for requirement in PROJECT["dependencies"]]
    assert listed == [f"{CONDA_NAMES.get(name, name)} >={floor}" for name, _, floor in required]


def test_binder_installs_extras_that_exist() -> None:
    first, *_ = (TOP / ".binder" / "requirements.txt").read_text().splitlines()
    (extras,) = re.findall(r"^\.\[(.*)\]$", first)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
