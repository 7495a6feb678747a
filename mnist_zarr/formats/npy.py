"""The .npy format: the samples of an array in a file, and its header.

Format: NEP 1, and https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.errors import NpzFormatError
from mnist_zarr.files.byte_source import ByteSource

# numpy refuses longer headers, in files that it does not trust.
MAX_HEADER_BYTES = 1 << 16
MAX_QUOTED = 200
READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyFile:
    """One array of numbers in a .npy file, open for reading its samples.

    Nothing is ever unpickled. The header is checked against the length of the
    file at once.

    Parameters
    ----------
    source : ByteSource
        The bytes of the file.

    Attributes
    ----------
    name : str
        What messages call the file.
    shape : tuple of int
        Sizes of the dimensions.
    dtype : numpy.dtype
        Type of the elements, in native byte order.
    seeks_cheaply : bool
        Whether samples in any order cost about the same.

    Raises
    ------
    NpzFormatError
        If it is not a whole .npy file of numbers in C order.
    FileFormatError
        If its compressed data are damaged; also when samples are read.
    """

    def __init__(self, source: ByteSource) -> None:
        self._bytes = source
        self.name = source.name
        self.seeks_cheaply = source.seeks_cheaply
        head = bytes(source.read(0, MAX_HEADER_BYTES))
        self.shape, fortran_order, self._stored_dtype, self._header_bytes = _parse(head, self.name)
        if self._stored_dtype.hasobject:
            raise NpzFormatError(
                f"{self.name}: holds Python objects, which would have to be unpickled, and that "
                "can run any code; save it again as an array of numbers"
            )
        if self._stored_dtype.kind not in "biuf":
            raise NpzFormatError(f"{self.name}: expected numbers, got {self._stored_dtype}")
        if fortran_order and len(self.shape) > 1:
            raise NpzFormatError(
                f"{self.name}: in Fortran order, where the values of a sample do not lie together; "
                "save numpy.ascontiguousarray(...) of it"
            )
        self.dtype = self._stored_dtype.newbyteorder("=")
        try:
            np.broadcast_to(np.empty((), self.dtype), self.shape)  # this takes no memory
        except (ValueError, TypeError) as error:
            raise NpzFormatError(
                f"{self.name}: no array can have the shape {_shortened(self.shape)}: {error}"
            ) from error
        self._end = self._header_bytes + math.prod(self.shape) * self.dtype.itemsize
        if source.size != self._end:
            raise NpzFormatError(
                f"{self.name}: shape {self.shape} of {self.dtype} needs {self._end:,} bytes, got "
                f"{source.size:,}; the file is damaged"
            )

    def __repr__(self) -> str:
        return f"<NpyFile {self.name!r} {self.dtype} {self.shape}>"

    def reshape_samples(self, sample_shape: tuple[int, ...]) -> None:
        """Give samples another shape of as many elements from now on."""
        self.shape = (self.shape[0], *sample_shape)

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        sample_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        offset = self._header_bytes + start * sample_bytes
        count = (stop - start) * sample_bytes
        data: bytearray | npt.NDArray[np.uint8]
        if self.seeks_cheaply:  # stored as it is: the bytes are there
            data = np.empty(count, np.uint8)
            data = data[: self._bytes.read_into(offset, data.data)]
        else:  # the length is only claimed: let memory grow with what is inflated
            data = self._bytes.read(offset, count)
        # One byte past the end, which also checks the checksum.
        is_longer = offset + len(data) == self._end and self._bytes.read(self._end, 1)
        if len(data) < count or is_longer:
            found = "more" if is_longer else f"{offset + len(data):,}"
            raise NpzFormatError(
                f"{self.name}: expected {self._end:,} bytes, got {found}; the file is damaged: "
                "fetch it again"
            )
        array = np.frombuffer(data, self._stored_dtype).reshape(stop - start, *self.shape[1:])
        return array.astype(self.dtype, copy=False)


def _parse(head: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether in Fortran order, type, and length of the header."""
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
    except ValueError as error:
        raise NpzFormatError(f"{name}: not a .npy file: {error}") from error
    if version not in READ_HEADER:
        raise NpzFormatError(f"{name}: .npy format {version}; expected (1, 0) or (2, 0)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files from Python 2, old names of types
            shape, fortran_order, descr = READ_HEADER[version](file)
            dtype = np.dtype(descr)
    except Exception as error:  # numpy evaluates the header, which can fail in any way
        raise NpzFormatError(f"{name}: not a .npy file: {_shortened(error)}") from error
    return shape, fortran_order, dtype, file.tell()


def _shortened(thing: object) -> str:
    text = str(thing) or type(thing).__name__  # numpy's errors may quote the whole header
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]} ..."


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    r"""Return the header of a file of this type and shape, in C order.

    Examples
    --------
    >>> npy_header(np.dtype("uint8"), (2, 3))[:8]
    b'\x93NUMPY\x01\x00'
    """
    file = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()
