"""How many samples each class has, split by split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mnist_zarr.schema import LABEL, SPLIT


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of samples.

    Attributes
    ----------
    splits : tuple of str
        In the order in which they appear; one empty name where the Dataset
        has no ``split``.
    of_label : dict
        From each label value, ascending, to its number of samples per split.
    """

    splits: tuple[str, ...]
    of_label: dict[Any, tuple[int, ...]]


def count_samples(ds: xr.Dataset) -> ClassCounts:
    """Count the samples of each class and split. Reads these two coordinates only.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``label`` (sample) and perhaps ``split`` (sample).

    Examples
    --------
    >>> from mnist_zarr.schema import make_dataset
    >>> count_samples(make_dataset(None, label=np.array([7, 3, 7])))
    ClassCounts(splits=('',), of_label={3: (1,), 7: (2,)})
    """
    label = ds[LABEL].values
    split = ds[SPLIT].values if SPLIT in ds.variables else np.full(len(label), "")
    values, codes = np.unique(label, return_inverse=True)
    # In the order in which they appear: train before test.
    splits, first, split_codes = np.unique(split, return_index=True, return_inverse=True)
    table = np.zeros((len(values), len(splits)), dtype=np.int64)
    np.add.at(table, (codes, split_codes), 1)
    appearance = np.argsort(first)
    counts = table[:, appearance].tolist()
    return ClassCounts(
        tuple(str(split) for split in splits[appearance]),
        {value: tuple(row) for value, row in zip(values.tolist(), counts, strict=True)},
    )
