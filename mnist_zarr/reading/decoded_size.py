"""How large a compressed chunk becomes, told before it is decoded.

Some kilobytes of Zstandard can decode to gigabytes. The format is that of RFC 8878, section 3.1.1.
"""

from __future__ import annotations

import gzip
import io

import numcodecs

from mnist_zarr.errors import StoreError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_HEADER_BYTES = 18
MAX_BLOCK_BYTES = 1 << 17
RAW, RLE = 0, 1  # types of blocks
# Of a frame that does not state its size only a bound is known: its blocks may be partly filled.
TOLERATED_FACTOR, TOLERATED_BYTES = 8, 16 << 20


def decode_zstd(encoded: memoryview, n_bytes: int) -> bytes:
    """Decode a chunk that should become ``n_bytes`` bytes.

    Raises
    ------
    StoreError
        If it states another size, or could become much more.
    """
    check_zstd(encoded, n_bytes)
    return bytes(numcodecs.Zstd().decode(encoded))


def decode_gzip(encoded: memoryview, n_bytes: int) -> bytes:
    """Decode a chunk that should become ``n_bytes`` bytes.

    Raises
    ------
    StoreError
        If it becomes more.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(encoded)) as file:
        decoded = file.read(n_bytes + 1)
    if len(decoded) > n_bytes:
        raise StoreError(f"a chunk decodes to more than the {n_bytes:,} bytes of its shape")
    return decoded


def check_zstd(encoded: memoryview, n_bytes: int) -> None:
    """Check, before a chunk is decoded, that it should become ``n_bytes`` bytes.

    Raises
    ------
    StoreError
        If it states another size, or states none and could become much more.
    """
    head = bytes(encoded[:MAX_HEADER_BYTES]).ljust(MAX_HEADER_BYTES, b"\0")
    if not head.startswith(ZSTD_MAGIC):
        return  # its decoder will say so
    stated, first_block = _read_header(head)
    if stated is not None and stated != n_bytes:
        raise StoreError(f"a chunk decodes to {stated:,} bytes, expected {n_bytes:,}")
    if stated is None:
        bound = _bound_of_blocks(encoded, first_block)
        if bound > TOLERATED_FACTOR * n_bytes + TOLERATED_BYTES:
            raise StoreError(f"a chunk may decode to {bound:,} bytes, expected {n_bytes:,}")


def _read_header(head: bytes) -> tuple[int | None, int]:
    """Return the size that a frame states, if it does, and the offset of its first block."""
    descriptor = head[4]
    is_single_segment = bool(descriptor & 0x20)
    offset = 5 + (not is_single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (int(is_single_segment), 2, 4, 8)[descriptor >> 6]
    stated = int.from_bytes(head[offset : offset + size_bytes], "little")
    if size_bytes == 2:
        stated += 256
    return stated if size_bytes else None, offset + size_bytes


def _bound_of_blocks(frame: memoryview, offset: int) -> int:
    """Return how many bytes the blocks of a frame hold at most."""
    bound, is_last = 0, False
    while not is_last and offset + 3 <= len(frame):
        header = int.from_bytes(frame[offset : offset + 3], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        bound += size if kind in (RAW, RLE) else MAX_BLOCK_BYTES
        offset += 3 + (1 if kind == RLE else size)
    return bound
