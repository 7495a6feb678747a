"""Files that appear under their name when they are complete."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mnist_zarr.errors import OutputError, TargetExistsError
from mnist_zarr.files.output import create_file, create_files
from mnist_zarr.files.sources import open_bytes


def test_a_created_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x"
    target.parent.mkdir()
    with create_file(target, overwrite=False) as file:
        file.write(b"half")
        assert not target.exists()
        file.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def fail_half_way() -> None:
        with create_file(target, overwrite=True) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_exists_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with (
        pytest.raises(TargetExistsError, match=r"x: exists already"),
        create_file(tmp_path / "x", overwrite=False),
    ):
        pytest.fail("the file was opened")


def test_a_file_is_created_behind_a_url(memory_url: str) -> None:
    with create_file(f"{memory_url}/x", overwrite=False) as file:
        file.write(b"there")
    assert open_bytes(f"{memory_url}/x").read(0, 10) == b"there"
    with pytest.raises(TargetExistsError), create_file(f"{memory_url}/x", overwrite=False):
        pytest.fail("the file was opened")


def test_a_file_that_another_makes_meanwhile_is_kept(tmp_path: Path) -> None:
    def race() -> None:
        with create_file(tmp_path / "x", overwrite=False) as file:
            file.write(b"ours")
            (tmp_path / "x").write_bytes(b"theirs")

    with pytest.raises(TargetExistsError, match="exists already"):
        race()
    assert (tmp_path / "x").read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_failure_leaves_the_old_object_behind_a_url(
    kind: str, memory_url: str, tmp_path: Path
) -> None:
    url = f"{memory_url}/x" if kind == "memory" else f"file://{tmp_path}/x"
    with create_file(url) as file:
        file.write(b"old")

    def fail_half_way() -> None:
        with create_file(url, overwrite=True) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert open_bytes(url).read(0, 10) == b"old"
    with create_file(url, overwrite=True) as file:
        file.write(b"new")
    assert open_bytes(url).read(0, 10) == b"new"


KILLED = """
import os, signal, sys
from pathlib import Path
from mnist_zarr.files.output import create_file, create_files
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
place = Path(sys.argv[1])
with create_files(place, ["a", "b"], overwrite=True) as folder:
    for name in ("a", "b"):
        (folder / name).write_bytes(b"new")
    if sys.argv[2] == "moving":
        os.link = kill
    else:
        with create_file(place / "x", overwrite=True) as file:
            file.write(b"half")
            kill()
"""


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_what_a_killed_process_left_is_put_back_or_removed_by_the_next(
    tmp_path: Path, when: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(tmp_path), when]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*"))) == (2 if when == "writing" else 1)
    (tmp_path / ".x.mine").mkdir()
    with create_file(tmp_path / "x"), create_files(tmp_path, ["c"]) as folder:
        (folder / "c").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "x", ".x.mine"}
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="shows which file is open")
@pytest.mark.parametrize("overwrite", [True, False])
def test_files_are_on_the_disk_before_they_have_their_names(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def note(module: Any, name: str, what: Any) -> None:
        original = getattr(module, name)

        def noted(*args: Any, **options: Any) -> Any:
            steps.append(what(args))
            return original(*args, **options)

        monkeypatch.setattr(module, name, noted)

    note(os, "fsync", lambda args: f"fsync {Path(os.readlink(f'/proc/self/fd/{args[0]}')).name}")
    for move in ("replace", "link"):
        note(os, move, lambda args: f"name {args[1].name}")
    with create_file(tmp_path / "x", overwrite=overwrite) as file:
        file.write(b"x")
    assert steps == ["fsync new", "name x", f"fsync {tmp_path.name}"]
    steps.clear()
    with create_files(tmp_path, ["a"], overwrite=overwrite) as folder:
        (folder / "a").write_bytes(b"a")
    assert steps == ["fsync a", "fsync new", "name a", f"fsync {tmp_path.name}"]


def test_a_missing_folder_is_named_and_no_temporary_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"x: was not written: there is no folder '.*missing'$"),
        create_file(tmp_path / "missing" / "x"),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"was not written: Not a directory$"),
        create_files(tmp_path / "file" / "deeper", ["a"]),
    ):
        pass


def test_an_error_of_the_system_does_not_name_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, create_file(tmp_path / "x") as file:
        raise OSError(errno.ENOSPC, "No space left on device", file.name)
    assert str(caught.value) == f"{tmp_path}/x: was not written: No space left on device"


def test_a_web_server_takes_no_file() -> None:
    with (
        pytest.raises(OutputError, match=r"http://host/x\.npz: a web server takes no files over"),
        create_file("http://host/x.npz"),
    ):
        pass
