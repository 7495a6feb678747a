"""The classes of labels: their names as CF flags, and how many samples each has."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mnist_zarr.dataset.schema import LABEL, SPLIT
from mnist_zarr.dataset.unlabelled import UNLABELLED, UNLABELLED_NAME, is_marked
from mnist_zarr.errors import SchemaError

# The CF attributes that name the values of a variable (CF 1.11, section 3.5).
FLAGS = ("flag_values", "flag_meanings")
# Labels with more values than this are numbers, not classes, and splits are names of samples.
MAX_CLASSES, MAX_SPLITS = 256, 20


def class_attrs(values: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Return the CF flag attributes that name the values of ``label``.

    ``flag_meanings`` is a list of words separated by spaces, so that spaces
    inside a name become underscores (CF 1.11, section 3.5).

    Parameters
    ----------
    values : sequence of int
        The labels, all different.
    names : sequence of str
        The name of each class.

    Returns
    -------
    dict
        ``flag_values`` and ``flag_meanings``, for ``ds.label.attrs``.

    Raises
    ------
    SchemaError
        If the values are no integers, or the names are not one per value, none
        empty and all different.

    Examples
    --------
    >>> class_attrs([0, 1], ["Ankle boot", "Bag"])
    {'flag_values': [0, 1], 'flag_meanings': 'Ankle_boot Bag'}
    """
    try:
        numbers, words = [operator.index(value) for value in values], list(names)
    except TypeError as error:
        raise SchemaError(
            f"expected integers and the name of each, got {type(values).__name__} and "
            f"{type(names).__name__}"
        ) from error
    if isinstance(names, str) or len(words) != len(numbers):
        raise SchemaError(f"expected a name for each of {len(numbers)} classes, got {names!r}")
    words = ["_".join(str(name).split()) for name in names]
    if not all(words):
        raise SchemaError(f"class {numbers[words.index('')]}: the name is empty; CF needs a word")
    attrs = {"flag_values": numbers, "flag_meanings": " ".join(words)}
    flag_names(LABEL, attrs)
    return attrs


def flags_of(names: Mapping[Any, str]) -> dict[str, Any]:
    """Return the CF flag attributes for the name of each value, in the order of the values."""
    values = sorted(names)
    return class_attrs(values, [names[value] for value in values])


def name_classes(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return a Dataset with names for the labels 0, 1, 2, ... in place of those it had.

    Raises
    ------
    SchemaError
        If there are no labels, or the names are empty or repeated.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> class_names(name_classes(make_dataset(None, label=[1, 0]), ["cat", "dog"]))
    {0: 'cat', 1: 'dog'}
    """
    if LABEL not in ds.variables:
        raise SchemaError("class names: the Dataset has no labels")
    label = ds[LABEL].variable.copy(deep=False)
    label.attrs |= class_attrs(range(len(names)), names)
    return ds.assign_coords({LABEL: label})


def class_names(ds: xr.Dataset, name: str = LABEL) -> dict[int, str]:
    """Return the name of each value of a variable, from its CF flag attributes.

    Parameters
    ----------
    ds : xarray.Dataset
        The Dataset.
    name : str
        The variable, ``label`` by default.

    Returns
    -------
    dict
        From value to name; empty if the Dataset names no classes. Samples without a
        label, beside others that have one, are of class ``unlabelled``.

    Raises
    ------
    SchemaError
        If ``flag_values`` and ``flag_meanings`` differ in length, or give two
        values one name or one value two; if ``flag_values`` is no list of numbers.
    """
    return names_of_values(name, ds[name].attrs if name in ds.variables else {})


def names_of_values(name: str, attrs: Mapping[Any, Any]) -> dict[Any, str]:
    """Return what :func:`class_names` does, from the attributes of a variable of this name."""
    return ({UNLABELLED: UNLABELLED_NAME} if is_marked(attrs) else {}) | flag_names(name, attrs)


def flag_names(name: str, attrs: Mapping[Any, Any]) -> dict[Any, str]:
    """Return the same without the name of samples that have no label."""
    if not attrs.keys() >= set(FLAGS):
        return {}
    try:
        values = np.ravel(attrs["flag_values"]).tolist()
        set(values)
    except (ValueError, TypeError) as error:  # lists in lists, dictionaries
        raise SchemaError(
            f"{name}: flag_values: expected a list of numbers, got {attrs['flag_values']!r}"
        ) from error
    meanings = str(attrs["flag_meanings"]).split()
    if len(values) != len(meanings):
        raise SchemaError(
            f"{name}: flag_values has {len(values)} entries, but flag_meanings has {len(meanings)}"
        )
    for kind, entries in (("flag_values", values), ("flag_meanings", meanings)):
        repeated = [entry for entry, count in Counter(entries).items() if count > 1]
        if repeated:
            raise SchemaError(
                f"{name}: {kind} has {repeated[0]!r} more than once; every class needs one value "
                "and one name"
            )
    return {value: word.replace("_", " ") for value, word in zip(values, meanings, strict=True)}


@dataclass(frozen=True)
class ClassCounts:
    """The number of samples per class and split.

    Attributes
    ----------
    splits : tuple of str
        In order of appearance; one empty name if the Dataset has no ``split``.
    of_label : dict
        From each label value, ascending, to its number of samples per split.
    """

    splits: tuple[str, ...]
    of_label: dict[Any, tuple[int, ...]]


def count_samples(ds: xr.Dataset) -> ClassCounts:
    """Count the samples per class and split, reading only these two coordinates.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``label`` (sample), and optionally ``split`` (sample).

    Raises
    ------
    SchemaError
        If there are more than 20 different splits.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> count_samples(make_dataset(None, label=np.array([7, 3, 7])))
    ClassCounts(splits=('',), of_label={3: (1,), 7: (2,)})
    """
    label = ds[LABEL].values
    split = ds[SPLIT].values if SPLIT in ds.variables else np.full(len(label), "")
    values, codes = np.unique(label, return_inverse=True)
    # In order of appearance: train before test.
    splits, first, split_codes = np.unique(split, return_index=True, return_inverse=True)
    if len(splits) > MAX_SPLITS:
        raise SchemaError(
            f"split: {len(splits):,} different names are too many for splits; expected "
            f"{MAX_SPLITS} at most; leave them out with .drop_vars('split')"
        )
    table = np.zeros((len(values), len(splits)), dtype=np.int64)
    np.add.at(table, (codes, split_codes), 1)
    appearance = np.argsort(first)
    counts = table[:, appearance].tolist()
    return ClassCounts(
        tuple(str(split) for split in splits[appearance]),
        {value: tuple(count) for value, count in zip(values.tolist(), counts, strict=True)},
    )
