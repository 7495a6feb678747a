"""Files that are no IDX files are named for what they are, whatever they are called."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_zarr.errors import IdxFormatError
from mnist_zarr.formats.idx import read_idx, write_idx
from tests.support.partners import partner

scipy_io = partner("scipy.io")


def tar_bytes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train-images-idx3-ubyte"))
    return file.getvalue()


def matlab_bytes() -> bytes:
    file = io.BytesIO()
    scipy_io.savemat(file, {"X": np.zeros((2, 2))})
    return file.getvalue()


def little_endian(array: npt.NDArray[Any]) -> bytes:
    """An IDX file as NumPy's tofile leaves it, with integers in the order of the machine."""
    code = {"uint8": 8, "int32": 12}[str(array.dtype)]
    header = np.array([code << 8 | array.ndim, *array.shape], "<u4")
    return header.tobytes() + array.astype(array.dtype.newbyteorder("<")).tobytes()


ANNEX_LINK = b"../.git/annex/objects/7X/9w/MD5E-s9--0a1b/MD5E-s9--0a1b"
FOUND = {
    "tar": (tar_bytes(), "a tar archive; extract it first"),
    "pickle": (pickle.dumps({"data": [1, 2]}), "a Python pickle, of which nothing is loaded"),
    "old pickle": (pickle.dumps([1], protocol=2), "a Python pickle, of which nothing is loaded"),
    "MATLAB": (matlab_bytes(), "a MATLAB file; read it with scipy.io.loadmat"),
    "small NORB": (bytes.fromhex("554c3d1e04000000") + bytes(64), "format of (small) NORB"),
    "CSV": (b"label,pixel1,pixel2\n5,0,0\n", "CSV, that begins with 'label,pixel1,pixel2'; read"),
    "numbers": (b"5,0,0\r\n3,1,2\r\n", "a table, such as CSV, that begins with '5,0,0'"),
    "404": (b"404: Not Found", "an error page; the download failed"),
    "Not Found": (b"Not Found\n", "an error page; the download failed"),
    "git-annex": (b"/annex/objects/MD5E-s9--0a1b\n", "a git-annex pointer; fetch the file with"),
    "annex link": (ANNEX_LINK, "a git-annex pointer; fetch the file with 'git annex get'"),
    "link": (b"../raw/train-images-idx3-ubyte", "name '../raw/train-images-idx3-ubyte'"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive; extract it first"),
    "RAR": (b"Rar!\x1a\7\0", "a RAR archive; extract it first"),
    "Parquet": (b"PAR1\x15\4", "a Parquet file; read it with pandas"),
    "text": (b"Quota exceeded", "text that begins with 'Quota exceeded'"),
    "long text": (b"x" * 5000, f"text that begins with '{'x' * 40}...'"),
}


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize("compress", [False, True])
def test_the_message_says_what_a_file_is(tmp_path: Path, kind: str, compress: bool) -> None:
    data, said = FOUND[kind]
    (path := tmp_path / "train-images-idx3-ubyte").write_bytes(
        gzip.compress(data) if compress else data
    )
    with pytest.raises(IdxFormatError, match=f"expected an IDX file, got .*{re.escape(said)}"):
        read_idx(path)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_the_code_of_the_message_reads_a_little_endian_file(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    (path := tmp_path / "x").write_bytes(little_endian(array))
    with pytest.raises(IdxFormatError, match=r"in little-endian order, .*\(fwrite of C") as caught:
        read_idx(path)
    found = re.search(r"read it with numpy\.(fromfile.*), and write it", str(caught.value))
    assert found is not None
    read = eval(f"np.{found[1]}")
    np.testing.assert_array_equal(read, array)
    write_idx(read, tmp_path / "y")
    np.testing.assert_array_equal(read_idx(tmp_path / "y"), array)


@pytest.mark.parametrize("data", [b"\x03", b"\x03\x08", b"\x03\xff\xfe\x01"])
def test_bytes_that_tell_nothing_are_quoted(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(IdxFormatError, match=rf"expected the four bytes .*, got {data.hex(' ')}"):
        read_idx(tmp_path / "x")
