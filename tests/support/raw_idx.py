"""IDX files as the dumbest writer makes them, to compare ours with."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

# As the format's description has it (Y. LeCun, http://yann.lecun.com/exdb/mnist/).
NUMPY_CODE_OF_TYPE = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def raw_idx(type_code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    """Return the file of these elements: four bytes, the sizes, the elements as they are."""
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes([0, 0, type_code, len(shape)]) + sizes + data


def assert_same_bits(got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Compare type, shape and bytes, those of NaN too."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.dtype.isnative
    assert got.tobytes() == expected.tobytes()
