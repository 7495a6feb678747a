"""Gzip at any offset: right bytes, few of them decoded twice, bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.errors import SourceError
from mnist_zarr.files.gzip_source import GzipSource
from mnist_zarr.files.sources import open_bytes
from tests.support.files import PACKED, PLAIN, CountingSource, pipe_of


def test_gzip_is_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(PLAIN)
    (tmp_path / "y").write_bytes(PACKED)
    assert not isinstance(open_bytes(tmp_path / "x.gz"), GzipSource)
    opened = open_bytes(tmp_path / "y")
    assert isinstance(opened, GzipSource)
    assert opened.read(7, 9) == PLAIN[7:16]


def test_gzip_comes_through_a_pipe() -> None:
    with pipe_of(PACKED) as file:
        assert open_bytes(file).read(0, 4_000_000) == PLAIN


@given(st.lists(st.tuples(st.integers(0, 3_100_000), st.integers(0, 5000)), max_size=6))
def test_gzip_reads_at_any_offset_in_any_order(reads: list[tuple[int, int]]) -> None:
    opened = GzipSource(CountingSource(PACKED))
    for offset, count in reads:
        assert opened.read(offset, count) == PLAIN[offset : offset + count]


def test_going_back_in_gzip_costs_a_part_and_reading_on_costs_nothing() -> None:
    data = np.random.default_rng(1).integers(0, 200, 64 << 20).astype(np.uint8).tobytes()
    encoded = CountingSource(gzip.compress(data, compresslevel=1))
    opened = GzipSource(encoded)
    for offset in range(0, len(data), 1 << 20):
        opened.read(offset, 1 << 20)
    assert encoded.n_read <= encoded.size  # type: ignore[operator]
    encoded.n_read = 0
    assert opened.read(len(data) - (9 << 20), 10) == data[-(9 << 20) :][:10]
    assert 0 < encoded.n_read < 6 << 20


def test_the_remembered_states_of_gzip_are_bounded() -> None:
    opened = GzipSource(CountingSource(gzip.compress(bytes(1 << 30), compresslevel=1)))
    assert opened.read((1 << 30) - 1, 10) == b"\0"
    assert 8 < len(opened._checkpoints) <= GzipSource.MAX_CHECKPOINTS


def test_gzip_sources_travel_to_other_processes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(PACKED)
    opened = open_bytes(tmp_path / "x")
    opened.read(2_000_000, 10)
    there = pickle.loads(pickle.dumps(opened))
    assert there.read(2_000_000, 10) == PLAIN[2_000_000:2_000_010]


@pytest.mark.parametrize("offset", [0, 2_000_000, 5_000_000])
def test_after_a_failed_read_the_next_one_fails_too_or_is_right(
    tmp_path: Path, offset: int
) -> None:
    old, new = (np.random.default_rng(seed).bytes(6_000_000) for seed in (1, 2))
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(old, 1))
    source = GzipSource(open_bytes(str(path)).encoded)
    assert source.read(0, 100_000) == old[:100_000]
    (tmp_path / "other.gz").write_bytes(gzip.compress(new, 1))
    (tmp_path / "other.gz").replace(path)
    for _ in range(4):
        with pytest.raises(SourceError, match="the file was changed while it was being read"):
            source.read(3_000_000, 10)
        with contextlib.suppress(SourceError):
            assert source.read(offset, 10) == old[offset : offset + 10]


def test_an_interrupted_read_leaves_no_half_done_state(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).bytes(3_000_000)
    source = GzipSource(CountingSource(gzip.compress(data, 1)))
    inflate = GzipSource._inflate

    def interrupted(self: GzipSource, piece: bytes, max_bytes: int) -> bytes:
        inflate(self, piece, max_bytes)
        raise KeyboardInterrupt

    source.read(0, 500_000)
    with monkeypatch.context() as patch:
        patch.setattr(GzipSource, "_inflate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.read(1_000_000, 10)
    assert source.read(1_000_000, 1_000_000) == data[1_000_000:2_000_000]
