"""Zip archives and .npy files, sound and damaged."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_zarr.builder import build
from mnist_zarr.formats.npz import open_npz

SAVE: dict[str, Callable[..., None]] = {"stored": np.savez, "deflated": np.savez_compressed}
IMAGES = np.zeros((5, 4, 4), np.uint8)


def archive_of(**arrays: Any) -> io.BytesIO:
    """Return an archive as NumPy writes it."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)
    file.seek(0)
    return file


def zip_of(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """Return an archive of one member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zip_file:
        zip_file.writestr(name, data)
    file.seek(0)
    return file


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return a .npy file as NumPy writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def directory_entry(data: bytes | bytearray) -> int:
    """Return where the last entry of the directory of a zip archive is."""
    return data.rindex(b"PK\x01\x02")


def check_is_refused(
    archive: io.BytesIO, folder: Path, error: type[Exception], message: str
) -> None:
    """Open the archive and build from it: both must say what is wrong, and where."""
    (folder / "bad.npz").write_bytes(archive.getvalue())
    with pytest.raises(error, match=message) as caught:
        open_npz(folder / "bad.npz")
    assert "bad.npz" in str(caught.value)
    with pytest.raises(error, match=message):
        build(folder / "x.zarr", folder / "bad.npz")
    assert os.listdir(folder) == ["bad.npz"]
