"""The benchmarks: what they leave behind, and that their figures are those of today's code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
RUN = """
import importlib, sys
module = importlib.import_module(sys.argv.pop(1))
for name in ("run", "vary", "measure", "count_fetched", "count_sent", "time_object_stores"):
    if hasattr(module, name):
        setattr(module, name, lambda *_args: {})
for name in ("draw", "print_table", "S3Server"):
    if hasattr(module, name):
        setattr(module, name, lambda *_args: __import__("unittest.mock").mock.MagicMock())
module.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "written"),
    [
        ("benchmarks.__main__", "results.json"),
        ("benchmarks.defaults", "defaults.json"),
        ("benchmarks.out_of_core", "out_of_core.json"),
        ("benchmarks.hosting", "hosting.json"),
    ],
)
def test_figures_are_written_only_into_a_folder_that_is_named(
    module: str, written: str, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'bench'")
    pytest.importorskip("obstore", reason="needs the extra 'test'")
    before = {path: path.stat().st_mtime_ns for path in (TOP / "benchmarks").rglob("*.json")}
    for options in ([], ["--output", str(tmp_path)]):
        command = [sys.executable, "-c", RUN, module, *options]
        subprocess.run(command, cwd=TOP, check=True, capture_output=True)
        names = [path.name for path in tmp_path.iterdir() if path.is_file()]
        assert names == ([written] if options else [])
    after = {path: path.stat().st_mtime_ns for path in (TOP / "benchmarks").rglob("*.json")}
    assert after == before


def test_the_figures_are_those_that_the_benchmarks_measure_today() -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'bench'")
    benchmarks = pytest.importorskip("benchmarks.__main__", reason="needs the extra 'bench'")
    results = json.loads((TOP / "benchmarks" / "results.json").read_text())
    assert results["targets"] == {
        sentence: list(found) for sentence, found in benchmarks.check_targets(results).items()
    }
    limits = {name for name in results["select"] if "order" in name}
    parts = {name.partition(", ")[2] for name in limits}
    assert parts == {
        "open and select",
        "opened before",
        "opened before, dask",
        "plain xarray",
        "limit: decode alone",
        "limit: decode, then scale",
    }
