"""The metadata of a store: what they say of every array, and when they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


def test_real_zeros_do_not_become_missing_values_in_format_2(tmp_path: Path) -> None:
    write_zarr(make_dataset(np.zeros((3, 2, 2), np.uint8)), tmp_path / "z.zarr", zarr_format=2)
    back = xr.open_zarr(tmp_path / "z.zarr")
    assert back.image.dtype == np.uint8
    assert not back.image.values.any()


def test_metadata_is_written_after_all_chunks_and_the_root_last() -> None:
    written: list[str] = []

    class Recording(MemoryStore):
        async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
            written.append(key)
            await super().set(key, value, byte_range)

    for zarr_format, root in ((3, "zarr.json"), (2, ".zgroup")):
        written.clear()
        write_zarr(digits(50), Recording(), zarr_format=zarr_format, chunk_bytes=100)  # type: ignore[arg-type]
        is_metadata = [
            key.endswith((".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"))
            for key in written
        ]
        assert is_metadata == sorted(is_metadata)
        assert written[-1] == root
