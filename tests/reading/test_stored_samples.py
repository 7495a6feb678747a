"""Samples of a store in the order of their source, few chunks at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mnist_zarr.reading import stored_samples
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import mnist_samples


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"order": "label"},
        {"order": "label", "shard_bytes": 100_000},
        {"zarr_format": 2, "codec": "gzip", "level": 5},
        {"rescale": (-1, 1)},
    ],
    ids=str,
)
def test_few_decoded_chunks_at_a_time_are_enough(
    tmp_path: Path, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_samples, "DECODED_BYTES", 80_000)
    monkeypatch.setattr(stored_samples, "BLOCK_BYTES", 30_000)
    monkeypatch.setattr(stored_samples, "READ_BYTES", 30_000)
    monkeypatch.setattr(stored_samples, "SCATTERED_BLOCK_BYTES", 60_000)
    monkeypatch.setattr(stored_samples, "WHOLE_BYTES", 60_000)
    write_zarr(mnist_samples(0, 200), tmp_path / "d.zarr", chunk_bytes=20_000, **layout)
    report = verify(tmp_path / "d.zarr")
    assert report.is_whole
    assert report.unchecked == []
