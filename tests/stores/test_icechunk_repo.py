"""A build into an Icechunk repository is one commit, or none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.errors import (
    MissingExtraError,
    StoreError,
    StoreNotFoundError,
    TargetBusyError,
    TargetExistsError,
)
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.keys import copy_objects, keys_of
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import square_digits
from tests.support.object_server import BUCKET, KEYS, S3Server
from tests.support.partners import partner
from tests.support.stores import TEN_DIGITS, in_memory, put_text

icechunk = partner("icechunk")


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return f"icechunk+file://{tmp_path}/repository"


def commits(repository: str) -> list[str]:
    storage = icechunk.local_filesystem_storage(repository.removeprefix("icechunk+file://"))
    history = icechunk.Repository.open(storage).ancestry(branch="main")
    return [snapshot.message for snapshot in history]


def test_a_build_into_a_repository_is_one_commit_that_says_what(repository: str) -> None:
    ds = TEN_DIGITS.assign_attrs(title="Ten digits")
    write_zarr(ds, repository)
    xr.testing.assert_identical(open_store(repository).load(), open_store(in_memory(ds)).load())
    message, initial = commits(repository)
    assert message.startswith("Ten digits; mnist-zarr 0")
    assert "image (10, 4, 3)" in message
    assert "nitialized" in initial


def test_a_repository_is_replaced_by_a_second_commit_when_asked(repository: str) -> None:
    write_zarr(TEN_DIGITS, repository)
    with pytest.raises(TargetExistsError):
        write_zarr(TEN_DIGITS, repository)
    write_zarr(TEN_DIGITS.isel(sample=slice(5)), repository, overwrite=True)
    assert open_store(repository).sizes["sample"] == 5
    assert len(commits(repository)) == 3


KILLED_COMMIT = """
import os, signal, sys
from mnist_zarr.stores import icechunk_repo, targets
from mnist_zarr import open_dataset
from mnist_zarr import write_zarr
icechunk_repo._commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_zarr(open_dataset("mnist").isel(sample=slice(100)), sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("way", ["killed", "failed"])
def test_a_killed_or_failed_build_leaves_the_last_commit(repository: str, way: str) -> None:
    write_zarr(TEN_DIGITS, repository)
    if way == "killed":
        command = [sys.executable, "-c", KILLED_COMMIT, repository]
        assert subprocess.run(command, check=False, timeout=120).returncode == -9
    else:
        with (
            pytest.raises(KeyError, match="half"),
            parse_target(repository).create(overwrite=True) as store,
        ):
            put_text(store, {"half": "of it"}["half written"], "")
    assert len(commits(repository)) == 2
    xr.testing.assert_identical(open_store(repository).load(), open_store(in_memory()).load())
    write_zarr(TEN_DIGITS.isel(sample=slice(5)), repository, overwrite=True)
    assert open_store(repository).sizes["sample"] == 5


def test_a_kill_while_a_repository_was_made_says_what_to_remove(
    repository: str, tmp_path: Path
) -> None:
    place = tmp_path / "repository"
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(place)))
    if not (place / "refs").exists():
        pytest.skip("Icechunk 2 makes a repository in one step")
    shutil.rmtree(place / "refs")
    with pytest.raises(StoreError, match=r"if (.*) is all that is there.*: remove it") as caught:
        write_zarr(TEN_DIGITS, repository)
    (left,) = (path for path in place.rglob("*") if path.is_file())
    assert f"if {left.relative_to(place).as_posix()} is all" in str(caught.value)
    left.unlink()
    write_zarr(TEN_DIGITS, repository)
    assert open_store(repository).sizes["sample"] == 10


def test_the_second_of_two_builds_into_a_repository_is_not_committed(
    repository: str,
) -> None:
    source = in_memory()

    def build_during_another_build() -> None:
        with parse_target(repository).create(overwrite=True) as store:
            copy_objects(source, store, keys_of(source))
            write_zarr(TEN_DIGITS.isel(sample=slice(5)), repository, overwrite=True)

    write_zarr(TEN_DIGITS, repository)
    with pytest.raises(TargetBusyError, match=r"somebody else has committed.*; run it again"):
        build_during_another_build()
    assert open_store(repository).sizes["sample"] == 5
    assert len(commits(repository)) == 3


def test_what_icechunk_cannot_hold_or_find_raises_a_clear_error(repository: str) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no Icechunk repository"):
        open_store(repository)
    with pytest.raises(StoreError, match="Zarr format 3 only"):
        write_zarr(TEN_DIGITS, repository, zarr_format=2)
    for url in ("icechunk+ftp://somewhere", "icechunk+file://relative/path"):
        with pytest.raises(StoreError, match=r"expected icechunk\+file:///path or icechunk\+s3"):
            open_store(url)
    with pytest.raises(StoreError, match="unexpected keyword argument 'anon'"):
        write_zarr(TEN_DIGITS, repository, storage_options={"anon": True})


def test_a_missing_icechunk_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[icechunk\]'"):
        write_zarr(TEN_DIGITS, "icechunk+file:///nowhere")


def icechunk_options(s3: S3Server, key: str = KEYS["key"]) -> dict[str, Any]:
    return {
        "access_key_id": key,
        "secret_access_key": KEYS["secret"],
        "endpoint_url": s3.address,
        "region": "us-east-1",
        "allow_http": True,
        "force_path_style": True,
    }


REPOSITORY = f"icechunk+s3://{BUCKET}/repository"


def test_a_build_into_a_repository_in_a_bucket_is_seen_when_it_is_committed(s3: S3Server) -> None:
    options = icechunk_options(s3)
    for ds, overwrite in ((square_digits(), False), (square_digits(seed=1), True)):
        write_zarr(ds, REPOSITORY, storage_options=options, overwrite=overwrite)
        back = mnist_zarr.open_store(REPOSITORY, storage_options=options).load()
        xr.testing.assert_equal(back, ds)


def test_a_failed_commit_leaves_the_last_one(s3: S3Server) -> None:
    options = icechunk_options(s3)
    write_zarr(square_digits(), REPOSITORY, storage_options=options)
    s3.fault = lambda method, path: (
        "403" if method == "PUT" and len(s3.asked("PUT", "/chunks/")) > 30 else None
    )
    with pytest.raises(StoreError, match=r"^icechunk\+s3://bucket/repository"):
        write_zarr(
            square_digits(4000, seed=1),
            REPOSITORY,
            chunk_bytes=1600,
            storage_options=options,
            overwrite=True,
        )
    s3.fault = lambda method, path: None
    back = mnist_zarr.open_store(REPOSITORY, storage_options=options).load()
    xr.testing.assert_equal(back, square_digits())


def test_an_unreachable_repository_is_reported_in_one_sentence(s3: S3Server) -> None:
    with pytest.raises(StoreError, match=r"^icechunk\+s3://bucket/repository: Icechunk says: .+$"):
        write_zarr(square_digits(), REPOSITORY, storage_options=icechunk_options(s3, key="wrong"))
