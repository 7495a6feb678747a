"""Files made and looked at byte by byte."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.formats.idx import write_idx

# Neither all noise nor all zeros, several times as long as one read of a gzip stream.
PLAIN = np.random.default_rng(0).integers(0, 9, 3_000_000).astype(np.uint8).tobytes()
PACKED = gzip.compress(PLAIN, compresslevel=1)


class CountingSource(ByteSource):
    """Bytes in memory that know how many of them were asked for."""

    seeks_cheaply = True
    name = "counting"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = self.size_limit = len(data)
        self.n_read = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        part = self._data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self.n_read += len(part)
        return len(part)


def pipe_of(data: bytes) -> Any:
    """Return the open end of a pipe through which the bytes come."""
    read_end, write_end = os.pipe()

    def write() -> None:
        # The reader may leave before the end.
        with contextlib.suppress(BrokenPipeError), open(write_end, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return open(read_end, "rb")


def idx_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return the bytes of an IDX file."""
    file = io.BytesIO()
    write_idx(array, file)
    return file.getvalue()


def idx_gz_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return the bytes of an IDX file in gzip."""
    return gzip.compress(idx_bytes(array), mtime=0)


def file_contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files by their paths in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
