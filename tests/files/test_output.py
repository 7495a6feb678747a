"""Files that appear under their name when they are complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mnist_zarr.errors import TargetExistsError
from mnist_zarr.files.output import create_file
from mnist_zarr.files.sources import open_bytes

if TYPE_CHECKING:
    pass


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
