"""Samples without a label in a data set where others have one: their label is -1.

So it is in scikit-learn (semi-supervised learning) and in torchvision (STL10). Two attributes of
``label`` say it to other programs. ``valid_min`` is 0: values outside the valid range are missing
(CF 1.11, section 2.5.1, after the NetCDF Users Guide). And the flag of -1 is ``unlabelled``, as
land cover maps of ESA CCI name the value of "no data" below their ``valid_min``.

``_FillValue`` and ``missing_value`` would say the same, but for them xarray opens integers as
floats with NaN. This way plain xarray keeps integers, and ``.sel(label=7)`` works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.schema import LABEL, SAMPLE, label_variable
from mnist_zarr.errors import SchemaError, SourceError

UNLABELLED, UNLABELLED_NAME = -1, "unlabelled"
VALID_MIN = "valid_min"
# The attributes of a label that has -1 for samples without one.
MARK: Mapping[str, Any] = {VALID_MIN: 0}
UNLABELLED_DTYPE = np.dtype(np.int8)


def is_marked(label: xr.Variable | xr.DataArray | Mapping[Any, Any]) -> bool:
    """Whether -1 stands for no label in this variable, or in one of these attributes."""
    attrs = label if isinstance(label, Mapping) else label.attrs
    return VALID_MIN in attrs and np.array_equal(attrs[VALID_MIN], MARK[VALID_MIN])


def are_unlabelled(label: xr.Variable | xr.DataArray) -> npt.NDArray[np.bool_]:
    """Return which samples have no label.

    Examples
    --------
    >>> are_unlabelled(xr.Variable("sample", [7, -1, 3], {"valid_min": 0}))
    array([False,  True, False])
    >>> are_unlabelled(xr.Variable("sample", [7, -1, 3])).any()
    np.False_
    """
    values = label.values
    return (values == UNLABELLED) if is_marked(label) else np.zeros(len(values), dtype=bool)


def without_labels(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset in which no sample has a label, for others to be joined with it.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = without_labels(make_dataset(np.zeros((2, 4, 4))))
    >>> ds.label.values, ds.label.attrs["valid_min"]
    (array([-1, -1], dtype=int8), 0)
    """
    labels = np.full(ds.sizes[SAMPLE], UNLABELLED, UNLABELLED_DTYPE)
    return ds.assign_coords({LABEL: label_variable(labels, MARK)})


def marked_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the type that holds these labels and -1.

    Raises
    ------
    SourceError
        If there is none; ``name`` is what the message calls the labels.
    """
    signed = np.promote_types(dtype, UNLABELLED_DTYPE) if dtype.kind in "iu" else dtype
    if signed.kind != "i":
        raise SourceError(
            f"{name}: beside samples without labels, expected labels of an integer type of up to "
            f"63 bits, got {dtype}; convert them with .astype('int64')"
        )
    return signed


def as_marked(labels: npt.NDArray[Any], dtype: np.dtype[Any], name: str) -> npt.NDArray[Any]:
    """Return labels in a type that holds -1 too.

    Raises
    ------
    SourceError
        If one is negative: it could not be told from no label.
    """
    if dtype.kind == "i" and labels.size and labels.min() < 0:
        raise SourceError(
            f"{name}: has the label {labels.min()}, but beside samples without labels, negative "
            "ones mean that there is none; renumber the classes from 0"
        )
    return labels.astype(dtype)


def label_of_export(
    label: xr.Variable, positions: npt.NDArray[np.int64], split: str | None
) -> xr.Variable | None:
    """Return the labels to write into a file of one split, of the type that they had without -1.

    Parameters
    ----------
    label : xarray.Variable
        Of all samples.
    positions : numpy.ndarray
        The samples of the split.
    split : str or None
        What messages call them.

    Returns
    -------
    xarray.Variable or None
        None if no sample of the split has a label.

    Raises
    ------
    SchemaError
        If only some have one, for which the formats have no sign.
    """
    if not is_marked(label):
        return label
    missing = are_unlabelled(label)[positions]
    if missing.all() and len(missing):
        return None
    if missing.any():
        part = f"of split {split!r} " if split else ""
        raise SchemaError(
            f"label: {np.count_nonzero(missing):,} of {len(missing):,} samples {part}have no "
            f"label, which no file can say; leave them out with exclude(ds, label=-1)"
        )
    largest = int(label.values[positions].max(initial=0))
    was_byte = label.dtype == np.int16 and largest <= np.iinfo(np.uint8).max
    return label.astype(np.uint8) if was_byte else label
