"""Stores in a single file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from zarr.storage import ZipStore

from mnist_zarr.errors import StoreError, StoreNotFoundError, TargetExistsError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.marks import needs_zip_urls
from tests.support.stores import TEN_DIGITS, in_memory


def test_a_zip_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr.zip"
    write_zarr(TEN_DIGITS, target)
    assert os.listdir(tmp_path) == ["a.zarr.zip"]
    xr.testing.assert_identical(open_store(target).load(), open_store(in_memory()).load())
    plain = xr.open_zarr(ZipStore(target, mode="r"), chunks=None).load()
    np.testing.assert_array_equal(plain.image.values, TEN_DIGITS.image.values)


def test_entries_are_stored_uncompressed_and_equal_stores_give_equal_files(
    tmp_path: Path,
) -> None:
    for name in ("a.zarr.zip", "b.zarr.zip"):
        write_zarr(TEN_DIGITS, tmp_path / name)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as archive:
        entries = archive.infolist()
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    names = [entry.filename for entry in entries]
    assert len(names) == len(set(names))


def test_a_zip_file_is_replaced_as_a_whole_or_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr.zip"
    write_zarr(TEN_DIGITS, target)
    old = target.read_bytes()
    with pytest.raises(TargetExistsError):
        write_zarr(TEN_DIGITS, target)

    def build_and_fail() -> None:
        with parse_target(target).create(overwrite=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_and_fail()
    assert target.read_bytes() == old
    write_zarr(TEN_DIGITS.isel(sample=slice(5)), target, overwrite=True)
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
        write_zarr(TEN_DIGITS, target, overwrite=True)
    assert target.exists()


@needs_zip_urls
def test_a_zip_file_can_be_sent_to_a_file_system_and_read_in_place(memory_url: str) -> None:
    target = f"{memory_url}/a.zarr.zip"
    write_zarr(TEN_DIGITS, target)
    with pytest.raises(TargetExistsError):
        write_zarr(TEN_DIGITS, target)
    xr.testing.assert_identical(open_store(target).load(), open_store(in_memory()).load())
    plain = xr.open_zarr(f"zip::{target}", chunks=None).load()
    np.testing.assert_array_equal(plain.image.values, TEN_DIGITS.image.values)


def test_what_is_no_zipped_store_is_never_replaced_behind_a_url(memory_url: str) -> None:
    with fsspec.open(f"{memory_url}/thesis.zip", "wb") as file:
        file.write(b"ten years")
    with pytest.raises(StoreError, match=r"thesis\.zip: is a file, not a Zarr store"):
        write_zarr(TEN_DIGITS, f"{memory_url}/thesis.zip", overwrite=True)
    write_zarr(TEN_DIGITS, f"{memory_url}/a.zarr.zip")
    write_zarr(TEN_DIGITS.isel(sample=slice(5)), f"{memory_url}/a.zarr.zip", overwrite=True)
    assert open_store(f"{memory_url}/a.zarr.zip").sizes["sample"] == 5


def test_a_missing_zip_file_raises_a_clear_error(tmp_path: Path, memory_url: str) -> None:
    for target in (tmp_path / "a.zarr.zip", f"{memory_url}/a.zarr.zip"):
        with pytest.raises(StoreNotFoundError, match=r"a\.zarr\.zip"):
            open_store(target)


def test_a_damaged_zip_file_raises_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_text("no zip")
    with pytest.raises(StoreError, match=r"a\.zarr\.zip: cannot be opened as a zip file"):
        open_store(tmp_path / "a.zarr.zip")
