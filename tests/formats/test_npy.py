"""Headers of .npy files: what is refused, and that nothing is ever unpickled."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_zarr.errors import NpzFormatError
from mnist_zarr.formats.npz import open_npz
from tests.support.archives import IMAGES, archive_of, check_is_refused, npy_bytes, zip_of


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (
            archive_of(X=np.array([{}, 3], object)),
            r"X\.npy: holds Python objects, which would have to be unpickled",
        ),
        (archive_of(X=np.array([["a", "b"]])), "expected numbers, got <U1"),
        (
            archive_of(X=np.asfortranarray(np.zeros((5, 4, 3)))),
            r"in Fortran order.*numpy\.ascontiguousarray",
        ),
        (
            zip_of("X.npy", npy_bytes(IMAGES).replace(b"(5, 4, 4)", b"(5, -4,4)")),
            r"X\.npy: no array can have the shape \(5, -4, 4\)",
        ),
        (
            zip_of("X.npy", npy_bytes(IMAGES[:, :0]).replace(b"(5, 0", b"(3**9, 0")),
            r"X\.npy: not a \.npy file",
        ),
        (zip_of("X.npy", b"hello"), r"X\.npy: not a \.npy file"),
        (zip_of("X.npy", b"\x93NUMPY\x03\x00"), "format .3, 0."),
        (
            zip_of("X.npy", npy_bytes(IMAGES)[:-7]),
            r"shape \(5, 4, 4\) of uint8 needs 208 bytes, got 201",
        ),
        (zip_of("X.npy", npy_bytes(IMAGES) + b"more"), "needs 208 .*got 212"),
    ],
)
def test_what_is_no_whole_npy_file_of_numbers_is_refused(
    archive: io.BytesIO, message: str, tmp_path: Path
) -> None:
    check_is_refused(archive, tmp_path, NpzFormatError, message)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    np.savez(tmp_path / "bomb.npz", X=np.array([Bomb()], object))
    with pytest.raises(NpzFormatError, match="unpickled"):
        open_npz(tmp_path / "bomb.npz")
    assert os.listdir(tmp_path) == ["bomb.npz"]
