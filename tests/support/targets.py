"""Every kind of target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, MemoryStore

from tests.support.object_server import BUCKET

# A target, and its storage options.
Named = tuple[Any, dict[str, Any] | None]

KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder / "t.zarr",
    "zip": lambda folder: folder / "t.zarr.zip",
    "memory": lambda folder: "memory://box/t.zarr",
    "s3": lambda folder: f"s3://{BUCKET}/t.zarr",
    "s3 through s3fs": lambda folder: f"s3://{BUCKET}/t.zarr",
    "s3 zip": lambda folder: f"s3://{BUCKET}/t.zarr.zip",
    "icechunk": lambda folder: f"icechunk+file://{folder}/repository",
    "memory store": lambda folder: MemoryStore(),
    "local store": lambda folder: LocalStore(folder / "t.zarr"),
}
# Their objects are overwritten one by one; all others take their place as a whole.
IN_PLACE = ("memory", "s3", "s3 through s3fs", "memory store", "local store")
