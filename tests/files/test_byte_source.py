"""What every source of bytes can do: hash what is stored, and read no more than there is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mnist_zarr.files.sources import open_bytes
from tests.support.files import PACKED, CountingSource
from tests.support.memory import traced_memory


def test_the_hash_is_of_the_bytes_as_stored(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(PACKED)
    assert open_bytes(tmp_path / "x").sha256() == hashlib.sha256(PACKED).hexdigest()


def test_memory_grows_with_what_is_there_and_not_with_what_is_asked_for() -> None:
    with traced_memory() as peak_bytes:
        assert CountingSource(b"abc").read(0, 1 << 40) == b"abc"
        assert peak_bytes() < 40_000_000
