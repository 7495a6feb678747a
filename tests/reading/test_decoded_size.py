"""Chunks that would decode to more than their shape are refused before they fill the memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import numcodecs
import pytest

from mnist_zarr.errors import StoreError
from mnist_zarr.reading.decoded_size import check_zstd, decode_gzip, decode_zstd
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

BOMB_BYTES = 200_000_000


def streamed(n_blocks: int) -> bytes:
    """Return a frame that does not state its size, of so many blocks of 128 kB of one byte."""
    block = (1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    last = (0 << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38" + block * n_blocks + last


@pytest.mark.parametrize("n_bytes", [1, 255, 256, 70_000, 5_000_000])
def test_chunks_of_the_right_size_are_decoded(n_bytes: int) -> None:
    data = bytes(i % 251 for i in range(n_bytes))
    assert decode_zstd(memoryview(numcodecs.Zstd().encode(data)), n_bytes) == data
    assert decode_gzip(memoryview(gzip.compress(data)), n_bytes) == data


def test_a_chunk_that_does_not_state_its_size_is_decoded() -> None:
    try:
        numcodecs.Zstd().decode(streamed(3))
    except RuntimeError:
        pytest.skip("this version of numcodecs decodes only what states its size")
    assert decode_zstd(memoryview(streamed(3)), 3 << 17) == b"x" * (3 << 17)


@pytest.mark.parametrize("stated", [1 << 40, 300, 3])
def test_a_chunk_that_states_another_size_is_refused(stated: int) -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + stated.to_bytes(8, "little")
    with pytest.raises(StoreError, match=f"decodes to {stated:,} bytes, expected 100"):
        check_zstd(memoryview(frame), 100)


@pytest.mark.parametrize("kind", ["stated", "streamed", "gzip"])
@pytest.mark.parametrize("place", ["local", "bucket"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bomb_is_damage_that_costs_no_memory(
    kind: str, place: str, zarr_format: Any, tmp_path: Path, memory_url: str
) -> None:
    if kind == "gzip" and (place, zarr_format) != ("local", 3):
        pytest.skip("zarr decodes it, which deflate lets grow a thousandfold at most")
    codec: Any = "gzip" if kind == "gzip" else "zstd"
    target = tmp_path / "t.zarr"
    write_zarr(digits(10), target, codec=codec, zarr_format=zarr_format)
    bomb = {
        "stated": lambda: bytes(numcodecs.Zstd().encode(bytes(BOMB_BYTES))),
        "streamed": lambda: streamed(BOMB_BYTES >> 17),
        "gzip": lambda: gzip.compress(bytes(BOMB_BYTES)),
    }[kind]()
    chunk = target / ("image/c/0/0/0" if zarr_format == 3 else "image/0.0.0")
    chunk.write_bytes(bomb)
    source: Any = target
    if place == "bucket":
        source = f"{memory_url}/t.zarr"
        fsspec.filesystem("memory").put(str(target), "/box/t.zarr", recursive=True)
    tracemalloc.start()
    (problem,) = verify(source).problems
    with pytest.raises(StoreError, match=r"decode"):
        open_store(source).image.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem.place == chunk.relative_to(target).as_posix()
    assert peak < BOMB_BYTES / 4
