"""The benchmarks: what they leave behind, and that documents quote what they measured."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.partners import partner

TOP = Path(__file__).parent.parent
RESULTS = TOP / "benchmarks" / "results.json"
SECTIONS_WITH_TARGETS = {
    "build": "building",
    "select": "selecting",
    "scan": "scanning",
    "sizes": "sizes",
    "start": "starting",
    "training": "training",
}


@pytest.fixture
def benchmarks() -> Any:
    for package in ("pyarrow", "h5py", "idx2numpy"):
        pytest.importorskip(package, reason="needs the extra 'bench'")
    partner("obstore")
    return import_module("benchmarks.__main__")


def run(benchmarks: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command, with sections that take no time."""
    sections = {name: lambda folder, repeats: {"repeats": repeats} for name in ("build", "scan")}
    monkeypatch.setattr(benchmarks, "SECTIONS", sections)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    benchmarks.main()


def test_figures_are_written_only_into_a_folder_that_is_named(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = RESULTS.read_bytes()
    monkeypatch.chdir(tmp_path)
    run(benchmarks, monkeypatch, "build")
    assert list(tmp_path.iterdir()) == []
    run(benchmarks, monkeypatch, "build", "--output", "there", "--repeats", "2")
    run(benchmarks, monkeypatch, "scan", "--output", "there", "--repeats", "3")
    written = json.loads((tmp_path / "there" / "results.json").read_text())
    # What was not run stays.
    assert {name: found["machine"]["repeats"] for name, found in written.items()} == {
        "build": 2,
        "scan": 3,
    }
    assert RESULTS.read_bytes() == before


@pytest.mark.parametrize(("section", "module"), SECTIONS_WITH_TARGETS.items())
@pytest.mark.usefixtures("benchmarks")
def test_targets_are_judged_by_the_figures_beside_them(section: str, module: str) -> None:
    results = json.loads(RESULTS.read_text())[section]
    report, measured = import_module("benchmarks.report"), import_module(f"benchmarks.{module}")
    assert results["targets"] == json.loads(json.dumps(report.judge(measured.targets(results))))


def test_the_tables_of_the_documents_are_those_of_the_results() -> None:
    tables = pytest.importorskip("benchmarks.tables", reason="needs the extra 'bench'")
    results = json.loads(RESULTS.read_text())
    for path in tables.documents():
        text = path.read_text()
        assert tables.with_tables(text, results) == text, f"python -m benchmarks.tables {path}"
    changed = json.loads(json.dumps(results))
    changed["sizes"]["bytes"]["raw IDX"] *= 2
    page = "<!-- table: sizes -->\n<!-- end of table -->\n"
    assert tables.with_tables(page, results) != tables.with_tables(page, changed)
