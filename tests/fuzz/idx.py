"""The IDX reader, raw and gzip, against a dumb reader that holds everything."""

from __future__ import annotations

import io
import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_zarr.errors import FileFormatError, MnistZarrError
from mnist_zarr.formats.idx import IdxFile, read_idx
from tests.fuzz.target import EDGES, SIZES, Havoc, Target, likely_small, result_within_limits
from tests.support.raw_idx import NUMPY_CODE_OF_TYPE, assert_same_bits

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 10
# More than any input here decodes to and is good.
MAX_DECODED_BYTES = 32 << 20


# -- the check ---------------------------------------------------------------------------


def check(data: bytes, folder: Path) -> None:
    """Read the input in every way, and compare with what a dumb reader makes of it."""
    decoded, is_whole = _decode(data)
    # None: the input is no IDX file, and everything must say so.
    expected = _parse(decoded) if is_whole else None
    path = folder / "input"
    path.write_bytes(data)
    rng = random.Random(zlib.crc32(data))
    limits = {"input_bytes": len(data), "decoded_bytes": len(decoded)}
    got = result_within_limits(
        lambda: read_idx(rng.choice((io.BytesIO(data), path, _Pipe(data)))), **limits
    )
    _check_whole(got, expected)
    source = rng.choice((io.BytesIO(data), path))
    is_good = expected is not None
    parts = result_within_limits(lambda: _check_parts(source, decoded, is_good, rng), **limits)
    assert parts is None or not is_good, f"a good file was refused: {parts}"


def _check_whole(got: npt.NDArray[Any] | MnistZarrError, expected: npt.NDArray[Any] | None) -> None:
    if expected is None:
        assert isinstance(got, FileFormatError), f"damage was not noticed: {got!r}"
    else:
        assert not isinstance(got, MnistZarrError), f"a good file was refused: {got}"
        assert_same_bits(got, expected)


def _check_parts(
    source: BinaryIO | Path, decoded: bytes, is_good: bool, rng: random.Random
) -> None:
    idx = IdxFile(source)
    for _ in range(4 if idx.shape else 0):
        start = rng.randint(0, idx.shape[0])
        stop = min(start + rng.choice((0, 1, 2, 5, 2**32)), idx.shape[0])
        try:
            rows = idx.read_samples(start, stop)
        except FileFormatError:
            assert not is_good, "a good file was refused"
        else:
            assert rows.shape == (stop - start, *idx.shape[1:])
            _assert_stands_there(rows, idx, start, decoded)
    n_samples = idx.header.n_samples
    block_samples = max(rng.choice((1, 5, 100, 4096)), n_samples // 64)
    for start in range(0, max(1, n_samples), block_samples):
        block = idx.read_samples(start, min(start + block_samples, n_samples))
        _assert_stands_there(block, idx, start, decoded)
    assert is_good, "damage was not noticed by blocks"


def _assert_stands_there(rows: npt.NDArray[Any], idx: IdxFile, start: int, decoded: bytes) -> None:
    """Compare rows with the file, as far as the dumb reader has come in a damaged one."""
    offset = idx.header.header_bytes + start * idx.header.sample_bytes
    expected = decoded[offset : offset + rows.nbytes]
    assert rows.astype(rows.dtype.newbyteorder(">")).tobytes().startswith(expected)


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def _decode(data: bytes) -> tuple[bytes, bool]:
    """Return what can be decoded, and whether that is all without an error."""
    if not data.startswith(GZIP_MAGIC):
        return data, True
    decoded = bytearray()
    rest = data
    while rest:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(rest, PIECE_BYTES)
            except zlib.error:
                return bytes(decoded), False
            decoded += piece
            rest = member.unconsumed_tail
            if not (piece or member.eof) or len(decoded) > MAX_DECODED_BYTES:
                return bytes(decoded), False
        rest = member.unused_data.lstrip(b"\0")
    return bytes(decoded), not decoded.startswith(GZIP_MAGIC)


def _parse(data: bytes) -> npt.NDArray[Any] | None:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in NUMPY_CODE_OF_TYPE:
        return None
    rank, dtype = data[3], np.dtype(NUMPY_CODE_OF_TYPE[data[2]])
    if len(data) < 4 + 4 * rank:
        return None
    shape = struct.unpack_from(f">{rank}I", data, 4)
    elements = data[4 + 4 * rank :]
    if math.prod(shape) * dtype.itemsize != len(elements):
        return None
    try:
        array = np.frombuffer(elements, dtype).reshape(shape)
    except ValueError:  # more dimensions, or longer ones, than NumPy can hold
        return None
    return array.astype(dtype.newbyteorder("="))


# -- inputs ------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    """Return a small file of every type, ranks 0 to 3, raw and in several kinds of gzip."""
    rng = random.Random(0)
    raw = [_whole(code, shape, rng) for code in NUMPY_CODE_OF_TYPE for shape in ((), (3,), (2, 3))]
    raw += [_whole(0x08, (5, 4, 3), rng), _whole(0x08, (0, 28, 28), rng)]
    raw += [_whole(0x08, (2, 0), rng), _whole(0x0C, (1,) * 64, rng), _whole(0x08, (2000, 28), rng)]
    return raw + [_pack(data, rng) for data in raw]


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change elements, header or compression, and repair the rest more often than not."""
    raw, was_whole = _decode(data)
    was_packed = data.startswith(GZIP_MAGIC)
    if rng.random() < 0.15 or (was_packed and not was_whole and rng.random() < 0.5):
        return havoc(data, rng)
    choice = rng.random()
    if choice < 0.1:
        raw = _fresh(rng)
    elif choice < 0.3:
        raw = havoc(raw, rng)
    else:
        raw = _edit_header(raw, rng)
    if rng.random() < 0.7:
        raw = _repair_length(raw, rng)
    if rng.random() < (0.9 if was_packed else 0.3):
        return _pack(raw, rng)
    return raw


def _whole(type_code: int, shape: tuple[int, ...], rng: random.Random) -> bytes:
    itemsize = np.dtype(NUMPY_CODE_OF_TYPE[type_code]).itemsize
    return _header(type_code, shape) + rng.randbytes(math.prod(shape) * itemsize)


def _header(type_code: int, shape: tuple[int, ...]) -> bytes:
    return bytes([0, 0, type_code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def _fresh(rng: random.Random) -> bytes:
    rank = rng.choice((0, 1, 1, 2, 3, 3, 4, 5, 64, 65, 255))
    shape = tuple(rng.choice((0, 1, 2, 3, rng.choice(EDGES))) for _ in range(rank))
    return _header(rng.choice(list(NUMPY_CODE_OF_TYPE)), shape) + rng.randbytes(rng.randrange(64))


def _edit_header(raw: bytes, rng: random.Random) -> bytes:
    if len(raw) < 4:
        return _fresh(rng)
    rank = min(raw[3], (len(raw) - 4) // 4)
    shape = list(struct.unpack_from(f">{rank}I", raw, 4))
    code, elements = raw[2], raw[4 + 4 * rank :]
    if rng.random() < 0.3:
        code = rng.choice((*NUMPY_CODE_OF_TYPE, rng.randrange(256)))
    if shape and rng.random() < 0.6:
        axis = rng.randrange(rank)
        size = rng.choice((rng.choice(EDGES), shape[axis] + rng.choice((-1, 1, 2))))
        shape[axis] = size % 2**32
    if rng.random() < 0.2 and rank < 255:
        shape.insert(rng.randint(0, rank), rng.choice((0, 1, 1, 1, 2, rng.choice(SIZES))))
    if shape and rng.random() < 0.2:
        del shape[rng.randrange(len(shape))]
    header = _header(code, tuple(shape))
    if rng.random() < 0.05:
        header = header[:3] + bytes([rng.randrange(256)]) + header[4:]
    return header + elements


def _repair_length(raw: bytes, rng: random.Random) -> bytes:
    """Give the file the elements that its header announces, where these are not very many."""
    if len(raw) < 4 or raw[2] not in NUMPY_CODE_OF_TYPE or len(raw) < 4 + 4 * raw[3]:
        return raw
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    size = 4 + 4 * raw[3] + math.prod(shape) * np.dtype(NUMPY_CODE_OF_TYPE[raw[2]]).itemsize
    if size > likely_small(rng):
        return raw
    return raw[:size].ljust(size, b"\0")


def _pack(raw: bytes, rng: random.Random) -> bytes:
    """Gzip the bytes as one member or several, rarely with a lie."""
    cuts = sorted(rng.choices(range(len(raw) + 1), k=rng.choice((0, 0, 0, 1, 2, 5))))
    packed = b"".join(
        _member(raw[start:stop], rng) + bytes(rng.choice((0, 0, 0, 1, 100)))
        for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)
    )
    choice = rng.random()
    if choice < 0.02:
        return _member(packed, rng)
    if choice < 0.05:
        return packed[: rng.randrange(len(packed) + 1)]
    if choice < 0.07:
        return packed + rng.randbytes(rng.choice((1, 2, 20)))
    if choice < 0.08:
        return packed + _member(b"", rng) * rng.choice((1, 10, 1000))
    return packed


def _member(data: bytes, rng: random.Random) -> bytes:
    level, strategy = rng.choice(((0, 0), (1, 0), (6, 0), (9, 0), (6, zlib.Z_FIXED)))
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    deflated = deflate.compress(data) + deflate.flush()
    flags = rng.choice((0, 0, 0, 1, 2, 4, 8, 16, 30, rng.randrange(256)))
    head = bytes([0x1F, 0x8B, 8 if rng.random() < 0.99 else 7, flags, 0, 0, 0, 0, 0, 3])
    if flags & 4:
        head += struct.pack("<H", 5) + b"extra"
    head += b"name\0" * bool(flags & 8) + b"comment\0" * bool(flags & 16)
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    crc, size = zlib.crc32(data), len(data)
    if rng.random() < 0.02:
        crc ^= 1 << rng.randrange(32)
    if rng.random() < 0.02:
        size = (size + rng.choice(EDGES)) % 2**32
    return head + deflated + struct.pack("<II", crc, size)


TARGET = Target("idx", seeds, mutate, check)
