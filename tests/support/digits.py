"""Small data sets of known content, and what is known of MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr

# Numbers of zeros, ones, twos ... of MNIST, of which 60,000 samples are for training.
MNIST_COUNTS = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_GZIP_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


def digits(
    n_samples: int = 60,
    seed: int = 0,
    *,
    shape: tuple[int, int] = (4, 3),
    n_classes: int = 3,
    splits: Sequence[str] = ("train", "test"),
) -> xr.Dataset:
    """Make random pixels, labels and splits, the splits mixed."""
    rng = np.random.default_rng(seed)
    return make_dataset(
        rng.integers(0, 256, (n_samples, *shape)).astype(np.uint8),
        label=rng.integers(0, n_classes, n_samples).astype(np.uint8),
        split=rng.choice(splits, n_samples).astype(STRING_DTYPE),
        source_index=np.arange(n_samples, dtype=np.uint32),
    )


def square_digits(n_samples: int = 200, seed: int = 0) -> xr.Dataset:
    """Make ``digits`` of 16 bytes, which may lie flat in a file: their shape can be told."""
    return digits(n_samples, seed, shape=(4, 4))


def lazy_digits(folder: Path) -> dict[str, xr.Dataset]:
    """Return ``digits()`` with images that are not in memory, in every way in which they can be."""
    write_zarr(digits(), folder / "d.zarr", chunk_bytes=100, overwrite=True)
    return {
        "dask": digits().chunk(sample=7),
        "store": xr.open_zarr(folder / "d.zarr"),
        "store without dask": xr.open_zarr(folder / "d.zarr", chunks=None),
        "open_store": open_store(folder / "d.zarr", chunks=None),
    }


def mnist_samples(start: int, stop: int) -> xr.Dataset:
    """Return some samples of MNIST in memory; the first 60,000 are for training."""
    return open_dataset("mnist").isel(sample=slice(start, stop)).load()


def tutorial_scaling(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scale bytes to [-1, 1] as the tutorial does it, whose bits ours must equal."""
    scaled: npt.NDArray[np.float64] = ((x / 255.0) - 0.5) * 2
    return scaled
