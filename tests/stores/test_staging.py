"""Stores built beside their place: nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock
from zarr.storage import LocalStore

from mnist_zarr.errors import (
    MnistZarrError,
    StoreError,
    TargetBusyError,
    TargetExistsError,
)
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
    (target / "left-over").write_text("of the old store")
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


def test_a_second_build_of_the_same_target_says_so(tmp_path: Path) -> None:
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


def test_a_lock_file_without_a_process_does_not_hinder(tmp_path: Path) -> None:
    beside = tmp_path / ".a.zarr.building"
    beside.mkdir()
    with FileLock(beside / "lock"):
        pass
    (beside / "new-1a2b3c4d").mkdir()
    (beside / "new-1a2b3c4d" / "rubbish").write_text("of a killed build")
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


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
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


def test_the_current_folder_is_not_pulled_from_under_oneself(
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


@pytest.mark.parametrize("link", [".d.zarr.building", ".d.zarr.building/new-1"])
def test_what_links_beside_the_target_lead_to_is_never_removed(tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(elsewhere)
    if "/" in link:
        write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
        assert sorted(os.listdir(tmp_path)) == ["d.zarr", "elsewhere"]
    else:
        with pytest.raises(StoreError, match="is a link; remove the link"):
            write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
    assert os.listdir(elsewhere) == ["precious"]
