"""A store in a single file: ``mnist.zarr.zip``, with uncompressed entries.

Chunks are compressed already, and an entry that is stored as it is can be read
in place, over HTTP too. Equal stores give equal files: entries are sorted and
carry no time.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import BinaryIO

from mnist_zarr.stores.keys import METADATA_NAMES

SUFFIX = ".zip"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that the format has
READ_WRITE = 0o644 << 16  # where Unix keeps permissions


def is_archive(target: str | os.PathLike[str]) -> bool:
    """Whether the target is a single file by its name."""
    return os.fspath(target).endswith(SUFFIX)


def pack(folder: Path, place: Path) -> None:
    """Write the files of ``folder`` as the entries of a new zip file at ``place``."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), NO_TIME)
            entry.external_attr = READ_WRITE
            entry.file_size = path.stat().st_size
            with path.open("rb") as content, archive.open(entry, "w") as stored:
                shutil.copyfileobj(content, stored)


def holds_store(place: Path | BinaryIO) -> bool:
    """Whether the file is a zip file with a Zarr store in it."""
    if not zipfile.is_zipfile(place):
        return False
    with zipfile.ZipFile(place) as archive:
        return not set(archive.namelist()).isdisjoint(METADATA_NAMES)
