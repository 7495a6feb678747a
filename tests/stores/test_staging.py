"""Stores built beside their place: nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from mnist_zarr.errors import MnistZarrError, StoreError, TargetBusyError, TargetExistsError
from mnist_zarr.files.scratch import is_own
from mnist_zarr.stores import staging
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.marks import needs_root
from tests.support.stores import make_text_store, put_text


def test_a_new_store_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "new.zarr"
    with parse_target(target).create() as store:
        put_text(store, "zarr.json", "new")
        assert not target.exists()
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(target.parent) == ["new.zarr"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_leaves_the_old_store_and_no_rubbish(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = make_text_store(tmp_path / "a.zarr")

    def build_and_fail() -> None:
        with parse_target(target).create(overwrite=True) as store:
            put_text(store, "zarr.json", "new")
            raise error

    with pytest.raises(error):
        build_and_fail()
    assert (target / "zarr.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.zarr"]


KILLED_BUILD = """
import os, signal, sys
from mnist_zarr.stores import local, targets
if sys.argv[2] == "between":
    local._exchange_at_once = lambda one, other: False
    rename = local.Path.rename
    def rename_once(self, other):
        rename(self, other)
        os.kill(os.getpid(), signal.SIGKILL)
    local.Path.rename = rename_once
with targets.parse_target(sys.argv[1]).create(overwrite=True) as store:
    open(os.path.join(str(store.root), "zarr.json"), "w").write("half")
    if sys.argv[2] == "during":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["during", "between"])
def test_the_next_build_succeeds_after_a_killed_one(tmp_path: Path, moment: str) -> None:
    target = make_text_store(tmp_path / "a.zarr")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BUILD, str(target), moment], check=False, timeout=60
    )
    assert killed.returncode == -9
    if moment == "during":
        assert (target / "zarr.json").read_text() == "old"
    # Without overwrite=True the old store is found again, wherever the kill left it.
    with pytest.raises(TargetExistsError), parse_target(target).create():
        pass
    assert (target / "zarr.json").read_text() == "old"
    with parse_target(target).create(overwrite=True) as store:
        put_text(store, "zarr.json", "new")
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_second_build_of_the_same_target_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    with parse_target(target).create() as store:
        put_text(store, "zarr.json", "first")
        with (
            pytest.raises(TargetBusyError, match="another build of this target is under way"),
            parse_target(target).create(),
        ):
            pass
    assert (target / "zarr.json").read_text() == "first"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_lock_that_another_build_releases_at_this_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".a.zarr.lock").touch()

    def release_first(path: Path, has_kind: Callable[[int], bool]) -> bool:
        monkeypatch.undo()
        path.unlink()
        return is_own(path, has_kind)

    monkeypatch.setattr(staging, "is_own", release_first)
    with parse_target(tmp_path / "a.zarr").create() as store:
        put_text(store, "zarr.json", "new")
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    scratch = tmp_path / ".a.zarr.building-1a2b3c"
    (scratch / "new").mkdir(parents=True)
    (scratch / "new" / "rubbish").write_text("of a killed build")
    for lock in (tmp_path / ".a.zarr.lock", scratch / "lock"):
        lock.touch()
    with parse_target(tmp_path / "a.zarr").create() as store:
        put_text(store, "zarr.json", "new")
    assert os.listdir(tmp_path / "a.zarr") == ["zarr.json"]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_what_a_dying_worker_left_half_written_is_removed(tmp_path: Path) -> None:
    with parse_target(tmp_path / "a.zarr").create() as store:
        put_text(store, "zarr.json", "new")
        assert isinstance(store, LocalStore)
        (Path(store.root) / "c").mkdir()
        (Path(store.root) / "c" / "0.1234.partial").write_text("half")
    assert list((tmp_path / "a.zarr" / "c").iterdir()) == []


def test_a_place_that_cannot_be_written_raises_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(StoreError, match="was not built"),
        parse_target(tmp_path / "file" / "a.zarr").create(),
    ):
        pass


@pytest.mark.parametrize("target", ["/", "\0.zarr", ""])
def test_what_is_no_name_for_a_store_is_refused(target: str) -> None:
    with pytest.raises(MnistZarrError, match="is no name for a store"):
        write_zarr(digits(40, seed=1), target)


def test_folders_that_a_failed_build_made_are_removed_again(tmp_path: Path) -> None:
    broken = digits(40, seed=1).assign(time=("sample", np.zeros(40, "datetime64[s]")))
    with pytest.raises(MnistZarrError, match="expected numbers, booleans or strings"):
        write_zarr(broken, tmp_path / "a" / "b" / "d.zarr")
    assert os.listdir(tmp_path) == []


def test_what_links_beside_the_target_lead_to_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("ten years")
    (tmp_path / ".d.zarr.building-1a2b3c").symlink_to(elsewhere)
    write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
    (tmp_path / ".d.zarr.lock").symlink_to(elsewhere / "precious")
    with pytest.raises(StoreError, match=r"\.d\.zarr\.lock is a link or belongs to somebody else"):
        write_zarr(digits(40, seed=1), tmp_path / "d.zarr", overwrite=True)
    assert (elsewhere / "precious").read_text() == "ten years"


@needs_root
def test_what_another_user_planted_is_neither_used_nor_removed(tmp_path: Path) -> None:
    planted = tmp_path / ".d.zarr.building-1a2b3c"
    (planted / "new").mkdir(parents=True)
    (planted / "lock").touch()
    os.chown(planted, 12345, 12345)
    write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
    assert (tmp_path / "d.zarr").stat().st_uid == 0
    assert planted.exists()
    (tmp_path / ".d.zarr.lock").touch()
    os.chown(tmp_path / ".d.zarr.lock", 12345, 12345)
    with pytest.raises(StoreError, match="belongs to somebody else; remove it"):
        write_zarr(digits(40, seed=1), tmp_path / "d.zarr", overwrite=True)


def test_nobody_else_can_look_into_a_store_in_the_making(tmp_path: Path) -> None:
    with parse_target(tmp_path / "a.zarr").create() as store:
        put_text(store, "zarr.json", "new")
        assert isinstance(store, LocalStore)
        assert stat.S_IMODE(Path(store.root).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a.zarr").stat().st_mode) & 0o700 == 0o700


REPLACING = """
import sys
from mnist_zarr import write_zarr
from tests.support.digits import digits
write_zarr(digits(50, seed=2), sys.argv[1], overwrite=True)
"""
SYSTEM_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) = 0$")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["d.zarr", "d.zarr.zip"])
def test_all_is_on_the_disk_before_a_name_changes_and_the_old_store_goes_last(
    tmp_path: Path, name: str
) -> None:
    write_zarr(digits(40, seed=1), tmp_path / name)
    log = tmp_path / "calls"
    calls = "trace=fsync,rename,renameat2,unlinkat"
    command = [sys.executable, "-c", REPLACING, str(tmp_path / name)]
    # -y shows the path of each open file; --seccomp-bpf would need a newer strace.
    tracing = ["strace", "-f", "-y", "-e", calls, "-o", str(log)]
    subprocess.run([*tracing, *command], check=True, timeout=120, cwd=Path.cwd())
    steps = [(match[1], match[2]) for line in joined(log) if (match := SYSTEM_CALL.match(line))]
    moves = [
        number
        for number, (call, where) in enumerate(steps)
        if call.startswith("rename") and f'/{name}"' in where and ".partial" not in where
    ]
    assert len(moves) == 1
    flushed = [where for call, where in steps[: moves[0]] if call == "fsync"]
    if name.endswith(".zip"):
        assert any(".building-" in where and where.endswith("new.zip>") for where in flushed)
    else:
        present = {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")}
        synced = {where.partition("/new/")[2].rstrip(">") for where in flushed if "/new/" in where}
        assert {str(path) for path in present} <= synced
    after = steps[moves[0] + 1 :]
    assert after[0][0] == "fsync"
    assert after[0][1].endswith(f"<{tmp_path}>")
    removals = [n for n, (call, _) in enumerate(steps) if call == "unlinkat"]
    assert all(n > moves[0] for n in removals if "zarr.json" in steps[n][1])


def joined(log: Path) -> list[str]:
    """Return the calls of a log, those that were interrupted by another thread in one line."""
    waiting: dict[str, str] = {}
    calls = []
    for line in log.read_text().splitlines():
        pid = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            waiting[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif "resumed>" in line:
            calls.append(waiting.pop(pid) + line.partition("resumed>")[2])
        else:
            calls.append(line)
    return [re.sub(r"\)\s+= ", ") = ", call) for call in calls]
