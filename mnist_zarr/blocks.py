"""The rows of a variable, a few megabytes at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import xarray as xr

BLOCK_BYTES = 4 << 20
# Positions take eight bytes a sample, several times over: bounds those of small samples.
MAX_BLOCK_SAMPLES = 1 << 16


def bytes_of_row(variable: xr.Variable) -> int:
    """Return the bytes of one sample of the variable."""
    return int(variable.dtype.itemsize * math.prod(variable.shape[1:]))


def cut(n_samples: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of one block after the other.

    Examples
    --------
    >>> list(cut(10_000, row_bytes=784))
    [(0, 5349), (5349, 10000)]
    """
    block_samples = max(1, min(BLOCK_BYTES // max(1, row_bytes), MAX_BLOCK_SAMPLES))
    for start in range(0, n_samples, block_samples):
        yield start, min(start + block_samples, n_samples)


def blocks(variable: xr.Variable) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first position and the rows of each block, in order.

    Every dask chunk is computed once; so memory holds one of them, or one block.
    """
    row_bytes = bytes_of_row(variable)
    for start, stop in _reads(variable, row_bytes):
        rows = variable[start:stop].values
        for first, last in cut(len(rows), row_bytes):
            yield start + first, rows[first:last]


def _reads(variable: xr.Variable, row_bytes: int) -> Iterator[tuple[int, int]]:
    if variable.chunks is None:
        yield from cut(variable.shape[0], row_bytes)
        return
    start = stop = 0
    for chunk_samples in variable.chunks[0]:
        if start < stop and (stop + chunk_samples - start) * row_bytes > BLOCK_BYTES:
            yield start, stop
            start = stop
        stop += chunk_samples
    if start < stop:
        yield start, stop
