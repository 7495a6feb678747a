"""A store that is worth being published."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import CHUNK_BYTES
from tests.support.digits import square_digits

ATTRS = {"title": "Ten digits", "license": "MIT", "references": "Somebody: Digits. 1998."}


@pytest.fixture(params=[3, 2])
def titled_store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store of 100 samples in ten chunks, in either format."""
    ds = square_digits(100).assign_attrs(ATTRS)
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=CHUNK_BYTES, zarr_format=request.param)
    return tmp_path / "t.zarr"
