"""The IDX format: what is read, what is written, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.errors import (
    FileFormatError,
    IdxFormatError,
    IdxTypeError,
    SourceError,
    SourceNotFoundError,
    TargetExistsError,
)
from mnist_zarr.formats.idx import IdxFile, IdxHeader, parse_header, read_idx, write_idx
from tests.support.digits import MNIST_MD5
from tests.support.memory import traced_memory
from tests.support.raw_idx import NUMPY_CODE_OF_TYPE, assert_same_bits, raw_idx


@st.composite
def idx_files(draw: st.DrawFn, max_rank: int = 5) -> tuple[bytes, npt.NDArray[Any]]:
    """Draw the bytes of a file, and the array that a dumb reader makes of them."""
    type_code = draw(st.sampled_from(list(NUMPY_CODE_OF_TYPE)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=max_rank)))
    dtype = np.dtype(NUMPY_CODE_OF_TYPE[type_code])
    n_bytes = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=n_bytes, max_size=n_bytes))
    expected = np.frombuffer(data, dtype).reshape(shape)
    return raw_idx(type_code, shape, data), expected.astype(dtype.newbyteorder("="))


# -- reading -----------------------------------------------------------------------------


@given(idx_files(), st.booleans())
def test_any_file_reads_as_a_dumb_reader_reads_it(
    file: tuple[bytes, npt.NDArray[Any]], packed: bool
) -> None:
    data, expected = file
    got = read_idx(io.BytesIO(gzip.compress(data) if packed else data))
    assert_same_bits(got, expected)
    assert got.flags.writeable


@given(idx_files(), st.booleans(), st.data())
def test_any_range_of_rows_is_the_slice(
    file: tuple[bytes, npt.NDArray[Any]], packed: bool, data: st.DataObject
) -> None:
    encoded, expected = file
    idx = IdxFile(io.BytesIO(gzip.compress(encoded) if packed else encoded))
    if not expected.ndim:
        expected = expected.reshape(1)
    for _ in range(3):
        start = data.draw(st.integers(0, len(expected)))
        stop = data.draw(st.integers(start, len(expected)))
        assert_same_bits(idx.read_samples(start, stop), expected[start:stop])


@pytest.mark.parametrize("rank", [6, 17, 64])
def test_high_ranks_are_read_as_far_as_numpy_goes(rank: int) -> None:
    shape = (2,) * min(rank, 8) + (1,) * (rank - min(rank, 8))
    data = bytes(range(math.prod(shape) % 257)) or bytes(256)
    got = read_idx(io.BytesIO(raw_idx(0x08, shape, data[: math.prod(shape)])))
    assert got.shape == shape
    assert got.tobytes() == data[: math.prod(shape)]


@pytest.mark.parametrize("rank", [65, 255])
def test_more_dimensions_than_numpy_has_are_refused_with_that_reason(rank: int) -> None:
    with pytest.raises(IdxFormatError, match=rf"byte 3: rank {rank}: .* at most 64 dimensions"):
        read_idx(io.BytesIO(raw_idx(0x08, (1,) * rank, b"\7")))


def test_several_bytes_are_big_endian() -> None:
    assert read_idx(
        io.BytesIO(raw_idx(0x0C, (2,), bytes.fromhex("00000001fffffffe")))
    ).tolist() == [
        1,
        -2,
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_paths_urls_and_open_files_give_the_same(
    tmp_path: Path, memory_url: str, packed: bool
) -> None:
    data = raw_idx(0x08, (2, 3), b"abcdef")
    # The name does not tell gzip from raw: the content does.
    path = tmp_path / ("wrong-name" if packed else "wrong-name.gz")
    path.write_bytes(gzip.compress(data) if packed else data)
    with fsspec.open(f"{memory_url}/x", "wb") as file:
        file.write(path.read_bytes())
    with path.open("rb") as opened:
        got = [read_idx(source) for source in (path, str(path), opened, f"{memory_url}/x")]
    assert [array.tobytes() for array in got] == [b"abcdef"] * 4


def test_an_open_file_is_read_from_where_it_stands() -> None:
    file = io.BytesIO(b"something else" + raw_idx(0x08, (2,), b"ab"))
    file.seek(len("something else"))
    assert read_idx(file).tobytes() == b"ab"


@pytest.mark.parametrize("name", MNIST_MD5)
def test_a_file_of_mnist_is_written_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    path = BUNDLED_FILES / f"{name}.gz"
    raw = gzip.decompress(path.read_bytes())
    assert hashlib.md5(raw).hexdigest() == MNIST_MD5[name]
    write_idx(read_idx(path), tmp_path / name)
    assert (tmp_path / name).read_bytes() == raw


# -- writing -----------------------------------------------------------------------------


@given(idx_files())
def test_what_was_read_is_written_byte_for_byte(file: tuple[bytes, npt.NDArray[Any]]) -> None:
    data, array = file
    target = io.BytesIO()
    write_idx(array, target)
    assert target.getvalue() == data


@given(idx_files(max_rank=3))
def test_the_byte_order_in_memory_does_not_matter(file: tuple[bytes, npt.NDArray[Any]]) -> None:
    data, array = file
    for dtype in (array.dtype.newbyteorder("<"), array.dtype.newbyteorder(">")):
        target = io.BytesIO()
        write_idx(array.astype(dtype), target)
        assert target.getvalue() == data


@pytest.mark.parametrize("rank", [1, 64])
def test_a_header_has_the_four_bytes_and_the_sizes(rank: int) -> None:
    header = IdxHeader(np.dtype("int16"), (1,) * rank)
    assert header.to_bytes() == raw_idx(0x0B, (1,) * rank, b"")
    assert parse_header(header.to_bytes(), "x") == header
    assert (header.header_bytes, header.file_bytes) == (4 + 4 * rank, 6 + 4 * rank)


def test_lazy_arrays_are_written_block_by_block() -> None:
    array = np.arange(6 * 4, dtype=np.int32).reshape(6, 4)
    plain, lazy, labelled = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_idx(array, plain)
    write_idx(xr.DataArray(array).chunk(2).data, lazy)
    write_idx(xr.DataArray(array).chunk(3), labelled)
    assert plain.getvalue() == lazy.getvalue() == labelled.getvalue()


def test_a_name_that_ends_with_gz_gets_gzip_and_equal_data_give_equal_files(
    tmp_path: Path,
) -> None:
    array = np.arange(5, dtype=np.uint8)
    write_idx(array, tmp_path / "a.gz")
    write_idx(array, tmp_path / "b.gz")
    packed = (tmp_path / "a.gz").read_bytes()
    assert packed == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress(packed) == raw_idx(0x08, (5,), array.tobytes())


@pytest.mark.parametrize(
    "dtype", ["bool", "int64", "uint16", "uint32", "float16", "complex64", "U3", "O", "M8[s]"]
)
def test_a_type_that_idx_cannot_hold_is_refused_and_nothing_is_made(
    dtype: str, tmp_path: Path
) -> None:
    with pytest.raises(IdxTypeError, match=r"IDX cannot hold .*; convert with \.astype") as caught:
        write_idx(np.zeros(2, dtype), tmp_path / "x")
    assert isinstance(caught.value, TypeError)
    assert "x: " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"precious")
    with pytest.raises(TargetExistsError, match="exists already"):
        write_idx(np.zeros(2, np.uint8), target)
    assert target.read_bytes() == b"precious"
    write_idx(np.zeros(2, np.uint8), target, overwrite=True)
    assert read_idx(target).tolist() == [0, 0]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    class Failing:
        shape = (4 << 20, 2)
        dtype = np.dtype("uint8")

        def __getitem__(self, key: slice) -> npt.NDArray[np.uint8]:
            if key.start:
                raise RuntimeError("the source broke")
            return np.zeros((key.stop, 2), np.uint8)

    target = tmp_path / "x"
    target.write_bytes(b"precious")
    with pytest.raises(RuntimeError, match="the source broke"):
        write_idx(Failing(), target, overwrite=True)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


# -- bad input ---------------------------------------------------------------------------

GOOD = raw_idx(0x08, (2, 3), b"abcdef")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"byte 0: the file is empty; expected an IDX header"),
        (b"\0\0", r"byte 0: expected the four bytes 00 00 TYPE RANK .*, got 00 00$"),
        (b"\1\0\x08\1\0\0\0\0", r"byte 0: expected the four bytes .*, got 01 00 08 01"),
        (b"\0\0\x0a\1\0\0\0\0", r"byte 2: unknown IDX type 0x0A; expected one of 0x08 uint8"),
        (b"\0\0\x08\3\0\0\0\1\0\0", r"byte 4: the header is short: expected 12 bytes .* got 6"),
        (GOOD[:-1], r"byte 17: the data end here; shape \(2, 3\) of uint8 needs 18 bytes, got 17"),
        (GOOD[:12], r"byte 12: the data end here; .* needs 18 bytes, got 12"),
        (GOOD + b"!", r"byte 18: the data of shape \(2, 3\) .* end here, but 1 bytes follow"),
        (b"<!DOCTYPE html><html>", r"byte 0: expected an IDX file, got an HTML or XML page"),
        (b"\xef\xbb\xbf\n <html>", r"got an HTML or XML page; the download failed"),
        (b"PK\x03\x04....", r"got a zip archive, which open_idx and build read as it is"),
        (b"\xfd7zXZ\0....", r"got an xz file"),
        (b"BZh91AY", r"got a bzip2 file"),
        (b"\x28\xb5\x2f\xfd....", r"got a zstd file"),
        (b'{"error": "not found"}', r"got JSON text"),
        (b"version https://git-lfs.github.com/spec/v1", r"got a Git LFS pointer"),
        (b"\x93NUMPY\1\0", r"got a NumPy \.npy file"),
        (b"\x89HDF\r\n", r"got an HDF5 file"),
        (b"\x89PNG\r\n", r"got a picture; name the folder that it is in"),
        (b"\xff\xd8\xff\xe0", r"got a picture; name the folder"),
        (b"GIF89a", r"got a picture; name the folder"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_whole_idx_file_is_named(
    data: bytes, message: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(data) if packed else data)
    if packed:
        message = message.replace(": the data", " of the gunzipped data: the data")
        message = message.replace("but 1 bytes", "but more bytes")
    with pytest.raises(IdxFormatError, match=message) as caught:
        read_idx(path)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("packed", [False, True])
def test_a_short_file_claiming_2_to_the_64_bytes_fails_at_once(packed: bool) -> None:
    claim = raw_idx(0x08, (2**32 - 1, 2**32 - 1), b"\1\2\3\4")
    data = gzip.compress(claim) if packed else claim
    with traced_memory() as peak_bytes:
        with pytest.raises(IdxFormatError, match=r"needs 18,446,744,06[0-9],[0-9]{3},[0-9]{3}"):
            IdxFile(io.BytesIO(data))
        assert peak_bytes() < 1_000_000


def test_a_plausible_claim_allocates_no_more_than_there_is() -> None:
    # 1 MB of gzip could hold 900 MB, and so this claim cannot be refused at once.
    noise = np.random.default_rng(0).bytes(1_000_000)
    data = gzip.compress(raw_idx(0x08, (900_000_000,), noise), compresslevel=1)
    with traced_memory() as peak_bytes:
        with pytest.raises(IdxFormatError, match=r"byte 1000008 of the gunzipped data"):
            read_idx(io.BytesIO(data))
        assert peak_bytes() < 40_000_000


def test_a_gzip_bomb_is_not_unpacked_further_than_the_header_says() -> None:
    bomb = gzip.compress(raw_idx(0x08, (10,), bytes(300_000_000)), compresslevel=1)
    with traced_memory() as peak_bytes:
        with pytest.raises(IdxFormatError, match="but more bytes follow"):
            read_idx(io.BytesIO(bomb))
        assert peak_bytes() < len(bomb) + 5_000_000


def test_claims_that_only_zero_lengths_make_true_are_refused_as_too_large() -> None:
    with pytest.raises(IdxFormatError, match="larger than any NumPy array"):
        read_idx(io.BytesIO(raw_idx(0x0E, (0, 2**32 - 1, 2**32 - 1), b"")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], r"the gzip data end at byte \d+, in the middle of a gzip member"),
        (lambda data: data[:30], r"the file is truncated"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], r"damaged gzip data .*check"),
        (lambda data: data[:-4] + b"\1\1\1\1", r"damaged gzip data .*length"),
        (lambda data: data[:60] + b"\xff\xff\xff" + data[63:], r"damaged gzip data"),
        (gzip.compress, r"gzip inside gzip"),
        (lambda data: data + b"rubbish", r"damaged gzip data"),
    ],
)
def test_damaged_gzip_is_named_with_its_place(damage: Any, message: str, tmp_path: Path) -> None:
    digits = read_idx(BUNDLED_FILES / "t10k-images-idx3-ubyte.gz")[:50]
    path = tmp_path / "x.gz"
    write_idx(digits, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileFormatError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, IdxFormatError)


def test_gzip_of_several_members_and_padding_is_one_file() -> None:
    data = gzip.compress(GOOD[:7]) + gzip.compress(b"") + gzip.compress(GOOD[7:]) + bytes(100)
    assert read_idx(io.BytesIO(data)).tobytes() == b"abcdef"


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"nothing: there is no such file") as caught:
        read_idx(tmp_path / "nothing")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(SourceError, match="expected a file, got a folder"):
        read_idx(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="file/x: cannot be read: Not a directory"):
        read_idx(tmp_path / "file" / "x")


def test_a_file_opened_as_text_is_refused_with_the_mode_to_use(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(GOOD)
    with (tmp_path / "x").open() as file, pytest.raises(SourceError, match="mode 'rb'"):
        read_idx(file)  # type: ignore[arg-type]


def test_billions_of_rows_without_elements_take_no_memory() -> None:
    rows = read_idx(io.BytesIO(raw_idx(0x08, (2**32 - 1, 0), b"")))
    assert rows.shape == (2**32 - 1, 0)


# -- memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_streaming_holds_a_few_blocks(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("x.gz" if packed else "x")
    write_idx(np.zeros((60_000, 784), np.uint8), path)  # 47 MB
    rows = 0
    with traced_memory() as peak_bytes:
        file = IdxFile(path)
        for start in range(0, 60_000, 1200):
            rows += len(file.read_samples(start, start + 1200))
        assert peak_bytes() < 6_000_000
    assert rows == 60_000
