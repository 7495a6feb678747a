"""Pairs of IDX files, raw and in gzip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.formats.idx import write_idx

Array = npt.NDArray[Any]
SUFFIXES = ("", ".gz")


def pixels(*shape: int, dtype: str = "uint8", seed: int = 0) -> Array:
    """Make small random numbers, which every type of IDX holds."""
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def noise(*shape: int) -> Array:
    """Make random bytes: gzip does not make them smaller, so bytes read can be counted."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def put_pair(
    folder: Path | str, prefix: str, images: Array, labels: Array | None, suffix: str = ""
) -> str:
    """Write a pair of IDX files and return the path of the images."""
    path = f"{folder}/{prefix}-images-idx3-ubyte{suffix}"
    write_idx(images, path)
    if labels is not None:
        write_idx(labels, f"{folder}/{prefix}-labels-idx1-ubyte{suffix}")
    return path
