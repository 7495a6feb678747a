"""Where stores live: nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from mnist_zarr import storage
from mnist_zarr.errors import StoreError, TargetBusyError, TargetExistsError
from mnist_zarr.storage import create_store


def put(store: Any, key: str, text: str) -> None:
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(text.encode())))


def make_store(place: Path, text: str = "old") -> Path:
    place.mkdir()
    (place / "zarr.json").write_text(text)
    return place


@pytest.fixture(params=["in one step", "in two steps"])
def way_of_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in two steps":
        monkeypatch.setattr(storage, "_exchange_at_once", lambda one, other: False)
    return str(request.param)


def test_a_new_store_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "new.zarr"
    with create_store(target) as store:
        put(store, "zarr.json", "new")
        assert not target.exists()
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(target.parent) == ["new.zarr"]


@pytest.mark.usefixtures("way_of_exchange")
def test_overwriting_replaces_the_whole_store(tmp_path: Path) -> None:
    target = make_store(tmp_path / "a.zarr")
    (target / "left-over").write_text("of the old store")
    with create_store(target, overwrite=True) as store:
        put(store, "zarr.json", "new")
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
        with create_store(target, overwrite=True) as store:
            put(store, "zarr.json", "new")
            raise error

    with pytest.raises(error):
        build_and_fail()
    assert (target / "zarr.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.zarr"]


KILLED_BUILD = """
import os, signal, sys
from mnist_zarr import storage
if sys.argv[2] == "between":
    storage._exchange_at_once = lambda one, other: False
    rename, count = storage.Path.rename, []
    def rename_once(self, other):
        rename(self, other)
        os.kill(os.getpid(), signal.SIGKILL)
    storage.Path.rename = rename_once
with storage.create_store(sys.argv[1], overwrite=True) as store:
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
    with pytest.raises(TargetExistsError), create_store(target):
        pass
    assert (target / "zarr.json").read_text() == "old"
    with create_store(target, overwrite=True) as store:
        put(store, "zarr.json", "new")
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_second_build_of_the_same_target_says_so(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    with create_store(target) as store:
        put(store, "zarr.json", "first")
        with (
            pytest.raises(TargetBusyError, match="another build of this target is under way"),
            create_store(target),
        ):
            pass
    assert (target / "zarr.json").read_text() == "first"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_lock_file_without_a_process_does_not_hinder(tmp_path: Path) -> None:
    workshop = tmp_path / ".a.zarr.building"
    workshop.mkdir()
    with FileLock(workshop / "lock"):
        pass
    (workshop / "store").mkdir()
    (workshop / "store" / "rubbish").write_text("of a killed build")
    with create_store(tmp_path / "a.zarr") as store:
        put(store, "zarr.json", "new")
    assert os.listdir(tmp_path / "a.zarr") == ["zarr.json"]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_an_existing_target_is_refused_unless_overwriting(tmp_path: Path) -> None:
    target = make_store(tmp_path / "a.zarr")
    with (
        pytest.raises(TargetExistsError, match="exists already; choose another name"),
        create_store(target),
    ):
        pass
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("ten years")
    with (
        pytest.raises(StoreError, match="is a folder but not a Zarr store"),
        create_store(precious, overwrite=True),
    ):
        pass
    (tmp_path / "file").write_text("text")
    with (
        pytest.raises(StoreError, match="is a file, not a Zarr store"),
        create_store(tmp_path / "file", overwrite=True),
    ):
        pass
    assert (precious / "chapter.txt").read_text() == "ten years"


def test_a_link_to_a_store_stays_a_link(tmp_path: Path) -> None:
    place = make_store(tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(place)
    with create_store(tmp_path / "link.zarr", overwrite=True) as store:
        put(store, "zarr.json", "new")
    assert (tmp_path / "link.zarr").is_symlink()
    assert (place / "zarr.json").read_text() == "new"


def test_what_a_dying_worker_left_half_written_is_removed(tmp_path: Path) -> None:
    with create_store(tmp_path / "a.zarr") as store:
        put(store, "zarr.json", "new")
        assert isinstance(store, LocalStore)
        (Path(store.root) / "c").mkdir()
        (Path(store.root) / "c" / "0.1234.partial").write_text("half")
    assert list((tmp_path / "a.zarr" / "c").iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(StoreError, match="cannot be written"),
        create_store(tmp_path / "file" / "a.zarr"),
    ):
        pass


@pytest.mark.parametrize("target", ["object", "url"])
def test_a_store_that_cannot_be_renamed_is_emptied_metadata_first(target: str) -> None:
    place: Any = MemoryStore() if target == "object" else "memory://storage-test.zarr"
    with create_store(place) as store:
        put(store, "c/0", "chunk")
        put(store, "zarr.json", "old")
    with pytest.raises(TargetExistsError), create_store(place):
        pass
    with create_store(place, overwrite=True) as store:
        assert sync(store.is_empty(""))
