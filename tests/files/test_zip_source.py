"""Members of zip archives: read at any offset, and nothing that a directory claims is believed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_zarr.errors import FileFormatError
from mnist_zarr.files import zip_source
from mnist_zarr.files.gzip_source import GzipSource
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.formats.npz import open_npz
from tests.support.archives import (
    IMAGES,
    SAVE,
    check_is_refused,
    directory_entry,
    npy_bytes,
    zip_of,
)


def two_members(damage: Callable[[bytes], bytes]) -> io.BytesIO:
    """Return an archive of X.npy and y.npy, stored, with some damage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zip_file:
        zip_file.writestr("X.npy", npy_bytes(IMAGES))
        zip_file.writestr("y.npy", npy_bytes(np.zeros(5, np.uint8)))
    return io.BytesIO(damage(file.getvalue()))


def set_in_directory(data: bytes, offset: int, value: int) -> bytes:
    """Set four bytes in the entry of the first member."""
    place = data.index(b"PK\1\2") + offset
    return data[:place] + value.to_bytes(4, "little") + data[place + 4 :]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (io.BytesIO(b"not a zip archive"), "not a whole zip archive"),
        (io.BytesIO(b""), "not a whole zip archive"),
        (
            two_members(lambda data: data.replace(b"y.npy", b"X.npy")),
            r"X\.npy: there are two members of this name",
        ),
        (
            two_members(lambda data: set_in_directory(data, 20, data.index(b"PK\1\2"))),
            r"X\.npy: .* says bytes 0 to 441 or more, but this member ends by byte 243",
        ),
        (
            two_members(lambda data: set_in_directory(data, 20, 2**31)),
            r"X\.npy: .* says bytes 0 to 2,147,483,678 or more",
        ),
        (
            io.BytesIO(set_in_directory(zip_of("X.npy", b"x").getvalue(), 20, 1000)),
            r"X\.npy: .* says bytes 0 to 1,030 or more, but this member ends by byte 1\d\d;",
        ),
        (
            two_members(lambda data: set_in_directory(data, 24, 2**31)),
            r"X\.npy: stored uncompressed, 2,147,483,648 bytes in 208",
        ),
        (
            two_members(lambda data: set_in_directory(data, 8, 1 << 5)),
            r"X\.npy: encrypted or a patch",
        ),
        (
            zip_of("X.npy", npy_bytes(IMAGES), zipfile.ZIP_LZMA),
            r"method 14; expected 0 \(stored\) or 8",
        ),
    ],
)
def test_a_directory_that_cannot_be_true_is_refused(
    archive: io.BytesIO, message: str, tmp_path: Path
) -> None:
    check_is_refused(archive, tmp_path, FileFormatError, message)


@pytest.mark.parametrize("kind", SAVE)
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 9, (40, 4, 4)).astype(np.uint8)
    SAVE[kind](tmp_path / "good.npz", X=image)
    good = (tmp_path / "good.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.npz") as zip_file:
        first = zip_file.infolist()[0]
    data_end = 30 + len("X.npy") + 20 + first.compress_size  # numpy adds 20 bytes of zip64
    rng = np.random.default_rng(1)
    for place in [0, 1, 7, 30, *rng.integers(55, data_end, 60).tolist()]:
        damaged = bytearray(good)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.npz").write_bytes(damaged)
        try:
            read = open_npz(tmp_path / "bad.npz").image.values
        except FileFormatError:
            pass
        else:  # a field of the local header that the directory has too
            assert place <= 30
            np.testing.assert_array_equal(read, image)
    for length in rng.integers(0, len(good), 20).tolist():
        (tmp_path / "bad.npz").write_bytes(good[:length])
        with pytest.raises(FileFormatError, match=r"bad\.npz"):
            open_npz(tmp_path / "bad.npz")


def test_a_length_in_the_directory_that_cannot_be_is_refused() -> None:
    good = zip_of("X.npy", npy_bytes(IMAGES)).getvalue()
    directory = directory_entry(good)
    bad = bytearray(good)
    bad[directory + 24 : directory + 28] = (2**31).to_bytes(4, "little")
    with pytest.raises(FileFormatError, match="deflated bytes cannot hold 2,147,483,648"):
        open_npz(io.BytesIO(bytes(bad)))


@pytest.mark.parametrize("kind", SAVE)
def test_a_wrong_checksum_is_noticed_at_the_end(tmp_path: Path, kind: str) -> None:
    SAVE[kind](tmp_path / "a.npz", X=np.zeros((3000, 8, 8), np.uint8))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[directory_entry(data) + 16] ^= 1  # of the CRC-32
    (tmp_path / "a.npz").write_bytes(data)
    image = open_npz(tmp_path / "a.npz").image
    image[:2000].load()
    for _ in range(2):  # it is no better the second time
        with pytest.raises(
            FileFormatError, match=r"a\.npz: X\.npy: (checksum|damaged deflate data)"
        ):
            image[2000:].load()


def test_bytes_beyond_the_length_in_the_directory_are_noticed() -> None:
    whole = npy_bytes(np.zeros((3000, 8, 8), np.uint8))
    data = bytearray(zip_of("X.npy", whole + b"more").getvalue())
    size = directory_entry(data) + 24
    data[size : size + 4] = len(whole).to_bytes(4, "little")
    with pytest.raises(FileFormatError, match="expected 192,128 bytes, got more"):
        open_npz(io.BytesIO(bytes(data))).load()


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zip_of("X.npy", npy_bytes(IMAGES)).getvalue())
    data[directory_entry(data) + 8] |= 1
    with pytest.raises(FileFormatError, match=r"X\.npy: encrypted"):
        open_npz(io.BytesIO(bytes(data)))


def test_members_are_read_at_any_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GzipSource, "FIRST_SPACING_BYTES", 5000)
    data = np.random.default_rng(2).integers(0, 4, 100_000).astype(np.uint8).tobytes()
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        (tmp_path / "a.zip").write_bytes(zip_of("folder/data", data, method).getvalue())
        (member,) = zip_source.zip_members(open_bytes(tmp_path / "a.zip")).values()
        rng = np.random.default_rng(3)
        for offset, count in rng.integers(0, 100_000, (40, 2)).tolist():
            assert member.read(offset, count) == data[offset : offset + count]
        assert member.read(100_000, 5) == b""
        assert member.sha256() == open_bytes(tmp_path / "a.zip").sha256()
