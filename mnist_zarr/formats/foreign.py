"""What else is found on disk under the name of an IDX file, told by its first bytes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mnist_zarr.files.urls import is_url

PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")  # PNG, JPEG, GIF
# Where a page came from instead of a file.
PAGE_ON_DISK = "the download failed and the error page was saved"
PAGE_OF_SERVER = "the URL of a folder ends with a slash; for a file, the server sent another page"
ANNEX = "a git-annex pointer; fetch the file with 'git annex get'"
FORMATS = (
    (b"<", "an HTML or XML page; {page}"),
    (b"404", "an error page; {page}"),
    (b"Not Found", "an error page; {page}"),
    (b"PK\x03\x04", "a zip archive, which open_idx and build read as it is"),
    (b"\xfd7zXZ\x00", "an xz file; decompress it with 'xz -d'"),
    (b"BZh", "a bzip2 file; decompress it with 'bunzip2'"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; decompress it with 'zstd -d'"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; extract it first"),
    (b"Rar!", "a RAR archive; extract it first"),
    (b"\x93NUMPY", "a NumPy .npy file; read it with numpy.load"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file; read it with pandas.read_parquet"),
    (b"MATLAB", "a MATLAB file; read it with scipy.io.loadmat, and write it with write_idx"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with 'git lfs pull'"),
    (b"/annex/objects/", ANNEX),
    (b"{", "JSON text"),
    *((start, "a picture; name the folder that it is in") for start in PICTURE_MAGIC),
)
TAR_MAGIC, TAR_MAGIC_OFFSET = b"ustar", 257
# "\x80", the version of the protocol, and an opcode, as of CIFAR-10.
PICKLE = re.compile(rb"\x80[\x02-\x05][\x20-\x7e\x80-\x95]")
# What git writes in place of a link where the system has none.
LINK_TEXT = re.compile(r"(?:\.{0,2}/)?(?:[^/\s,;]+/)+[^/\s,;]+")
TABLE_TEXT = re.compile(r"[^\n,;\t]*(?:[,;\t][^\n,;\t]*)+(?:\n|$)")
MAX_QUOTED = 40
# The matrix format of NORB and small NORB: https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/
NORB_MAGIC, NORB_TYPES = b"\x4c\x3d\x1e", range(0x51, 0x57)


def describe_content(head: bytes, name: str, dtypes: Mapping[int, np.dtype[Any]]) -> str | None:
    """Return what a file is that is no IDX file, and what to do; None if that cannot be told.

    Parameters
    ----------
    head : bytes
        Its first bytes, 1024 if there are as many.
    name : str
        Its name or URL.
    dtypes : mapping
        From each type code of IDX to the type.

    Examples
    --------
    >>> describe_content(b"404: Not Found", "train-images-idx3-ubyte", {})
    'an error page; the download failed and the error page was saved'
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what in FORMATS:
        if start.startswith(magic):
            return what.format(page=PAGE_OF_SERVER if is_url(name) else PAGE_ON_DISK)
    if head[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC):
        return "a tar archive; extract it first"
    if PICKLE.match(head):
        return (
            "a Python pickle, of which nothing is loaded, as it can run any code; if you trust it, "
            "make a Dataset of its arrays with make_dataset"
        )
    if head[1:4] == NORB_MAGIC and head[0] in NORB_TYPES:
        return (
            "the matrix format of (small) NORB; read it with numpy.fromfile, as its description "
            "says, and write it with write_idx"
        )
    return _describe_little_endian(head, name, dtypes) or _describe_text(head)


def _describe_little_endian(
    head: bytes, name: str, dtypes: Mapping[int, np.dtype[Any]]
) -> str | None:
    if len(head) < 4:
        return None
    rank, dtype = head[0], dtypes.get(head[1])
    header_bytes = 4 + 4 * rank
    if head[2:4] != b"\0\0" or dtype is None or not rank or len(head) < header_bytes:
        return None
    shape = struct.unpack_from(f"<{rank}I", head, 4)
    if math.prod(shape) * dtype.itemsize >= 2**48:  # not as any file is
        return None
    return (
        "the header of one in little-endian order, as programs leave it that write integers as "
        "they lie in memory (fwrite of C and MATLAB, tofile of NumPy); read it with "
        f"numpy.fromfile({name!r}, '{dtype.newbyteorder('<').str}', offset={header_bytes})"
        f".reshape{shape}, and write it with write_idx"
    )


def _describe_text(head: bytes) -> str | None:
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return None
    line = text.partition("\n")[0].strip()
    if ".git/annex/objects/" in line:
        return ANNEX
    if len(head) < 1024 and LINK_TEXT.fullmatch(text.strip()):
        return f"the path of another file, as git leaves it instead of a link; name {line!r}"
    quoted = line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}..."
    if TABLE_TEXT.match(text):
        return (
            f"a table, such as CSV, that begins with {quoted!r}; read it with pandas.read_csv, and "
            "make a Dataset of its arrays with make_dataset"
        )
    return f"text that begins with {quoted!r}"
