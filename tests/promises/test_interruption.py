"""Builds that are killed, run out of space, or lose their source: nothing half-done stays.

After each the target is the old store, or absent, or the new one, and the next build succeeds.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import ZipStore

from mnist_zarr.builder import build
from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.errors import (
    OutputError,
    SourceError,
    SourceNotFoundError,
    StoreError,
    TargetBusyError,
)
from mnist_zarr.files import scratch
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.plot import one_per_class, save_figure
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.chunks import ArrayWriter
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL, keys_in_bucket, open_plainly
from tests.support.clusters import cluster_of_processes
from tests.support.commands import run_command
from tests.support.digits import mnist_samples
from tests.support.forkserver import FORKS
from tests.support.object_server import S3Server
from tests.support.partners import partner

# Of MNIST: the first and the last sample but one.
OLD, NEW, NEWER = (0, 400), (30_000, 31_000), (9_000, 10_000)
CHUNK_BYTES = 40_000
STEPS_PER_CASE, MOMENTS_PER_CASE = 12, 5
N_CHUNKS_OF_NEW = 20
# Those that a build has written, on this side of its last step.
CHUNKS = ".d.zarr.building-*/new/image/c/*"
# Of Python's audit events, those that change files, or may: ctypes swaps two folders.
STEPS = ("open", "os.", "shutil.", "ctypes.call_function")


@dataclass(frozen=True)
class Case:
    order: Order
    overwrite: bool
    name: str

    def __str__(self) -> str:
        return f"{self.order}-{'overwrite' if self.overwrite else 'fresh'}-{self.name}"


CASES = [
    Case(order, overwrite, name)
    for order in ("source", "label")
    for overwrite in (False, True)
    for name in ("d.zarr", "d.zarr.zip")
]


def read(target: Path) -> xr.Dataset:
    if target.suffix == ".zip":
        with ZipStore(target, mode="r") as store:
            return xr.open_zarr(store, chunks=None).load()  # type: ignore[no-any-return]
    return xr.open_zarr(target, chunks=None).load()  # type: ignore[no-any-return]


def what_is_at(target: Path, old: xr.Dataset, new: xr.Dataset) -> str:
    """Return which store a plain reader finds, all of whose values are compared."""
    if not target.exists():
        return "absent"
    found = read(target).sortby("source_index")
    for name, ds in (("old", old), ("new", new)):
        if found.equals(ds):
            return name
    return "something else"


def build_and_say(target: Path, case: Case, kill_at: int | str | None, says: Connection) -> None:
    """Build; say when it begins and how many steps it took, or die at a step, or at one's name."""
    n_steps = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal n_steps
        if event.startswith(STEPS) and building:
            if event == "open" and not str(args[0]).startswith(str(target.parent)):
                return
            n_steps += 1
            if kill_at in (n_steps, event):
                os.kill(os.getpid(), signal.SIGKILL)

    building = False
    ds = mnist_samples(*NEW)
    sys.addaudithook(count)
    says.send(None)
    building = True
    write_zarr(ds, target, order=case.order, overwrite=case.overwrite, chunk_bytes=CHUNK_BYTES)
    building = False
    says.send(n_steps)


class Building:
    """A build in a process of its own that has begun."""

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        self._hears, says = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=function, args=(*args, says))
        self._process.start()
        says.close()
        self._hears.recv()
        self._begun = time.perf_counter()

    def ended(self) -> tuple[int, int, float]:
        """Wait; return the exit code, the steps that it took, and seconds."""
        try:
            n_steps = self._hears.recv()
        except EOFError:
            n_steps = 0
        seconds = time.perf_counter() - self._begun
        self._process.join(60)
        assert self._process.exitcode is not None
        return self._process.exitcode, n_steps, seconds

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self.ended()

    def kill_after(self, seconds: float) -> None:
        """Kill it so long after it has begun."""
        time.sleep(max(0.0, self._begun + seconds - time.perf_counter()))
        self.kill()

    def kill_when(self, count: Callable[[], int], at_least: int) -> None:
        """Kill it when the count is reached, if it has not ended before."""
        while count() < at_least and self._process.is_alive():
            time.sleep(0.002)
        self.kill()


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove at once what a process left that was killed before it could lock it."""
    monkeypatch.setattr(scratch, "GRACE_SECONDS", 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_killed_build_leaves_the_old_store_or_none_or_the_new_one(
    case: Case, tmp_path: Path, no_grace: None
) -> None:
    """Killed at steps of the file system, spread over all of them, and at random moments."""
    old, new = mnist_samples(*OLD), mnist_samples(*NEW)
    target, pristine = tmp_path / "place" / case.name, tmp_path / case.name
    target.parent.mkdir()
    write_zarr(old, pristine, chunk_bytes=CHUNK_BYTES)

    def prepare() -> None:
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        if case.overwrite:
            copy: Callable[..., object] = shutil.copytree if pristine.is_dir() else shutil.copyfile
            copy(pristine, target)

    def check_and_build_again() -> str:
        found = what_is_at(target, old, new)
        rubbish = len(os.listdir(target.parent)) > target.exists()
        write_zarr(new, target, overwrite=True, chunk_bytes=CHUNK_BYTES)
        assert what_is_at(target, old, new) == "new"
        assert os.listdir(target.parent) == [case.name]
        return f"{found}{', rubbish beside' if rubbish else ''}"

    prepare()
    exit_code, n_steps, seconds = Building(build_and_say, target, case, None).ended()
    assert exit_code == 0
    assert what_is_at(target, old, new) == "new"
    found: Counter[str] = Counter()
    exit_codes = []
    for step in np.linspace(1, n_steps, STEPS_PER_CASE).astype(int).tolist():
        prepare()
        exit_codes.append(Building(build_and_say, target, case, step).ended()[0])
        found[check_and_build_again()] += 1
    # Threads may need a step or two less another time.
    assert exit_codes.count(-signal.SIGKILL) >= STEPS_PER_CASE - 3
    prepare()
    Building(build_and_say, target, case, "os.remove").ended()  # of the lock, at the very end
    assert check_and_build_again() == "new, rubbish beside"
    random = np.random.default_rng(list(str(case).encode()))
    for share in random.uniform(0, 1, MOMENTS_PER_CASE):
        prepare()
        Building(build_and_say, target, case, None).kill_after(share * seconds)
        found[check_and_build_again()] += 1
    before = "old" if case.overwrite else "absent"
    assert set(found) <= {before, "new", f"{before}, rubbish beside", "new, rubbish beside"}
    assert found[f"{before}, rubbish beside"] >= STEPS_PER_CASE / 2


# -- builds on the workers of a cluster, which go on when their client is dead -----------


def build_on_cluster(target: Path, address: str, says: Connection) -> None:
    ds = mnist_samples(*NEW)
    with partner("distributed").Client(address, set_as_default=False) as client:
        says.send(None)
        # A level that takes long, so that chunks are still being written when the client dies.
        write_zarr(ds, target, overwrite=True, chunk_bytes=CHUNK_BYTES, level=19, client=client)
    says.send(0)


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
def test_what_workers_still_write_for_a_dead_client_harms_nobody(
    tmp_path: Path, no_grace: None
) -> None:
    old, new, newer = mnist_samples(*OLD), mnist_samples(*NEW), mnist_samples(*NEWER)
    target = tmp_path / "place" / "d.zarr"
    found: Counter[str] = Counter()
    with cluster_of_processes() as (cluster, client):
        for n_written in range(0, N_CHUNKS_OF_NEW + 2, 2):
            write_zarr(old, target, overwrite=True, chunk_bytes=CHUNK_BYTES)
            building = Building(build_on_cluster, target, cluster.scheduler_address)
            building.kill_when(lambda: len(list(target.parent.glob(CHUNKS))), n_written)
            found[what_is_at(target, old, new)] += 1
            # At once, while the workers may still be busy with what was given up.
            write_zarr(newer, target, overwrite=True, chunk_bytes=CHUNK_BYTES, client=client)
            assert what_is_at(target, old, newer) == "new"
            assert verify(target).is_whole
    assert set(found) <= {"old", "new"}
    assert found["old"] >= 8
    write_zarr(new, target, overwrite=True)
    assert os.listdir(target.parent) == ["d.zarr"]


# -- a bucket ---------------------------------------------------------------------------


def build_in_bucket(options: dict[str, Any], overwrite: bool, says: Connection) -> None:
    ds = mnist_samples(*OLD)
    says.send(None)
    write_zarr(ds, URL, overwrite=overwrite, chunk_bytes=8_000, storage_options=options)
    says.send(0)


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_upload_never_opens_and_is_resumed(
    s3: S3Server, overwrite: bool, quick_lease: None
) -> None:
    new, before = mnist_samples(*OLD), mnist_samples(30_000, 30_100)
    outcomes: Counter[str] = Counter()

    def n_changes() -> int:
        return sum(method in ("PUT", "POST", "DELETE") for method, _ in s3.requests)

    def build_and_kill(at_change: int | None) -> None:
        """Kill the build when it asks for this change, which does not come about."""
        s3.reset()
        if overwrite:
            write_zarr(before, URL, chunk_bytes=8_000, storage_options=s3.options)
        s3.requests.clear()
        reached, is_dead = Event(), Event()

        def hold(method: str, path: str) -> str | None:
            if at_change is None or n_changes() < at_change:
                return None
            reached.set()
            is_dead.wait(60)
            return "503"

        s3.fault = hold
        building = Building(build_in_bucket, s3.options, overwrite)
        if at_change is None:
            building.ended()
        else:
            assert reached.wait(60)
            building.kill()
        is_dead.set()
        s3.fault = lambda method, path: None

    def found() -> str:
        try:
            ds = open_plainly(s3).load()
        except FileNotFoundError:
            return "unreadable"
        return next(n for n, d in (("old", before), ("new", new)) if ds.equals(d))

    build_and_kill(None)
    for change in np.linspace(1, n_changes(), 12).astype(int).tolist():
        build_and_kill(change)
        outcome = found()
        outcomes[outcome] += 1
        there = keys_in_bucket(s3)
        s3.requests.clear()
        again = overwrite or outcome == "new"
        write_zarr(new, URL, overwrite=again, chunk_bytes=8_000, storage_options=s3.options)
        assert found() == "new"
        if outcome == "unreadable" and not overwrite:
            sent = {path.split("t.zarr/")[1] for path in s3.asked("PUT", "/c/")}
            assert not sent & there
    assert outcomes["unreadable"] >= 8
    assert outcomes["old"] == 0 or overwrite


# -- no space, no permission, no source -------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("name", ["d.zarr", "d.zarr.zip"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_raises_an_error_and_leaves_what_was_there(
    small_disk: Path, name: str, overwrite: bool
) -> None:
    old, target = mnist_samples(*OLD), small_disk / name
    if overwrite:
        write_zarr(old, target)
    before = os.listdir(small_disk)
    for order in ("source", "label"):
        with pytest.raises(StoreError, match=f"{name}: was not built: .*No space left on device"):
            build(target, order=order, overwrite=overwrite)
        assert os.listdir(small_disk) == before
    done = run_command("build", target, *["--overwrite"] * overwrite)
    assert done.exit_code == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if overwrite:
        assert what_is_at(target, old, old) == "old"
    write_zarr(mnist_samples(*NEW), target, overwrite=overwrite)  # this has room
    assert what_is_at(target, old, mnist_samples(*NEW)) == "new"


def test_exports_to_a_full_disk_raise_errors_and_leave_nothing(small_disk: Path) -> None:
    ds = open_dataset("mnist")
    (small_disk / "ballast").write_bytes(bytes((3 << 20) - 4096))
    before = os.listdir(small_disk)
    figure = one_per_class(ds).figure
    exports: dict[str, Callable[[], object]] = {
        "idx": lambda: write_idx_files(ds, small_disk / "idx"),
        "d.npz": lambda: write_npz(ds, small_disk / "d.npz"),
        "train.gz": lambda: write_idx(ds.image, small_disk / "train.gz"),
        "digits.png": lambda: save_figure(figure, small_disk / "digits.png", overwrite=False),
    }
    for name, export in exports.items():
        with pytest.raises(OutputError, match=f"{name}.*: was not written: .*No space left"):
            export()
        assert os.listdir(small_disk) == before


def test_a_read_only_file_system_raises_an_error(small_disk: Path) -> None:
    write_zarr(mnist_samples(*OLD), small_disk / "d.zarr")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for target in (small_disk / "d.zarr", small_disk / "e.zarr", small_disk / "f.zarr.zip"):
        with pytest.raises(StoreError, match=r"was not built: .*Read-only file system"):
            write_zarr(mnist_samples(*NEW), target, overwrite=True)
    assert what_is_at(small_disk / "d.zarr", mnist_samples(*OLD), mnist_samples(*NEW)) == "old"


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("what", ["vanishes", "changes"])
def test_a_source_that_is_lost_in_the_middle_raises_an_error_and_leaves_nothing(
    tmp_path: Path, ending: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / f"train-images-idx3-ubyte{ending}"
    if ending:
        shutil.copyfile(BUNDLED_FILES / source.name, source)
    else:
        write_idx(mnist_samples(0, 30_000).image, source)
    ds, other = open_idx(source), tmp_path / "other"
    other.write_bytes(b"another file")
    write, n_written = ArrayWriter.write, 0

    def write_and_lose_the_source(self: ArrayWriter, start: int, rows: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 1 and what == "vanishes":
            source.unlink()
        elif n_written == 1:
            other.replace(source)
        write(self, start, rows)

    monkeypatch.setattr(ArrayWriter, "write", write_and_lose_the_source)
    expected = SourceNotFoundError if what == "vanishes" else SourceError
    with pytest.raises(expected, match="while it was being read"):
        write_zarr(ds, tmp_path / "d.zarr")
    assert not (tmp_path / "d.zarr").exists()
    assert [name for name in os.listdir(tmp_path) if "zarr" in name] == []


# -- two builds at once -----------------------------------------------------------------


def build_if_nobody_does(
    target: Path, part: tuple[int, int], both: multiprocessing.synchronize.Barrier, says: Connection
) -> None:
    ds = mnist_samples(*part)
    says.send(None)
    both.wait(60)
    try:
        write_zarr(ds, target, overwrite=True, chunk_bytes=CHUNK_BYTES)
    except TargetBusyError:
        says.send(0)
    else:
        says.send(1)


@pytest.mark.slow
def test_when_two_builds_run_at_once_one_wins_and_the_other_raises_an_error(tmp_path: Path) -> None:
    target, parts = tmp_path / "d.zarr", (OLD, NEW)
    n_busy = 0
    for _ in range(10):
        begin = FORKS.Barrier(2)
        both = [Building(build_if_nobody_does, target, part, begin) for part in parts]
        done = [building.ended()[1] for building in both]
        assert any(done)
        n_busy += done.count(0)
        found = what_is_at(target, *(mnist_samples(*part) for part in parts))
        assert found in ("old", "new")
        assert done[("old", "new").index(found)] == 1
        assert os.listdir(tmp_path) == ["d.zarr"]
    assert n_busy > 0
