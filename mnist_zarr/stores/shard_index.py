"""The index at the end of a shard, which says where its chunks are.

Of each chunk the first byte and the number of bytes, little-endian, of 64 bits; then a CRC32C.
Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import google_crc32c
import numpy as np

from mnist_zarr.errors import StoreError

ABSENT = 2**64 - 1
CHECKSUM_BYTES = 4
# Of an object: Amazon S3 takes up to 50 TB, and positions in files have 63 bits.
MOST_BYTES = 2**50


def index_bytes(n_chunks: int) -> int:
    """Return the number of bytes of the index of a shard of so many chunks."""
    return 16 * n_chunks + CHECKSUM_BYTES


def encode_index(places: Mapping[int, tuple[int, int]], n_chunks: int) -> bytes:
    """Return the index of a shard with these chunks: number, first byte and number of bytes.

    Examples
    --------
    >>> decode_index(encode_index({1: (0, 9)}, 2), 2)
    [None, (0, 9)]
    """
    index = np.full((n_chunks, 2), ABSENT, "<u8")
    for number, place in places.items():
        index[number] = place
    encoded = index.tobytes()
    return encoded + _checksum(encoded)


def decode_index(
    encoded: bytes, n_chunks: int, most_bytes: float = math.inf
) -> list[tuple[int, int] | None]:
    """Return the first byte and the number of bytes of each chunk, or None if it is not there.

    Raises
    ------
    StoreError
        If the checksum is wrong, the index too short, or a chunk would have more than
        ``most_bytes`` bytes or lie where no file reaches.
    """
    numbers, checksum = encoded[:-CHECKSUM_BYTES], encoded[-CHECKSUM_BYTES:]
    if len(encoded) != index_bytes(n_chunks) or checksum != _checksum(numbers):
        raise StoreError("the index of this shard is damaged")
    places: list[list[int]] = np.frombuffer(numbers, "<u8").reshape(-1, 2).tolist()
    decoded = [None if ABSENT in place else (place[0], place[1]) for place in places]
    if (size := max((size for _, size in filter(None, decoded)), default=0)) > most_bytes:
        raise StoreError(f"the index of this shard promises a chunk of {size:,} bytes")
    if (stop := max((sum(place) for place in filter(None, decoded)), default=0)) > MOST_BYTES:
        raise StoreError(f"the index of this shard promises a chunk up to byte {stop:,}")
    return decoded


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")
