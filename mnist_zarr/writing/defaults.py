"""Defaults that help texts name. Imports nothing, so that ``mnist-zarr --help`` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_zarr.writing.plan import Order

# docs/explanation/layout.md, section "Defaults", has the measurements behind these.
CHUNK_BYTES_OF_ORDER: dict[Order, int] = {
    "source": 3_000_000,
    "label": 450_000,
    "shuffled": 3_000_000,
}
# Where an array has more chunks, several share an object, a shard.
MOST_CHUNK_OBJECTS = 2000
SHARD_BYTES = 30_000_000
