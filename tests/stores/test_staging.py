"""Stores built beside their place: nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

from mnist_zarr.errors import (
    MnistZarrError,
    StoreError,
    TargetBusyError,
    TargetExistsError,
)
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores import local
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.stores import put_text


def make_store(place: Path, text: str = "old") -> Path:
    place.mkdir()
    (place / "zarr.json").write_text(text)
    return place


@pytest.fixture(params=["in one step", "in two steps"])
def way_of_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in two steps":
        monkeypatch.setattr(local, "_exchange_at_once", lambda one, other: False)
    return str(request.param)


def test_a_new_store_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "new.zarr"
    with parse_target(target).create() as store:
        put_text(store, "zarr.json", "new")
        assert not target.exists()
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(target.parent) == ["new.zarr"]


@pytest.mark.usefixtures("way_of_exchange")
def test_overwriting_replaces_the_whole_store(tmp_path: Path) -> None:
    target = make_store(tmp_path / "a.zarr")
    (target / "image/c").mkdir(parents=True)
    (target / "image/zarr.json").write_text("of the old store")
    (target / "image/c/0").write_text("of the old store")
    with parse_target(target).create(overwrite=True) as store:
        put_text(store, "zarr.json", "new")
        assert (target / "zarr.json").read_text() == "old"
    assert os.listdir(target) == ["zarr.json"]
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_leaves_the_old_store_and_no_rubbish(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = make_store(tmp_path / "a.zarr")

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
    target = make_store(tmp_path / "a.zarr")
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


def test_an_existing_target_is_refused_unless_overwriting(tmp_path: Path) -> None:
    target = make_store(tmp_path / "a.zarr")
    with (
        pytest.raises(TargetExistsError, match="exists already; choose another name"),
        parse_target(target).create(),
    ):
        pass
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("ten years")
    with (
        pytest.raises(StoreError, match="is a folder but not a Zarr store"),
        parse_target(precious).create(overwrite=True),
    ):
        pass
    (tmp_path / "file").write_text("text")
    with (
        pytest.raises(StoreError, match="is a file, not a Zarr store"),
        parse_target(tmp_path / "file").create(overwrite=True),
    ):
        pass
    assert (precious / "chapter.txt").read_text() == "ten years"


def test_a_link_to_a_store_stays_a_link(tmp_path: Path) -> None:
    place = make_store(tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(place)
    with parse_target(tmp_path / "link.zarr").create(overwrite=True) as store:
        put_text(store, "zarr.json", "new")
    assert (tmp_path / "link.zarr").is_symlink()
    assert (place / "zarr.json").read_text() == "new"


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


def test_the_current_folder_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
    for here in (tmp_path / "d.zarr", tmp_path / "d.zarr" / "image"):
        monkeypatch.chdir(here)
        with pytest.raises(StoreError, match="is the folder that you are in"):
            write_zarr(digits(50, seed=2), tmp_path / "d.zarr", overwrite=True)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "d.zarr"), digits(40, seed=1))


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


needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)


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


@pytest.mark.parametrize("name", ["d.zarr", "d.zarr.zip"])
def test_a_replaced_store_has_the_permissions_of_the_old_one(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    write_zarr(digits(40, seed=1), target)
    files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
    for path in files:
        path.chmod(0o640)
    if target.is_dir():
        target.chmod(0o750)
    write_zarr(digits(50, seed=2), target, overwrite=True)
    assert stat.S_IMODE(target.stat().st_mode) == (0o750 if target.is_dir() else 0o640)
    inside = [p for p in target.rglob("*") if p.is_file()]
    assert {stat.S_IMODE(p.stat().st_mode) for p in inside} <= {0o640}


def test_a_folder_with_files_that_are_not_of_the_store_is_not_replaced(tmp_path: Path) -> None:
    place = make_store(tmp_path / "a.zarr", text="{}")
    (place / "thesis.tex").write_text("ten years")
    with (
        pytest.raises(StoreError, match=r"1 files that are not part .* such as 'thesis\.tex'"),
        parse_target(place).create(overwrite=True),
    ):
        pass
    assert (place / "thesis.tex").read_text() == "ten years"


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


@needs_root
def test_a_store_in_a_lower_layer_of_an_overlay_is_replaced(tmp_path: Path) -> None:
    layers = {name: tmp_path / name for name in ("lower", "upper", "work", "merged")}
    for layer in layers.values():
        layer.mkdir()
    write_zarr(digits(40, seed=1), layers["lower"] / "d.zarr")
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**layers)
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(layers["merged"])]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this system mounts no overlay file system")
    try:
        target = layers["merged"] / "d.zarr"
        write_zarr(digits(50, seed=2), target, overwrite=True, chunk_bytes=100)
        xr.testing.assert_equal(xr.open_zarr(target).load(), digits(50, seed=2))
        assert verify(target).is_whole
        assert os.listdir(layers["merged"]) == ["d.zarr"]
    finally:
        subprocess.run(["umount", str(layers["merged"])], check=True)
