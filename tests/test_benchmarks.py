"""The benchmarks: what they leave behind, and that documents quote what they measured."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.object_server import BUCKET, S3Server

TOP = Path(__file__).parent.parent
RESULTS = TOP / "benchmarks" / "results.json"
SECTIONS_WITH_TARGETS = {
    "build": "building",
    "select": "selecting",
    "scan": "scanning",
    "sizes": "sizes",
    "start": "starting",
    "training": "training",
    "hosting": "hosting",
}


@pytest.fixture
def benchmarks() -> Any:
    for package in ("pyarrow", "h5py", "idx2numpy"):
        pytest.importorskip(package, reason="needs the extra 'bench'")
    return import_module("benchmarks.__main__")


def run(benchmarks: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command, with sections that take no time."""
    monkeypatch.setattr(benchmarks, "section", lambda name: lambda folder, repeats: {})
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


@pytest.mark.slow
@pytest.mark.usefixtures("benchmarks")
def test_the_requests_of_the_documents_are_those_that_servers_count_today(
    tmp_path: Path, s3: S3Server
) -> None:
    hosting = import_module("benchmarks.hosting")
    known, again = json.loads(RESULTS.read_text())["hosting"], "python -m benchmarks hosting"
    fetched = json.loads(json.dumps(hosting.count_fetched(tmp_path)))
    zipped = "label order, zip file"
    for reader, tasks in fetched.pop(zipped).items():
        for task, counted in tasks.items():  # how far fsspec reads ahead depends on threads
            assert counted == pytest.approx(known["fetched"][zipped][reader][task], rel=0.3), again
    assert fetched == {name: known["fetched"][name] for name in fetched}, again
    assert json.loads(json.dumps(hosting.count_objects(tmp_path))) == known["objects"], again
    for name, place in hosting.STORES.items():
        assert hosting.count_sent(s3, *place)["PUT"] == known["sent"][name]["PUT"], again


@pytest.mark.slow
@pytest.mark.usefixtures("benchmarks")
def test_a_bucket_is_asked_as_often_as_a_web_server(s3: S3Server) -> None:
    hosting = import_module("benchmarks.hosting")
    known = json.loads(RESULTS.read_text())["hosting"]["fetched"]["label order"]
    hosting.count_sent(s3, "label.zarr", "label")
    readers = hosting.readers_of(f"s3://{BUCKET}/label.zarr", s3.options)
    for reader in (hosting.OBSTORE, hosting.OURS):  # s3fs asks again now and then
        s3.requests.clear()
        ds = readers[reader]()
        counts = {"open": len(s3.requests)}
        s3.requests.clear()
        ds.sel(label=hosting.DIGIT).image.load()
        counts[hosting.THEN_DIGIT] = len(s3.requests)
        assert counts == {task: known[reader][task][0] for task in counts}, reader
