"""Options of a layout, and what of them a store keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mnist_zarr.errors import OptionError
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "size"}, "order: expected 'source' or 'label', got 'size'"),
        ({"zarr_format": 4}, "zarr_format: expected 2 or 3, got 4"),
        ({"zarr_format": 2, "shard_bytes": 9**9}, "Zarr format 2 has no shards"),
        ({"codec": "lz4"}, "codec: expected one of zstd, gzip, got 'lz4'"),
        ({"level": 23}, "level: zstd has levels 1 to 22, got 23"),
        ({"chunk_bytes": 0}, "chunk_bytes: expected a whole number of 1 or more, got 0"),
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
