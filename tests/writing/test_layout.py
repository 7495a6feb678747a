"""Options of a layout, and what of them a store keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.errors import OptionError
from mnist_zarr.writing.defaults import (
    MOST_CHUNK_OBJECTS,
    SHARD_BYTES,
)
from mnist_zarr.writing.layout import Layout
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "size"}, "`order`: expected 'source', 'label' or 'shuffled', got 'size'"),
        ({"seed": 1}, "`seed`: only `order='shuffled'` takes a seed"),
        ({"order": "shuffled", "seed": -1}, "`seed`: expected a whole number of 0 or more, got -1"),
        ({"zarr_format": 4}, "`zarr_format`: expected 2 or 3, got 4"),
        ({"zarr_format": 2, "shard_bytes": 9**9}, "Zarr format 2 has no shards"),
        ({"codec": "lz4"}, "`codec`: expected one of zstd, gzip, got 'lz4'"),
        ({"level": 23}, "`level`: zstd has levels 1 to 22, got 23"),
        ({"zarr_format": True}, "`zarr_format`: expected 2 or 3, got True"),
        ({"level": 9.0}, r"`level`: zstd has levels 1 to 22, got 9\.0"),
        ({"chunk_bytes": 0}, "`chunk_bytes`: expected a whole number of 1 or more, got 0"),
        ({"shard_bytes": -1}, "`shard_bytes`: expected a whole number of 0 or more, got -1"),
    ],
)
def test_options_outside_their_range_are_refused_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        write_zarr(digits(), tmp_path / "d.zarr", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_codecs_carry_a_checksum(tmp_path: Path, codec: Any, zarr_format: Any) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", codec=codec, zarr_format=zarr_format, level=5)
    if zarr_format == 2:
        metadata = json.loads((tmp_path / "d.zarr/image/.zarray").read_text())
        config = metadata["compressor"]
    else:
        metadata = json.loads((tmp_path / "d.zarr/image/zarr.json").read_text())
        config = metadata["codecs"][-1]["configuration"]
    assert config["level"] == 5
    assert codec == "gzip" or config["checksum"] is True


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_integers_of_numpy_are_taken_for_pythons(zarr_format: int) -> None:
    stores = []
    for integer in (int, np.int64):
        options: dict[str, Any] = {"level": 3, "chunk_bytes": 300, "zarr_format": zarr_format}
        if zarr_format == 3:
            options["shard_bytes"] = 900
        store = MemoryStore()
        given: dict[str, Any] = {name: integer(number) for name, number in options.items()}
        write_zarr(digits(), store, **given)
        stores.append({key: data.to_bytes() for key, data in store._store_dict.items()})
    assert stores[0] == stores[1]


@pytest.mark.parametrize(
    "options",
    [
        {"level": 3.0},
        {"level": True},
        {"codec": []},
        {"order": []},
        {"zarr_format": 3.0},
        {"chunk_bytes": 300.0},
        {"chunk_bytes": True},
        {"chunk_bytes": 10, "shard_bytes": 300.0},
    ],
    ids=str,
)
def test_options_of_another_type_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=list(options)[-1]):
        write_zarr(digits(), MemoryStore(), **options)


def images(n_samples: int, sample_bytes: int = 784) -> xr.Variable:
    """Return images of which only the shape exists."""
    values = np.broadcast_to(np.uint8(0), (n_samples, sample_bytes))
    return xr.Variable(("sample", "pixel"), values)


@pytest.mark.parametrize("order", ["source", "label", "shuffled"])
def test_ten_million_samples_are_hundreds_of_objects(order: Any) -> None:
    chunking = Layout(order).chunking(images(10_000_000))
    assert 100 < chunking.n_objects < 300
    assert chunking.object_samples * 784 <= SHARD_BYTES
    assert Layout(order, shard_bytes=0).chunking(images(10_000_000)).shard_samples is None


@pytest.mark.parametrize("order", ["source", "label", "shuffled"])
def test_as_many_chunks_as_may_be_have_an_object_each(order: Any) -> None:
    most = Layout(order, chunk_bytes=784).chunking(images(MOST_CHUNK_OBJECTS))
    assert most.n_objects == MOST_CHUNK_OBJECTS
    more = Layout(order, chunk_bytes=784).chunking(images(MOST_CHUNK_OBJECTS + 1))
    assert more.n_objects == 1


def test_chunks_too_large_to_share_a_shard_and_format_2_have_none() -> None:
    for layout in (Layout(chunk_bytes=SHARD_BYTES), Layout(zarr_format=2)):
        assert layout.chunking(images(100_000_000)).shard_samples is None
    assert Layout(zarr_format=2, shard_bytes=0).zarr_format == 2


def test_no_data_set_of_the_catalog_needs_shards() -> None:
    largest = max(entry.n_samples for entry in CATALOG.values())
    for order in ("source", "label"):
        assert Layout(order).chunking(images(largest)).shard_samples is None
