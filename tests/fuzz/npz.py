"""The npz reader: zip archives and .npy headers, against the standard library and NumPy."""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.errors import MnistZarrError
from mnist_zarr.formats.npz import open_npz
from tests.fuzz.target import EDGES, SIZES, Havoc, Target, likely_small, result_within_limits

NAME = re.compile(r"([xyXY])(?:_(.+))?\.npy")
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
# The dumb reader gives up here.
MAX_DECODED_BYTES = 32 << 20
# Split, position and label of a sample, and what it takes to make them.
BYTES_A_SAMPLE = 64
MAX_EMPTY_SAMPLES = 1 << 16
# Of deflate at its best.
MAX_RATIO = 1032
NPY_HEAD_BYTES = 1 << 16


# -- the check ---------------------------------------------------------------------------


def check(data: bytes, folder: Path) -> None:
    """Open and load the input, and compare with what NumPy makes of it."""
    path = folder / "input.npz"
    path.write_bytes(data)
    members = _directory(data)
    heads_bytes = min(NPY_HEAD_BYTES * len(members), sum(_n_decoded(data, m) for m in members))
    decoded_bytes = sum(_n_decoded(data, member) for member in members)
    source = (path, io.BytesIO(data))[zlib.crc32(data) % 2]
    opened = result_within_limits(
        lambda: open_npz(source), input_bytes=len(data), decoded_bytes=heads_bytes
    )
    if isinstance(opened, MnistZarrError):
        return
    n_samples = opened.sizes["sample"]
    assert n_samples <= max(MAX_EMPTY_SAMPLES, len(data) * MAX_RATIO), "too many samples"
    derived_bytes = n_samples * BYTES_A_SAMPLE
    loaded = result_within_limits(
        opened.load, input_bytes=len(data), decoded_bytes=decoded_bytes + derived_bytes
    )
    if isinstance(loaded, MnistZarrError):
        return
    assert sum(variable.nbytes for variable in loaded.data_vars.values()) <= len(data) * MAX_RATIO
    names = [member.filename for member in members if not member.filename.endswith("/")]
    assert len(set(names)) == len(names), "which of the two?"
    if decoded_bytes < MAX_DECODED_BYTES:
        _compare(loaded, data, members)


def _compare(ds: xr.Dataset, data: bytes, members: list[zipfile.ZipInfo]) -> None:
    arrays = _arrays_of_numpy(data, members)
    if arrays is None:
        return
    for variable, role in (("image", "x"), ("label", "y")):
        expected = arrays.get(role, [])
        if variable in ds:
            got = ds[variable].values
            assert all(got.dtype == array.dtype.newbyteorder("=") for array in expected)
            assert got.tobytes() == b"".join(
                array.astype(got.dtype, copy=False).tobytes() for array in expected
            )
        else:
            assert not expected


def _arrays_of_numpy(
    data: bytes, members: list[zipfile.ZipInfo]
) -> dict[str, list[npt.NDArray[Any]]] | None:
    """Return images and labels, in the order of the splits; None if that is too much for it."""
    named: dict[str, dict[str, npt.NDArray[Any]]] = {"x": {}, "y": {}}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for member in members:
                if match := NAME.fullmatch(member.filename):
                    array = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
                    named[match[1].lower()][match[2] or ""] = array
    except Exception:  # of any kind, which is no concern of ours
        return None
    if not named["x"] and not named["y"]:
        return None
    images, labels = named["x"], named["y"]
    if labels and "test" in images and "test" not in labels:  # which have the label -1
        marked = np.result_type(np.int8, *labels.values())
        labels |= {split: array.astype(marked) for split, array in labels.items()}
        labels["test"] = np.full(len(images["test"]), -1, marked)
    order = {"train": 0, "test": 1}
    return {
        role: [arrays[s] for s in sorted(arrays, key=lambda s: (order.get(s, 2), s))]
        for role, arrays in named.items()
    }


def _directory(data: bytes) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except Exception:
        return []


def _n_decoded(data: bytes, member: zipfile.ZipInfo) -> int:
    """Return how many bytes of the member are there, whatever its headers say."""
    start = max(member.header_offset, 0)
    if start + 30 > len(data):
        return 0
    start += 30 + sum(struct.unpack_from("<HH", data, start + 26))
    stored = data[start : start + member.compress_size]
    if member.compress_type != DEFLATED:
        return len(stored)
    most = min(member.file_size + (1 << 20), MAX_DECODED_BYTES)
    inflate, count = zlib.decompressobj(-15), 0
    try:
        while stored and count < most and not inflate.eof:
            count += len(inflate.decompress(stored, 1 << 18))
            stored = inflate.unconsumed_tail
    except zlib.error:
        count += 1 << 18
    return count


# -- inputs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A member to write, and what its headers shall say instead of the truth."""

    name: bytes
    data: bytes
    method: int = DEFLATED
    flags: int = 0
    extra: bytes = b""
    lies: dict[str, int] = field(default_factory=dict)


def zip_bytes(members: list[Member], rng: random.Random) -> bytes:
    """Write an archive whose directory may lie.

    Lies are ``crc``, ``packed`` and ``size`` (of the directory), ``offset`` (of the local
    header), and with ``zip64`` the sizes are in an extra field.
    """
    out, directory = bytearray(), bytearray()
    for member in members:
        offset = member.lies.get("offset", len(out)) % 2**32
        stored = _deflate(member.data, rng) if member.method == DEFLATED else member.data
        crc = member.lies.get("crc", zlib.crc32(member.data)) % 2**32
        sizes = [member.lies.get("packed", len(stored)), member.lies.get("size", len(member.data))]
        extra = member.extra
        if "zip64" in member.lies or max(sizes) >= 2**32:
            extra += struct.pack("<HHQQ", 1, 16, sizes[1] % 2**64, sizes[0] % 2**64)
            sizes = [2**32 - 1, 2**32 - 1]
        fields = (20, member.flags, member.method, 0, 0x21, crc, *(size % 2**32 for size in sizes))
        lengths = (len(member.name), len(extra))
        local = struct.pack("<4s5H3I2H", b"PK\3\4", *fields, *lengths)
        out += local + member.name + extra + stored
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, *fields, *lengths, 0, 0, 0, 0, offset
        )
        directory += member.name + extra
    count = len(members) if rng.random() < 0.97 else rng.choice((0, 1, 65535))
    start = len(out) if rng.random() < 0.97 else rng.choice(EDGES)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    prefix = rng.randbytes(rng.choice((1, 20))) if rng.random() < 0.02 else b""
    return prefix + bytes(out + directory) + end


def _deflate(data: bytes, rng: random.Random) -> bytes:
    deflate = zlib.compressobj(rng.choice((0, 1, 6, 9)), zlib.DEFLATED, -15, 9)
    return deflate.compress(data) + deflate.flush()


def npy_bytes(descr: str, order: str, shape: str, data: bytes, version: int = 1) -> bytes:
    """Write a .npy file of any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def seeds() -> list[bytes]:
    """Return small archives of the usual names, stored and deflated."""
    rng = random.Random(0)
    image, label = np.arange(48, dtype=np.uint8).reshape(3, 16), np.arange(3, dtype=np.uint8)
    archives: list[dict[str, npt.NDArray[Any]]] = [
        {"X": image, "y": label},
        {"x_train": image, "y_train": label, "x_test": image[:1], "y_test": label[:1]},
        {"X": image.reshape(3, 4, 4).astype(">f8")},
        {"X": np.zeros((0, 4), "i2"), "y": np.zeros(0, "i4")},
        {"arr_0": image.astype("bool")},
        {"arr_0": label},
        {"X_a": np.zeros((500, 100), "f4"), "X_b": np.ones((2, 100), "f4")},
    ]
    made = []
    for arrays in archives:
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)  # type: ignore[arg-type]
            made.append(file.getvalue())
        members = [Member(f"{name}.npy".encode(), _npy(array)) for name, array in arrays.items()]
        made.append(zip_bytes(members, rng))
    return made


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change members and write the archive anew, or set single fields of it."""
    choice = rng.random()
    if choice < 0.1:
        return havoc(data, rng)
    if choice < 0.3:
        return _set_field(data, rng)
    members = _members(data)
    if not members:
        return rng.choice(seeds())
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(len(members))
        members[index] = rng.choice(CHANGES)(members[index], rng, havoc)
    choice = rng.random()
    if choice < 0.1:
        members.append(replace(rng.choice(members), name=rng.choice(NAMES)))
    elif choice < 0.15:
        del members[rng.randrange(len(members))]
    elif choice < 0.2:
        members += [replace(members[0], name=b"x_%d.npy" % i, lies={"offset": 0}) for i in range(9)]
    return zip_bytes(members, rng)


def _members(data: bytes) -> list[Member]:
    found = []
    for info in _directory(data)[:20]:
        if _n_decoded(data, info) > 1 << 18:
            continue
        start = info.header_offset + 30
        if not 30 <= start <= len(data):
            continue
        start += sum(struct.unpack_from("<HH", data, start - 4))
        stored = data[start : start + info.compress_size]
        if info.compress_type == DEFLATED:
            try:
                stored = zlib.decompressobj(-15).decompress(stored)
            except zlib.error:
                continue
        method = info.compress_type if info.compress_type in (STORED, DEFLATED) else STORED
        found.append(Member(info.filename.encode("utf-8"), stored, method))
    return found


SIGNATURES = {  # of a record, and where its fields are: offset and length
    b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\1\2": ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}


def _set_field(data: bytes, rng: random.Random) -> bytes:
    signature = rng.choice(list(SIGNATURES))
    places = [match.start() for match in re.finditer(re.escape(signature), data)]
    if not places:
        return data
    offset, length = rng.choice(SIGNATURES[signature])
    place = rng.choice(places) + offset
    old = int.from_bytes(data[place : place + length], "little")
    new = rng.choice((rng.choice(EDGES), old + 1, old - 1, old ^ 1, old ^ 8, old ^ 2048))
    field_bytes = (new & (1 << 8 * length) - 1).to_bytes(length, "little")
    return data[:place] + field_bytes + data[place + length :]


NAMES = (
    b"X.npy",
    b"x.npy",
    b"y.npy",
    b"X_train.npy",
    b"y_train.npy",
    b"x_test.npy",
    b"y_test.npy",
    b"arr_0.npy",
    b"X_\xff\xfe.npy",
    b"X_\0.npy",
    b"X_.npy",
    b"X_/.npy",
    b"X",
    b"folder/",
    b"",
)
DESCRIPTIONS = (
    *("'|u1'", "'|i1'", "'<i2'", "'>i4'", "'<f4'", "'>f8'", "'|b1'", "'<u8'", "'<f2'", "'<f16'"),
    *("'|O'", "'|S0'", "'<U3'", "'|V7'", "'<M8[s]'", "'<c8'", "'a5'", "'(2,3)u1'", "'u1,u1'"),
    *(
        "[('a', '<u1')]",
        "[('a', '|O')]",
        "[]",
        "''",
        "'x'",
        "b'u1'",
        "None",
        "3",
        "(('a', 'b'), 'c')",
    ),
    *("'(2147483648,)u1'", "('<u1', (2, 2))", "'|u1\\d'", "{'a': 1}", "'<u1", "1if 1else 2"),
)
SHAPES = (
    *("(3, 16)", "(3,)", "()", "(-1, 16)", "(3, -16)", "(-3, -16)", "(True, 4)", "[3, 16]", "3"),
    *("(0, 0)", "(1099511627776, 0)", "(0, 9223372036854775808)", "(4294967295, 4294967295)"),
    *("(3L, 16L)", "(3.0, 16)", "(" + "1, " * 65 + ")", "(" * 150 + ")" * 150, "(3, 16, 1, 1)"),
    *("(9223372036854775807, 2)", "(1" + "0" * 5000 + ",)", "(-" * 900 + "1,)", "-" * 9000 + "1"),
    *("(300000000, 1)", "(70000, 0)", "{1: 2}[1]", "(1_0, 4)", "('3', 4)", "(\t3, 16", "(3,\n 16)"),
)


def _change_name(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    name = rng.choice((rng.choice(NAMES), havoc(member.name, rng)))
    return replace(member, name=name[:1000], flags=rng.choice((0, 2048)))


def _change_data(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    return replace(member, data=havoc(member.data, rng))


def _change_header(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    """Set type and shape, with elements of the right length where that is not very much."""
    descr = rng.choice((rng.choice(DESCRIPTIONS), "'|u1'", "'<f4'"))
    order = rng.choice(("False", "False", "False", "True", "0", "None"))
    shape = rng.choice((rng.choice(SHAPES), f"({rng.choice(SIZES)}, {rng.choice(SIZES)})", "(3,)"))
    version = rng.choice((1, 1, 1, 2, 3, rng.randrange(256)))
    elements = member.data[-rng.choice((1, 48, 1000)) :]
    if match := re.fullmatch(r"\((\d{1,9}), (\d{1,9})\)", shape):
        count = int(match[1]) * int(match[2]) * (4 if "4" in descr else 1)
        if count <= likely_small(rng):
            elements = bytes(count)
    head = npy_bytes(descr, order, shape, b"", version)
    if rng.random() < 0.1:
        head = havoc(head, rng)
    return replace(member, data=head + elements)


def _change_packing(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    return replace(
        member,
        method=rng.choice((STORED, DEFLATED, rng.choice((1, 9, 12, 14, 93, 65535)))),
        flags=rng.choice((0, 0, 1, 8, 32, 64, 2048, rng.randrange(65536))),
        extra=rng.choice((b"", rng.randbytes(9), struct.pack("<HHQ", 1, 8, rng.choice(EDGES)))),
    )


def _lie(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    size = len(member.data)
    said = rng.choice((size + 1, size - 1, size * 2, rng.choice(EDGES), 2**40, 2**63, 2**64 - 1))
    lie = rng.choice(("crc", "packed", "size", "offset", "zip64"))
    lies = {lie: said} | ({"packed": said} if rng.random() < 0.3 else {})
    return replace(member, lies=lies)


def _claim(member: Member, rng: random.Random, havoc: Havoc) -> Member:
    """Let header, size and packed size agree about elements that are not there."""
    count = rng.choice((10**6, 10**8, 10**10, 2**40, 2**62))
    shape = rng.choice((f"({count},)", f"({count // 100}, 100)"))
    data = npy_bytes("'|u1'", "False", shape, b"")
    size = len(data) + count
    method = rng.choice((STORED, DEFLATED))
    packed = size if method == STORED else rng.choice((size // 1000, len(data)))
    return replace(member, data=data, method=method, lies={"size": size, "packed": packed})


Change = Callable[[Member, random.Random, Havoc], Member]
CHANGES: tuple[Change, ...] = (
    _change_name,
    _change_data,
    _change_header,
    _change_header,
    _change_packing,
    _lie,
    _claim,
)

TARGET = Target("npz", seeds, mutate, check)
