"""The attributes of a store: those of its arrays, and those of the root."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.classes import MAX_CLASSES, class_attrs
from mnist_zarr.dataset.records import SOURCE_SHA256, is_recorded_hash
from mnist_zarr.dataset.schema import CONVENTIONS
from mnist_zarr.errors import SchemaError


def flag_attrs(labels: npt.NDArray[Any]) -> dict[str, Any]:
    """Return CF flag attributes for distinct labels that have no names, if they are classes.

    Examples
    --------
    >>> flag_attrs(np.array([2, 4]))
    {'flag_values': [2, 4], 'flag_meanings': '2 4'}
    """
    values = labels.tolist()
    if len(values) > MAX_CLASSES or not all(isinstance(value, int) for value in values):
        return {}
    return class_attrs(values, [str(value) for value in values])


def name_coordinates(
    variables: Mapping[str, xr.Variable], coords: Collection[str]
) -> tuple[dict[str, dict[str, str]], str]:
    """Return the attribute ``coordinates`` of each data variable, and what the root's says.

    A variable names the coordinates that have no other dimensions than it has
    (CF 1.11, section 5); the root those that no variable names, as xarray does.

    Raises
    ------
    SchemaError
        If the name of a coordinate has a blank, which separates names there.
    """
    for key in coords:
        if len(key.split()) > 1:
            raise SchemaError(
                f"{key!r}: a coordinate with a blank in its name would be read as a data variable; "
                "choose another name with .rename(...)"
            )
    beside = {
        name: {key for key in coords if set(variables[key].dims) <= set(variable.dims)}
        for name, variable in variables.items()
        if name not in coords
    }
    attrs = {name: {"coordinates": " ".join(sorted(keys))} for name, keys in beside.items() if keys}
    return attrs, " ".join(sorted(set(coords).difference(*beside.values())))


def root_attrs(
    attrs: Mapping[str, Any],
    order: str,
    content: Mapping[str, str],
    coordinates: str,
    sources: list[str],
) -> dict[str, Any]:
    """Return the root attributes of a store, from those of the Dataset.

    Without hashes of the store that this was opened from, and with the records
    of the content and of the source files.
    """
    kept = {name: value for name, value in attrs.items() if not is_recorded_hash(name)}
    software = f"mnist-zarr {importlib.metadata.version('mnist-zarr')}"
    root = {"Conventions": CONVENTIONS, **kept, "software": software, "order": order, **content}
    if coordinates:
        root["coordinates"] = coordinates
    if sources:
        root[SOURCE_SHA256] = sources
    return root


def as_json(attrs: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    """Return attributes as they read from JSON: lists for arrays, Python's numbers for NumPy's.

    Raises
    ------
    SchemaError
        If JSON cannot hold one; ``owner`` is what the message calls their place.
    """
    converted = {}
    for name, value in attrs.items():
        try:
            converted[str(name)] = json.loads(json.dumps(value, default=_without_numpy))
        except (TypeError, ValueError) as error:
            raise SchemaError(
                f"{owner}: attribute {name!r}: JSON cannot hold {value!r}; make it a number, a "
                f"string or a list of them, or drop it with .attrs.pop({name!r})"
            ) from error
    return converted


def _without_numpy(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
