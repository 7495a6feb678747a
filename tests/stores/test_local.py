"""Stores in a folder: replaced as a whole, with the permissions that they had."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
import xarray as xr

from mnist_zarr.errors import StoreError, TargetExistsError
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores import local
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.marks import needs_root
from tests.support.stores import make_text_store, put_text


@pytest.fixture(params=["in one step", "in two steps"])
def way_of_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in two steps":
        monkeypatch.setattr(local, "_exchange_at_once", lambda one, other: False)
    return str(request.param)


@pytest.mark.usefixtures("way_of_exchange")
def test_overwriting_replaces_the_whole_store(tmp_path: Path) -> None:
    target = make_text_store(tmp_path / "a.zarr")
    (target / "image/c").mkdir(parents=True)
    (target / "image/zarr.json").write_text("of the old store")
    (target / "image/c/0").write_text("of the old store")
    with parse_target(target).create(overwrite=True) as store:
        put_text(store, "zarr.json", "new")
        assert (target / "zarr.json").read_text() == "old"
    assert os.listdir(target) == ["zarr.json"]
    assert (target / "zarr.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_an_existing_target_is_refused_unless_overwriting(tmp_path: Path) -> None:
    target = make_text_store(tmp_path / "a.zarr")
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
    place = make_text_store(tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(place)
    with parse_target(tmp_path / "link.zarr").create(overwrite=True) as store:
        put_text(store, "zarr.json", "new")
    assert (tmp_path / "link.zarr").is_symlink()
    assert (place / "zarr.json").read_text() == "new"


def test_the_current_folder_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(digits(40, seed=1), tmp_path / "d.zarr")
    for here in (tmp_path / "d.zarr", tmp_path / "d.zarr" / "image"):
        monkeypatch.chdir(here)
        with pytest.raises(StoreError, match="is the folder that you are in"):
            write_zarr(digits(50, seed=2), tmp_path / "d.zarr", overwrite=True)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "d.zarr"), digits(40, seed=1))


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
    place = make_text_store(tmp_path / "a.zarr", text="{}")
    (place / "thesis.tex").write_text("ten years")
    with (
        pytest.raises(StoreError, match=r"1 files that are not part .* such as 'thesis\.tex'"),
        parse_target(place).create(overwrite=True),
    ):
        pass
    assert (place / "thesis.tex").read_text() == "ten years"


@needs_root
def test_a_store_in_a_lower_layer_of_an_overlay_is_not_replaced(tmp_path: Path) -> None:
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
        with pytest.raises(StoreError, match=r"cannot rename this folder, .*; remove it first"):
            write_zarr(digits(50, seed=2), target, overwrite=True)
        xr.testing.assert_equal(xr.open_zarr(target).load(), digits(40, seed=1))
        assert verify(target).is_whole
        assert os.listdir(layers["merged"]) == ["d.zarr"]
    finally:
        subprocess.run(["umount", str(layers["merged"])], check=True)
