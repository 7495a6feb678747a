"""Private folders: gone afterwards, and gone with the next one where a process was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_zarr.files import scratch
from mnist_zarr.files.scratch import scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from mnist_zarr.files.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), ".x-") as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_it_holds_one(folder: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert (left / "half").exists()
    return left


def test_a_folder_is_gone_at_the_end_whatever_happens(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch_folder(tmp_path, ".x-") as folder:
            (folder / "deep").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_offered_and_then_removed(tmp_path: Path) -> None:
    left = kill_while_it_holds_one(tmp_path)
    offered: list[Path] = []
    with scratch_folder(tmp_path, ".x-", offered.append) as folder:
        assert offered == [left]
        assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, ".x-") as one, scratch_folder(tmp_path, ".x-") as other:
        assert sorted(tmp_path.iterdir()) == sorted([one, other])


def test_folders_of_another_prefix_are_left_alone(tmp_path: Path) -> None:
    left = kill_while_it_holds_one(tmp_path)
    with scratch_folder(tmp_path, ".y-"):
        assert left.exists()


def test_a_folder_whose_owner_has_not_locked_it_yet_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".x-new").mkdir()
    (tmp_path / ".x-old").mkdir()
    os.utime(tmp_path / ".x-old", (0, 0))
    with scratch_folder(tmp_path, ".x-"):
        assert (tmp_path / ".x-new").exists()
        assert not (tmp_path / ".x-old").exists()


@pytest.mark.parametrize("call", ["is_own", "FileLock"])
def test_a_folder_that_its_owner_removes_at_this_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kill_while_it_holds_one(tmp_path)
    usual = getattr(scratch, call)

    def remove_first(path: Path, *args: object, **options: object) -> object:
        monkeypatch.setattr(scratch, call, usual)
        for left in tmp_path.iterdir():
            shutil.rmtree(left)
        return usual(path, *args, **options)

    monkeypatch.setattr(scratch, call, remove_first)
    with scratch_folder(tmp_path, ".x-") as folder:
        assert list(tmp_path.iterdir()) == [folder]
