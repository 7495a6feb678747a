"""Selecting samples by label, split or another coordinate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import (
    LABEL,
    SAMPLE,
    SOURCE_INDEX,
    SPLIT,
    as_strings,
    check_is_dataset,
    split_order,
)
from mnist_zarr.errors import SchemaError, SelectionError

# Nobody reads a message that lists more choices than this.
MAX_CHOICES_SHOWN = 70
# What the names of files may begin with, as exports name them by splits: nothing hidden, no path.
FILE_NAME_WORD = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")


def select(
    ds: xr.Dataset, *, label: Any = None, split: Any = None, **coordinates: Any
) -> xr.Dataset:
    """Select samples by the values of their coordinates, lazily.

    Unlike ``ds.sel``, it takes several values, several coordinates at once, and
    class names.

    Parameters
    ----------
    ds : xarray.Dataset
        With dimension ``sample``.
    label : int, str, list or slice, optional
        A label, a class name (case matters only for names that differ in
        nothing else), a list of these, or a slice, which includes both ends as
        label slices do in xarray.
    split : str or list, optional
        ``"train"``, ``"test"``.
    **coordinates
        The same for any other coordinate along ``sample``.

    Returns
    -------
    xarray.Dataset
        The samples that meet all conditions, in the order of ``ds``; the
        dimension ``sample`` is kept.

    Raises
    ------
    SelectionError
        If there is no such coordinate, or no sample has one of the values
        (the message lists the choices), or several classes have the name; if a
        range has a step or cannot be compared with the values.
    SchemaError
        If ``ds`` is not a Dataset, or ``flag_values`` and ``flag_meanings`` of a
        coordinate differ in length, or give two values one name.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = make_dataset(np.zeros((4, 2, 2)), label=np.array([7, 3, 7, 9]))
    >>> select(ds, label=[3, 7]).label.values
    array([7, 3, 7])
    >>> select(ds, label=slice(8, 9)).label.values
    array([9])

    See Also
    --------
    exclude : all samples but these.
    """
    return _take(ds, _meet(ds, {LABEL: label, SPLIT: split, **coordinates}))


def exclude(
    ds: xr.Dataset, *, label: Any = None, split: Any = None, **coordinates: Any
) -> xr.Dataset:
    """Select all samples but those that :func:`select` selects, lazily.

    Parameters
    ----------
    ds, label, split, **coordinates
        See :func:`select`. Samples that meet all conditions are left out; without
        a condition, none are.

    Returns
    -------
    xarray.Dataset
        The other samples, in the order of ``ds``; the dimension ``sample`` is kept.

    Raises
    ------
    SelectionError, SchemaError
        As :func:`select`.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = make_dataset(np.zeros((4, 2, 2)), label=np.array([7, 3, 7, 9]))
    >>> exclude(ds, label=7).label.values
    array([3, 9])
    """
    conditions = {LABEL: label, SPLIT: split, **coordinates}
    is_left_out = _meet(ds, conditions) & any(value is not None for value in conditions.values())
    return _take(ds, ~is_left_out)


def _meet(ds: xr.Dataset, conditions: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Return which samples meet all conditions."""
    check_is_dataset(ds)
    chosen = np.ones(ds.sizes.get(SAMPLE, 0), dtype=bool)
    for name, value in conditions.items():
        if value is not None:
            chosen &= _matches(ds, name, value)
    return chosen


def _take(ds: xr.Dataset, chosen: npt.NDArray[np.bool_]) -> xr.Dataset:
    positions = np.flatnonzero(chosen)
    if len(positions) and positions[-1] - positions[0] + 1 == len(positions):
        # A contiguous range is read as one slice of the store.
        return ds.isel({SAMPLE: slice(int(positions[0]), int(positions[-1]) + 1)})
    return ds.isel({SAMPLE: positions})


def splits_in_source_order(ds: xr.Dataset) -> list[tuple[str | None, npt.NDArray[np.int64]]]:
    """Return the positions of the samples of each split, by ascending ``source_index``.

    Returns
    -------
    list of (str or None, numpy.ndarray)
        The training split first, then the test split, then others by name; one
        without a name if the Dataset has no ``split``. Without ``source_index``,
        or in a split that has a number twice, the samples are in the order of
        ``ds``.

    Raises
    ------
    SchemaError
        If a split is not a string, or its name cannot be part of a file name.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = make_dataset(
    ...     None, split=["test", "train", "train"], source_index=np.array([2, 1, 0])
    ... )
    >>> splits_in_source_order(ds)
    [('train', array([2, 1])), ('test', array([0]))]
    """
    splits: dict[str | None, npt.NDArray[np.int64]]
    if SPLIT in ds.variables:
        values = as_strings(SPLIT, ds[SPLIT].values)
        names = sorted(map(str, np.unique(values)), key=split_order)
        for name in names:
            if not FILE_NAME_WORD.fullmatch(name):
                raise SchemaError(f"split: {name!r} cannot be part of a file name; rename it")
        splits = {name: np.flatnonzero(values == name) for name in names}
    else:
        splits = {None: np.arange(ds.sizes[SAMPLE])}
    if SOURCE_INDEX in ds.variables:
        source_index = ds[SOURCE_INDEX].values
        splits = {
            name: positions[_order_of(source_index[positions])]
            for name, positions in splits.items()
        }
    return list(splits.items())


def _order_of(numbers: npt.NDArray[Any]) -> npt.NDArray[np.int64] | slice:
    """Return the positions of ascending numbers; of numbers that repeat, the order they are in."""
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    return slice(None) if (ascending[1:] == ascending[:-1]).any() else order


def _matches(ds: xr.Dataset, name: str, wanted: Any) -> npt.NDArray[np.bool_]:
    along_sample = [str(key) for key, coord in ds.coords.items() if coord.dims == (SAMPLE,)]
    if name not in along_sample:
        raise SelectionError(
            f"{name}: no such coordinate along 'sample'; choose from {', '.join(along_sample)}"
        )
    values = ds[name].values
    names = class_names(ds, name)
    is_range = isinstance(wanted, slice)
    items = [wanted.start, wanted.stop] if is_range else _as_list(name, wanted)
    if values.dtype != bool and any(isinstance(item, bool | np.bool_) for item in items):
        raise SelectionError(
            f"{name}: expected values, got booleans; to select by a mask, use ds.isel(sample=mask)"
        )
    for item in items:
        if isinstance(item, complex | xr.Dataset):
            raise SelectionError(f"{name}: expected values, got {type(item).__name__}")
    if is_range:
        return _between(name, wanted, values, names)
    known = np.unique(values).tolist()
    resolved = [_resolve(name, item, known, names) for item in items]
    return np.isin(values, np.asarray(resolved, dtype=values.dtype))


def _as_list(name: str, wanted: Any) -> list[Any]:
    if isinstance(wanted, str | bytes | xr.Dataset) or not isinstance(wanted, Iterable):
        return [wanted]
    if not hasattr(wanted, "__array__"):
        return list(wanted)
    array = np.asarray(wanted)
    if array.ndim > 1:
        raise SelectionError(
            f"{name}: expected a list of values, got an array of {array.ndim} dimensions"
        )
    return np.atleast_1d(array).tolist()  # type: ignore[no-any-return]


def _between(
    name: str, wanted: slice, values: npt.NDArray[Any], names: dict[int, str]
) -> npt.NDArray[np.bool_]:
    if wanted.step is not None:
        raise SelectionError(f"{name}: a range takes no step, got {wanted}; give a list of values")
    inside = np.ones(len(values), dtype=bool)
    try:
        if wanted.start is not None:
            inside &= values >= _by_name(wanted.start, names)
        if wanted.stop is not None:
            inside &= values <= _by_name(wanted.stop, names)
    except (TypeError, ValueError, np.exceptions.DTypePromotionError) as error:
        raise SelectionError(
            f"{name}: cannot compare {wanted} with values such as {values[:1].tolist()}"
        ) from error
    return inside


def _by_name(wanted: Any, names: dict[int, str]) -> Any:
    if not isinstance(wanted, str):
        return wanted
    word = wanted.replace("_", " ")
    # EMNIST ByClass has 'a' and 'A'.
    exact = [value for value, name in names.items() if name == word]
    folded = [value for value, name in names.items() if name.casefold() == word.casefold()]
    meant = exact or folded
    if len(meant) > 1:
        raise SelectionError(
            f"{wanted!r}: may be any of {', '.join(f'{value} ({names[value]})' for value in meant)}"
        )
    return meant[0] if meant else wanted


def _resolve(name: str, wanted: Any, known: list[Any], names: dict[int, str]) -> Any:
    value = _by_name(wanted, names)
    if isinstance(value, str) and known and not isinstance(known[0], str):
        try:
            value = type(known[0])(value)
        except ValueError:
            raise _no_such(name, wanted, known, names) from None
    if value not in known:
        raise _no_such(name, wanted, known, names)
    return value


def _no_such(name: str, wanted: Any, known: list[Any], names: dict[int, str]) -> SelectionError:
    choices = [
        f"{value} ({names[value]})" if names.get(value, str(value)) != str(value) else str(value)
        for value in known[:MAX_CHOICES_SHOWN]
    ]
    more = f", ... ({len(known)} in all)" if len(known) > len(choices) else ""
    listed = ", ".join(choices) + more if known else "nothing: the Dataset has no samples"
    return SelectionError(f"{name}: no sample has {name} {wanted!r}; choose from {listed}")
