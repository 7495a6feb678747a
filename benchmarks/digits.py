"""Digits by the million: a seeded generator of IDX files from real digits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from zlib_ng import gzip_ng

from mnist_zarr.catalog.entries import BUNDLED_FILES
from mnist_zarr.formats.idx import IdxHeader, read_idx

BLOCK_SAMPLES = 20_000


def write_digits(folder: Path, n_samples: int, *, packed: bool, seed: int = 0) -> Path:
    """Write an IDX pair of real digits, drawn at random and shifted by a few pixels.

    Returns the path of the image file. Memory is bounded for any ``n_samples``.
    """
    images = read_idx(BUNDLED_FILES / "train-images-idx3-ubyte.gz")
    labels = read_idx(BUNDLED_FILES / "train-labels-idx1-ubyte.gz")
    rng = np.random.default_rng(seed)
    suffix = ".gz" if packed else ""
    place = folder / f"train-images-idx3-ubyte{suffix}"
    with (
        _create(place) as image_file,
        _create(folder / f"train-labels-idx1-ubyte{suffix}") as label_file,
    ):
        image_file.write(IdxHeader(images.dtype, (n_samples, 28, 28)).to_bytes())
        label_file.write(IdxHeader(labels.dtype, (n_samples,)).to_bytes())
        for start in range(0, n_samples, BLOCK_SAMPLES):
            chosen = rng.integers(0, len(images), min(BLOCK_SAMPLES, n_samples - start))
            shift = rng.integers(-2, 3, 2)
            block = np.roll(images[chosen], tuple(shift), axis=(1, 2))
            image_file.write(block.tobytes())
            label_file.write(labels[chosen].tobytes())
    return place


@contextlib.contextmanager
def _create(place: Path) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        if place.suffix == ".gz":
            yield stack.enter_context(cast(Any, gzip_ng).open(place, "wb", compresslevel=1))
        else:
            yield stack.enter_context(place.open("wb"))
