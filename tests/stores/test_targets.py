"""Where stores live: nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import icechunk
import numpy as np
import pytest
import xarray as xr
from filelock import FileLock
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, ZipStore

from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import (
    MissingExtraError,
    OptionError,
    StoreError,
    StoreNotFoundError,
    TargetBusyError,
    TargetExistsError,
)
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores import local
from mnist_zarr.stores.keys import copy_objects, keys_of, sync
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.versions import needs_zip_urls

DS = make_dataset(np.arange(90, dtype=np.uint8).reshape(10, 3, 3), label=np.arange(10))


def in_memory(ds: xr.Dataset = DS) -> MemoryStore:
    store = MemoryStore()
    write_zarr(ds, store)
    return store


def put(store: Any, key: str, text: str) -> None:
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(text.encode())))


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
        put(store, "zarr.json", "new")
        assert not target.exists()
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(target.parent) == ["new.zarr"]


@pytest.mark.usefixtures("way_of_exchange")
def test_overwriting_replaces_the_whole_store(tmp_path: Path) -> None:
    target = make_store(tmp_path / "a.zarr")
    (target / "left-over").write_text("of the old store")
    with parse_target(target).create(overwrite=True) as store:
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
        with parse_target(target).create(overwrite=True) as store:
            put(store, "zarr.json", "new")
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
        put(store, "zarr.json", "new")
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_second_build_of_the_same_target_says_so(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    with parse_target(target).create() as store:
        put(store, "zarr.json", "first")
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
        put(store, "zarr.json", "new")
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
        put(store, "zarr.json", "new")
    assert (tmp_path / "link.zarr").is_symlink()
    assert (place / "zarr.json").read_text() == "new"


def test_what_a_dying_worker_left_half_written_is_removed(tmp_path: Path) -> None:
    with parse_target(tmp_path / "a.zarr").create() as store:
        put(store, "zarr.json", "new")
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


@pytest.mark.parametrize("target", ["object", "url"])
def test_a_store_that_cannot_be_renamed_has_no_metadata_before_it_is_complete(target: str) -> None:
    place: Any = MemoryStore() if target == "object" else "memory://storage-test.zarr"
    source = in_memory()
    for overwrite in (False, True):
        with parse_target(place).create(overwrite=overwrite) as store:
            copy_objects(source, store, keys_of(source))
            with pytest.raises(StoreError):
                open_store(place)
        xr.testing.assert_identical(open_store(place).load(), open_store(source).load())
    with pytest.raises(TargetExistsError), parse_target(place).create():
        pass


def test_a_file_url_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    with parse_target(f"file://{tmp_path}/a.zarr").create() as store:
        put(store, "zarr.json", "new")
        assert os.listdir(tmp_path) == [".a.zarr.building"]
    assert (tmp_path / "a.zarr" / "zarr.json").read_text() == "new"


def test_options_for_what_takes_none_are_an_error(tmp_path: Path) -> None:
    for target in (tmp_path / "bucket" / "a.zarr", MemoryStore()):
        for action in (lambda **options: write_zarr(DS, **options), open_store):
            with pytest.raises(OptionError, match="takes no storage_options, got anon, endpoint"):
                action(target=target, storage_options={"anon": True, "endpoint_url": "x"})
    assert os.listdir(tmp_path) == []


# A single file


def test_a_zip_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr.zip"
    write_zarr(DS, target)
    assert os.listdir(tmp_path) == ["a.zarr.zip"]
    xr.testing.assert_identical(open_store(target).load(), open_store(in_memory()).load())
    plain = xr.open_zarr(ZipStore(target, mode="r"), chunks=None).load()
    np.testing.assert_array_equal(plain.image.values, DS.image.values)


def test_entries_of_a_zip_file_are_as_they_are_and_equal_stores_give_equal_files(
    tmp_path: Path,
) -> None:
    for name in ("a.zarr.zip", "b.zarr.zip"):
        write_zarr(DS, tmp_path / name)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as archive:
        entries = archive.infolist()
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    names = [entry.filename for entry in entries]
    assert len(names) == len(set(names))


def test_a_zip_file_is_replaced_as_a_whole_or_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr.zip"
    write_zarr(DS, target)
    old = target.read_bytes()
    with pytest.raises(TargetExistsError):
        write_zarr(DS, target)

    def build_and_fail() -> None:
        with parse_target(target).create(overwrite=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_and_fail()
    assert target.read_bytes() == old
    write_zarr(DS.isel(sample=slice(5)), target, overwrite=True)
    assert open_store(target).sizes["sample"] == 5
    assert os.listdir(tmp_path) == ["a.zarr.zip"]


@pytest.mark.parametrize("kind", ["text", "zip of something else", "folder"])
def test_what_is_no_zipped_store_is_never_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "thesis.zip"
    if kind == "folder":
        target.mkdir()
    elif kind == "text":
        target.write_text("ten years")
    else:
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("chapter.txt", "ten years")
    with pytest.raises(StoreError, match=r"is a (file|folder), not a Zarr store"):
        write_zarr(DS, target, overwrite=True)
    assert target.exists()


@needs_zip_urls
def test_a_zip_file_can_be_sent_to_a_file_system_and_read_in_place(memory_url: str) -> None:
    target = f"{memory_url}/a.zarr.zip"
    write_zarr(DS, target)
    with pytest.raises(TargetExistsError):
        write_zarr(DS, target)
    xr.testing.assert_identical(open_store(target).load(), open_store(in_memory()).load())
    plain = xr.open_zarr(f"zip::{target}", chunks=None).load()
    np.testing.assert_array_equal(plain.image.values, DS.image.values)


def test_what_is_no_zipped_store_is_never_replaced_behind_a_url(memory_url: str) -> None:
    with fsspec.open(f"{memory_url}/thesis.zip", "wb") as file:
        file.write(b"ten years")
    with pytest.raises(StoreError, match=r"thesis\.zip: is a file, not a Zarr store"):
        write_zarr(DS, f"{memory_url}/thesis.zip", overwrite=True)
    write_zarr(DS, f"{memory_url}/a.zarr.zip")
    write_zarr(DS.isel(sample=slice(5)), f"{memory_url}/a.zarr.zip", overwrite=True)
    assert open_store(f"{memory_url}/a.zarr.zip").sizes["sample"] == 5


def test_a_missing_zip_file_is_a_clear_error(tmp_path: Path, memory_url: str) -> None:
    for target in (tmp_path / "a.zarr.zip", f"{memory_url}/a.zarr.zip"):
        with pytest.raises(StoreNotFoundError, match=r"a\.zarr\.zip"):
            open_store(target)


def test_a_damaged_zip_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_text("no zip")
    with pytest.raises(StoreError, match=r"a\.zarr\.zip: cannot be opened as a zip file"):
        open_store(tmp_path / "a.zarr.zip")


# Icechunk


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return f"icechunk+file://{tmp_path}/repository"


def commits(repository: str) -> list[str]:
    storage = icechunk.local_filesystem_storage(repository.removeprefix("icechunk+file://"))
    history = icechunk.Repository.open(storage).ancestry(branch="main")
    return [snapshot.message for snapshot in history]


def test_a_build_into_a_repository_is_one_commit_that_says_what(repository: str) -> None:
    ds = DS.assign_attrs(title="Ten digits")
    write_zarr(ds, repository)
    xr.testing.assert_identical(open_store(repository).load(), open_store(in_memory(ds)).load())
    message, initial = commits(repository)
    assert message.startswith("Ten digits; mnist-zarr 0")
    assert "image (10, 3, 3)" in message
    assert "nitialized" in initial


def test_a_repository_is_replaced_by_a_second_commit_when_asked(repository: str) -> None:
    write_zarr(DS, repository)
    with pytest.raises(TargetExistsError):
        write_zarr(DS, repository)
    write_zarr(DS.isel(sample=slice(5)), repository, overwrite=True)
    assert open_store(repository).sizes["sample"] == 5
    assert len(commits(repository)) == 3


KILLED_COMMIT = """
import os, signal, sys
from mnist_zarr.stores import icechunk_repo, targets
from mnist_zarr import open_dataset
from mnist_zarr import write_zarr
icechunk_repo.Transaction.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_zarr(open_dataset("mnist").isel(sample=slice(100)), sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("way", ["killed", "failed"])
def test_a_killed_or_failed_build_leaves_the_last_commit(repository: str, way: str) -> None:
    write_zarr(DS, repository)
    if way == "killed":
        command = [sys.executable, "-c", KILLED_COMMIT, repository]
        assert subprocess.run(command, check=False, timeout=120).returncode == -9
    else:
        with (
            pytest.raises(KeyError, match="half"),
            parse_target(repository).create(overwrite=True) as store,
        ):
            put(store, {"half": "of it"}["half written"], "")
    assert len(commits(repository)) == 2
    xr.testing.assert_identical(open_store(repository).load(), open_store(in_memory()).load())
    write_zarr(DS.isel(sample=slice(5)), repository, overwrite=True)
    assert open_store(repository).sizes["sample"] == 5


def test_of_two_builds_into_a_repository_one_is_committed_and_the_other_says_so(
    repository: str,
) -> None:
    source = in_memory()

    def build_during_another_build() -> None:
        with parse_target(repository).create(overwrite=True) as store:
            copy_objects(source, store, keys_of(source))
            write_zarr(DS.isel(sample=slice(5)), repository, overwrite=True)

    write_zarr(DS, repository)
    with pytest.raises(TargetBusyError, match=r"somebody else has committed.*; run it again"):
        build_during_another_build()
    assert open_store(repository).sizes["sample"] == 5
    assert len(commits(repository)) == 3


def test_what_icechunk_cannot_hold_or_find_is_a_clear_error(repository: str) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no Icechunk repository"):
        open_store(repository)
    with pytest.raises(StoreError, match="Zarr format 3 only"):
        write_zarr(DS, repository, zarr_format=2)
    for url in ("icechunk+ftp://somewhere", "icechunk+file://relative/path"):
        with pytest.raises(StoreError, match=r"expected icechunk\+file:///path or icechunk\+s3"):
            open_store(url)
    with pytest.raises(StoreError, match="unexpected keyword argument 'anon'"):
        write_zarr(DS, repository, storage_options={"anon": True})


def test_a_missing_icechunk_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[icechunk\]'"):
        write_zarr(DS, "icechunk+file:///nowhere")
