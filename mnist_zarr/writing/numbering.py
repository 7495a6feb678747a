"""The numbers of the samples, ``source_index``, and the order in which their content is hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import iter_blocks
from mnist_zarr.dataset.records import SHA256_ORDER, STORED
from mnist_zarr.dataset.schema import IMAGE, SAMPLE, SOURCE_INDEX
from mnist_zarr.writing.plan import Positions

# Samples are read back in another order than they are stored in only where that is soon done: where
# they are few, or make few runs of ascending numbers, as in label order.
READ_BACK_BYTES = 256 << 20
READ_BACK_RUNS = 1000


@dataclass(frozen=True)
class Numbering:
    """The numbers of the samples of a store.

    Attributes
    ----------
    source_index : xarray.Variable
        One for each sample, all different.
    content_order : {"source_index", "stored"}
        The order of the samples in which their content is hashed.
    positions : numpy.ndarray, optional
        Shape (sample,). The samples in that order, if they do not come in it.
    """

    source_index: xr.Variable
    content_order: str
    positions: Positions | None = None


def number_samples(ds: xr.Dataset) -> Numbering:
    """Return the numbers of the samples; those that are missing or repeated are given anew.

    The content is hashed in the order of the numbers if the samples come in it,
    for a store can be sorted by them. Samples that come in another order are
    hashed as they are stored, unless there are records of them to compare with.

    Examples
    --------
    >>> ds = schema.make_dataset(None, label=np.zeros(4), source_index=np.array([0, 1, 0, 1]))
    >>> number_samples(ds).source_index.values
    array([0, 1, 2, 3], dtype=uint32)
    """
    if SOURCE_INDEX not in ds.variables:
        return _numbered_anew(ds.sizes[SAMPLE])
    variable = ds[SOURCE_INDEX].variable
    if _ascends(variable):
        return Numbering(variable, SOURCE_INDEX)
    numbers = variable.values
    positions = np.argsort(numbers, kind="stable")
    if (np.diff(numbers[positions]) == 0).any():  # of Datasets that were joined, as a rule
        return _numbered_anew(len(numbers))
    if ds.attrs.get(SHA256_ORDER) == SOURCE_INDEX and _reads_back_soon(ds, numbers):
        return Numbering(variable, SOURCE_INDEX, positions)
    return Numbering(variable, STORED)


def _numbered_anew(n_samples: int) -> Numbering:
    numbers = np.arange(n_samples, dtype=schema.source_index_dtype(n_samples))
    added = schema.make_dataset(None, source_index=numbers)
    return Numbering(added[SOURCE_INDEX].variable, SOURCE_INDEX)


def _ascends(variable: xr.Variable) -> bool:
    last = -1
    for _, block in iter_blocks(variable):
        if block[0] <= last or (np.diff(block.astype(np.int64)) <= 0).any():
            return False
        last = int(block[-1])
    return True


def _reads_back_soon(ds: xr.Dataset, numbers: npt.NDArray[Any]) -> bool:
    is_small = IMAGE in ds.variables and ds[IMAGE].nbytes <= READ_BACK_BYTES
    return is_small or int(np.count_nonzero(numbers[1:] < numbers[:-1])) < READ_BACK_RUNS
