"""Small stores in memory, and single objects in any store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from mnist_zarr.stores.keys import sync
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

TEN_DIGITS = digits(10)


def in_memory(ds: xr.Dataset = TEN_DIGITS) -> MemoryStore:
    """Return a store with the Dataset in it."""
    store = MemoryStore()
    write_zarr(ds, store)
    return store


def put_text(store: Any, key: str, text: str) -> None:
    """Store an object of this text."""
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(text.encode())))


def make_text_store(place: Path, text: str = "old") -> Path:
    """Make a folder that is a store to look at: its root document has this text."""
    place.mkdir()
    (place / "zarr.json").write_text(text)
    return place
