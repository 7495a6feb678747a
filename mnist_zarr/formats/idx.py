"""The IDX file format: header, blocks of samples, random access, writing.

The format is the one that MNIST came in. All integers are big-endian::

    byte 0   00 00          always zero
    byte 2   08             type: 08 uint8, 09 int8, 0B int16, 0C int32,
                                  0D float32, 0E float64
    byte 3   03             rank: the number of dimensions, 0 to 255
    byte 4   00 00 EA 60    size of dimension 0, an unsigned 32-bit integer
             00 00 00 1C    size of dimension 1
             00 00 00 1C    size of dimension 2
    byte 16  ...            the elements, in C order

Source: Y. LeCun, "The MNIST database of handwritten digits", section "The IDX
file format".

A *sample* is one index along dimension 0: one image, one label.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.blocks import block_bounds
from mnist_zarr.errors import IdxFormatError, IdxTypeError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.output import check_writable, create_file
from mnist_zarr.files.sources import PathOrFile, describe, open_bytes
from mnist_zarr.formats.foreign import describe_content

DTYPE_OF_TYPE_CODE: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
TYPE_CODE_OF_DTYPE = {dtype: code for code, dtype in DTYPE_OF_TYPE_CODE.items()}
MAX_RANK = 255
MAX_NUMPY_RANK = 64
MAX_NUMPY_BYTES = np.iinfo(np.intp).max
MAX_DIM_SIZE = 2**32 - 1


class ArrayLike(Protocol):
    """What can be written: NumPy, dask and xarray arrays, and others that are sliced alike."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class IdxHeader:
    """Type and shape as an IDX file states them.

    Examples
    --------
    >>> IdxHeader(np.dtype("uint8"), (60000, 28, 28)).to_bytes().hex(" ", 4)
    '00000803 0000ea60 0000001c 0000001c'
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def header_bytes(self) -> int:
        """Length of the header: the offset of the first element."""
        return 4 + 4 * len(self.shape)

    @property
    def file_bytes(self) -> int:
        """Length of the whole file, decoded."""
        return self.header_bytes + math.prod(self.shape) * self.dtype.itemsize

    @property
    def sample_bytes(self) -> int:
        """Length of one sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def n_samples(self) -> int:
        """Number of samples; a file of rank 0 has one."""
        return self.shape[0] if self.shape else 1

    def to_bytes(self) -> bytes:
        """Return the header as in a file."""
        magic = bytes([0, 0, TYPE_CODE_OF_DTYPE[self.dtype], len(self.shape)])
        return magic + np.asarray(self.shape, dtype=">u4").tobytes()


def parse_header(head: bytes, name: str) -> IdxHeader:
    """Parse the header of a file.

    Parameters
    ----------
    head : bytes
        The first bytes: at least the header, for which 1024 always suffice.
    name : str
        What messages call the file.

    Raises
    ------
    IdxFormatError
        If the bytes are not an IDX header.
    """
    if head[:2] != b"\0\0" or len(head) < 4:
        raise IdxFormatError(_describe_wrong_magic(head, name))
    dtype: np.dtype[Any] | None = DTYPE_OF_TYPE_CODE.get(head[2])
    if dtype is None:
        known = ", ".join(f"0x{code:02X} {dtype}" for code, dtype in DTYPE_OF_TYPE_CODE.items())
        raise IdxFormatError(
            f"{name}: byte 2: unknown IDX type 0x{head[2]:02X}; expected one of {known}"
        )
    rank = head[3]
    dims = head[4 : 4 + 4 * rank]
    if len(dims) < 4 * rank:
        raise IdxFormatError(
            f"{name}: byte 4: the header is short: expected {4 * rank} bytes with the sizes of "
            f"{rank} dimensions, got {len(dims)}; the file is truncated"
        )
    return IdxHeader(dtype, tuple(np.frombuffer(dims, dtype=">u4").tolist()))


def _describe_wrong_magic(head: bytes, name: str) -> str:
    if not head:
        return f"{name}: byte 0: the file is empty; expected an IDX header"
    if content := describe_content(head, name, DTYPE_OF_TYPE_CODE):
        return f"{name}: byte 0: expected an IDX file, got {content}"
    return (
        f"{name}: byte 0: expected the four bytes 00 00 TYPE RANK of an IDX file, "
        f"got {head[:4].hex(' ')}"
    )


class IdxFile:
    """One IDX file, open for reading: its header, and its samples in any order.

    The header is checked against the length of the file at once, so that no
    memory is allocated for bytes that are not there. No file stays open, and the
    object can be pickled unless it was made from an open file.

    Parameters
    ----------
    source : str, os.PathLike, binary file or ByteSource
        A path, an fsspec URL or an open binary file; raw or gzip.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Attributes
    ----------
    name : str
        What messages call the file.
    bytes : ByteSource
        Its bytes.
    header : IdxHeader
        Type and shape.
    seeks_cheaply : bool
        Whether samples in any order cost about the same (raw), or reading is
        sequential in the end (gzip).

    Raises
    ------
    FileFormatError
        As for :func:`read_idx`; also when samples are read.
    SourceNotFoundError, SourceError, MissingExtraError
        As for :func:`read_idx`.
    """

    def __init__(
        self, source: PathOrFile | ByteSource, *, storage_options: dict[str, Any] | None = None
    ) -> None:
        self.bytes: ByteSource = open_bytes(source, storage_options=storage_options)
        self.name = self.bytes.name
        self.seeks_cheaply = self.bytes.seeks_cheaply
        self.header = parse_header(bytes(self.bytes.read(0, 4 + 4 * MAX_RANK)), self.name)
        self._check_length()
        _check_numpy_can_hold(self.header, self.name)

    def __repr__(self) -> str:
        return f"<IdxFile {self.name!r} {self.header.dtype} {self.header.shape}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements, in native byte order."""
        return self.header.dtype

    @property
    def identity(self) -> str | None:
        """What tells this version of the file from any other, as far as that is known."""
        return self.bytes.identity

    def read(self) -> npt.NDArray[Any]:
        """Return the whole array, writable, in native byte order."""
        return self.read_samples(0, self.header.n_samples).reshape(self.shape)

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included); a file of rank 0 has one.

        Returns
        -------
        numpy.ndarray
            Shape ``(stop - start, *shape[1:])``.
        """
        header = self.header
        offset = header.header_bytes + start * header.sample_bytes
        count = (stop - start) * header.sample_bytes
        array = np.frombuffer(self._read_bytes(offset, count), dtype=header.dtype.newbyteorder(">"))
        array = array.reshape(stop - start, *self.shape[1:])
        if stop == header.n_samples:
            self._check_end()
        if array.dtype.isnative:
            return array
        return array.byteswap(inplace=True).view(header.dtype)

    def _read_bytes(self, offset: int, count: int) -> bytearray | npt.NDArray[np.uint8]:
        if self.bytes.size is None:
            data: bytearray | npt.NDArray[np.uint8] = self.bytes.read(offset, count)
            got = len(data)
        else:  # the length has been checked: allocate once
            data = np.empty(count, dtype=np.uint8)
            got = self.bytes.read_into(offset, data.data)
        if got < count:
            raise _short_data(self, offset + got)
        return data

    def _check_length(self) -> None:
        expected = self.header.file_bytes
        size, limit = self.bytes.size, self.bytes.size_limit
        if size is not None and size > expected:
            raise _trailing_bytes(self, size - expected)
        if size is not None and size < expected:
            raise _short_data(self, size)
        if limit is not None and limit < expected:
            raise IdxFormatError(
                f"{self.name}: byte 4: shape {_show(self.shape)} of {self.dtype} needs "
                f"{expected:,} bytes, but the gzip file cannot hold more than {limit:,}; "
                "the header is damaged or the file truncated"
            )

    def _check_end(self) -> None:
        """Look one byte past the end, which also makes gzip check its checksum."""
        expected = self.header.file_bytes
        if self.bytes.size is None and self.bytes.read(expected, 1):
            raise _trailing_bytes(self, None)


def _check_numpy_can_hold(header: IdxHeader, name: str) -> None:
    shape, dtype = header.shape, header.dtype
    if len(shape) > MAX_NUMPY_RANK:
        raise IdxFormatError(
            f"{name}: byte 3: rank {len(shape)}: a NumPy array has at most {MAX_NUMPY_RANK} "
            "dimensions, so this file cannot become an array"
        )
    # NumPy counts the other dimensions even where one has length zero.
    if math.prod(size for size in shape if size) * dtype.itemsize > MAX_NUMPY_BYTES:
        raise IdxFormatError(
            f"{name}: byte 4: shape {_show(shape)} of {dtype} is larger than any NumPy array"
        )


def _short_data(file: IdxFile, size: int) -> IdxFormatError:
    return IdxFormatError(
        f"{file.name}: {file.bytes.where(size)}: the data end here; shape {_show(file.shape)} of "
        f"{file.dtype} needs {file.header.file_bytes:,} bytes, got {size:,}; the file is "
        "truncated: fetch it again"
    )


def _trailing_bytes(file: IdxFile, count: int | None) -> IdxFormatError:
    return IdxFormatError(
        f"{file.name}: {file.bytes.where(file.header.file_bytes)}: the data of shape "
        f"{_show(file.shape)} of {file.dtype} end here, but "
        f"{'more' if count is None else f'{count:,}'} bytes follow; expected the end of the file"
    )


def _show(shape: tuple[int, ...]) -> str:
    if len(shape) > 6:
        return f"({', '.join(map(str, shape[:6]))}, ... {len(shape)} dimensions)"
    return str(shape)


def read_idx(
    source: PathOrFile, *, storage_options: dict[str, Any] | None = None
) -> npt.NDArray[Any]:
    """Read a whole IDX file into one array.

    Parameters
    ----------
    source : str, os.PathLike or binary file
        A path, an fsspec URL or an open binary file; raw or gzip, which is
        told by content.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Returns
    -------
    numpy.ndarray
        Of the file's shape and type (uint8, int8, int16, int32, float32 or
        float64), in native byte order, writable.

    Raises
    ------
    IdxFormatError
        If the file is not a whole IDX file (the message says where: file, byte,
        expected, got), or has more than the 64 dimensions of a NumPy array.
    FileFormatError
        If its gzip data are damaged, or gzip again.
    SourceNotFoundError
        If there is no such file.
    SourceError
        If the file cannot be read, or changes while it is read.
    OptionError
        If the source is no path or URL, or ``storage_options`` is no dictionary.
    MissingExtraError
        If the package that knows the URL is not installed.

    See Also
    --------
    open_idx : lazily, for files larger than memory.

    Examples
    --------
    >>> import io
    >>> read_idx(io.BytesIO(bytes.fromhex("00000801 00000003 050004")))
    array([5, 0, 4], dtype=uint8)
    """
    return IdxFile(source, storage_options=storage_options).read()


def write_idx(array: ArrayLike, target: PathOrFile, *, overwrite: bool = False) -> None:
    """Write an array as an IDX file, in blocks of samples.

    Parameters
    ----------
    array : array
        NumPy, dask or xarray; uint8, int8, int16, int32, float32 or float64,
        of any shape. Lazy arrays are computed a few megabytes at a time.
    target : str, os.PathLike or binary file
        A file whose name ends with ``.gz`` is compressed. It appears only when
        it is complete. An open binary file gets raw bytes.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    IdxTypeError
        If it is no array, or IDX cannot hold the type or shape.
    OptionError
        If the target is neither a path, a URL nor a binary file open for writing.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    OutputError
        If it cannot be written.
    MissingExtraError
        If the package that knows the URL is not installed.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_idx(np.array([[1, 2]], dtype="int16"), file)
    >>> file.getvalue().hex(" ", 4)
    '00000b02 00000001 00000002 00010002'
    """
    if not all(hasattr(cast(object, array), name) for name in ("shape", "dtype")):
        raise IdxTypeError(
            f"expected an array, got {type(array).__name__}; make it one with numpy.asarray(...), "
            "or write a Dataset with write_idx_files(...)"
        )
    header = header_of(np.dtype(array.dtype), tuple(array.shape), describe(target))
    write_blocks(header, _sample_blocks(array, header), target, overwrite=overwrite)


def write_blocks(
    header: IdxHeader,
    blocks: Iterable[npt.NDArray[Any]],
    target: PathOrFile,
    *,
    overwrite: bool = False,
) -> None:
    """Write a header and its samples; see :func:`write_idx`."""
    with contextlib.ExitStack() as stack:
        if not isinstance(target, str | os.PathLike):
            file = check_writable(target)
        else:
            file = stack.enter_context(create_file(target, overwrite=overwrite))
            if os.fspath(target).endswith(".gz"):
                # No name and no time inside: equal data give equal files.
                packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
                file = cast(BinaryIO, stack.enter_context(packed))
        file.write(header.to_bytes())
        for block in blocks:
            file.write(block.astype(header.dtype.newbyteorder(">"), copy=False).tobytes())


def header_of(dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> IdxHeader:
    """Return the header of a file that holds an array of this type and shape.

    Raises
    ------
    IdxTypeError
        If IDX cannot hold the type or shape.
    """
    native = dtype.newbyteorder("=") if dtype.kind in "iuf" else dtype
    if native not in TYPE_CODE_OF_DTYPE:
        held = ", ".join(map(str, TYPE_CODE_OF_DTYPE))
        raise IdxTypeError(
            f"{name}: IDX cannot hold {dtype}; convert with .astype(...) to one of {held}"
        )
    if len(shape) > MAX_RANK or max(shape, default=0) > MAX_DIM_SIZE:
        raise IdxTypeError(
            f"{name}: IDX holds at most {MAX_RANK} dimensions of at most {MAX_DIM_SIZE} each, "
            f"got shape {shape}"
        )
    return IdxHeader(native, shape)


def _sample_blocks(array: ArrayLike, header: IdxHeader) -> Iterator[npt.NDArray[Any]]:
    if not header.shape:
        yield np.asarray(array).reshape(1)
        return
    for start, stop in block_bounds(header.n_samples, header.sample_bytes):
        yield np.asarray(array[start:stop])
