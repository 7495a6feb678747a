"""Run a fuzz target: ``python -m tests.fuzz idx --runs 1000000``.

Coverage-guided by atheris (``pip install '.[fuzz]'``); with ``--seeded`` by a seed alone,
as the tests do it. Each new kind of failure is printed, its input is written to the folder
of ``--findings``, and the run goes on. What was mended belongs into ``tests/fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import sys
import tempfile
import traceback
from pathlib import Path

from tests.fuzz.target import MAX_INPUT_BYTES, Target, explore

# Whose branches guide the mutations.
INSTRUMENTED = ["mnist_zarr", "zipfile", "numpy.lib"]


class Findings:
    """Failures, one of each kind."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory()
        self.counts: collections.Counter[str] = collections.Counter()

    def check(self, data: bytes) -> None:
        """Check the input; keep it if it fails in a new way."""
        try:
            self._target.check(data, Path(self._scratch.name))
        except Exception as error:
            kind = _kind(error)
            self.counts[kind] += 1
            if self.counts[kind] == 1:
                self._folder.mkdir(parents=True, exist_ok=True)
                path = self._folder / f"{self._target.name}-{hashlib.sha1(data).hexdigest()[:10]}"
                path.write_bytes(data)
                print(f"FOUND {path}\n  {kind}\n  {str(error)[:300]}", flush=True)


def _kind(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}mnist_zarr{os.sep}" in frame.filename]
    place = (ours or frames)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    parser.add_argument("target", choices=["idx", "npz"])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeded", action="store_true", help="without atheris")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--corpus", type=Path, help="folder to keep what reaches new code")
    options = parser.parse_args()
    if options.seeded:
        target = _target(options.target)
        findings = Findings(target, options.findings)
        for data in explore(target, runs=options.runs, seed=options.seed):
            findings.check(data)
        sys.exit(bool(findings.counts))
    _run_atheris(options)


def _target(name: str) -> Target:
    # Imported when atheris has had the chance to instrument what they import.
    from tests.fuzz import idx, npz

    return {"idx": idx.TARGET, "npz": npz.TARGET}[name]


def _run_atheris(options: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = _target(options.target)
    options.findings.mkdir(parents=True, exist_ok=True)
    findings = Findings(target, options.findings)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return target.mutate(data, random.Random(seed), havoc)[:max_size]

    def havoc(data: bytes, rng: random.Random) -> bytes:
        return bytes(atheris.Mutate(data, len(data) + 64))

    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        for path in target.corpus():
            (corpus / path.name).write_bytes(path.read_bytes())
        arguments = [
            sys.argv[0],
            str(corpus),
            f"-runs={options.runs}",
            f"-seed={options.seed}",
            f"-max_len={MAX_INPUT_BYTES}",
            f"-artifact_prefix={options.findings}{os.sep}",
            "-timeout=60",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, findings.check, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
