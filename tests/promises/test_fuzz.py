"""The readers on damaged files: inputs that once were trouble, and a short seeded run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import idx, npz, target
from tests.fuzz.target import Target, explore

TARGETS = {idx.TARGET: 4000, npz.TARGET: 2500}
CORPUS = [(each, path) for each in TARGETS for path in each.corpus()]


@pytest.mark.parametrize(("each", "path"), CORPUS, ids=lambda part: getattr(part, "stem", ""))
def test_inputs_that_once_caused_trouble_are_read_or_refused_within_limits(
    each: Target, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "MEASURE_MEMORY_EVERY", 1)
    each.check(path.read_bytes(), tmp_path)


@pytest.mark.parametrize(
    ("each", "runs"), TARGETS.items(), ids=lambda part: getattr(part, "name", "")
)
def test_mutated_files_are_read_right_or_refused_by_an_error_of_ours(
    each: Target, runs: int, tmp_path: Path
) -> None:
    for data in explore(each, runs=runs, seed=0):
        try:
            each.check(data, tmp_path)
        except Exception as error:
            error.add_note(f"the input: {data.hex() if len(data) < 2000 else data[:2000]!r}")
            raise
