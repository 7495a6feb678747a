"""The attributes of a store: those of its arrays, and those of the root."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.classes import (
    FLAGS,
    MAX_CLASSES,
    flag_names,
    flags_of,
    names_of_values,
)
from mnist_zarr.dataset.lazy import is_same_data
from mnist_zarr.dataset.records import (
    AS_OPENED,
    BLANK_OBJECTS,
    SHA256_ORDER,
    SOURCE_SHA256,
    blank_lines,
    content_records,
    derived,
    has_all_source_files,
    is_record,
    sha256_name,
)
from mnist_zarr.dataset.schema import CONVENTIONS, IMAGE, LABEL
from mnist_zarr.dataset.unlabelled import UNLABELLED, UNLABELLED_NAME, is_marked
from mnist_zarr.errors import SchemaError


def label_attrs(attrs: Mapping[str, Any], labels: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the attributes of ``label`` with flags that name all of these distinct labels.

    Flags whose names are just the numbers are made anew, as are those that are
    missing; names that somebody has given cannot be.

    Raises
    ------
    SchemaError
        If a label has no name where others have.

    Examples
    --------
    >>> label_attrs({"flag_values": [0, 1], "flag_meanings": "0 1"}, np.array([1, 5]))
    {'flag_values': [1, 5], 'flag_meanings': '1 5'}
    """
    names = names_of_values(LABEL, attrs)
    are_numbers = all(
        name == str(value) for value, name in names.items() if name != UNLABELLED_NAME
    )
    unknown = [label for label in labels.tolist() if label not in names]
    if not attrs.keys() & set(FLAGS) or (unknown and are_numbers):
        kept = {name: value for name, value in attrs.items() if name not in FLAGS}
        return {**kept, **flag_attrs(labels, names)}
    if not unknown:
        is_whole = not is_marked(attrs) or UNLABELLED in flag_names(LABEL, attrs)
        return dict(attrs) if is_whole else {**attrs, **flags_of(names)}
    raise SchemaError(
        f"label: has values that flag_values does not name, such as {unknown[0]}; name all "
        "classes with ds.label.attrs.update(class_attrs(values, names)), or remove flag_values and "
        "flag_meanings from ds.label.attrs"
    )


def flag_attrs(labels: npt.NDArray[Any], names: Mapping[Any, str]) -> dict[str, Any]:
    """Return CF flag attributes for distinct labels, if they are classes: some may have names.

    Examples
    --------
    >>> flag_attrs(np.array([2, 4]), {4: "four"})
    {'flag_values': [2, 4], 'flag_meanings': '2 four'}
    """
    values = labels.tolist()
    if len(values) > MAX_CLASSES or not all(isinstance(value, int) for value in values):
        return {}
    return flags_of({value: names.get(value, str(value)) for value in values})


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


@dataclass(frozen=True)
class Content:
    """The content of a store that has been written.

    Attributes
    ----------
    order : {"source_index", "stored"}
        The order of the samples in which it was hashed.
    n_samples : int
        How many there are.
    hashes : mapping
        From each variable to the SHA-256 of its values.
    blank : tuple of (str, int)
        The objects, chunks or shards, that hold nothing but the fill value: the
        path of the array, and the index along its first dimension.
    """

    order: str
    n_samples: int
    hashes: Mapping[str, str]
    blank: tuple[tuple[str, int], ...] = ()

    def is_that_of(self, attrs: Mapping[str, Any]) -> bool:
        """Whether these attributes record the same images and labels."""
        recorded = {name: attrs.get(sha256_name(name)) for name in (IMAGE, LABEL)}
        return (
            attrs.get(SHA256_ORDER) == self.order
            and any(recorded.values())
            and all(
                self.hashes[name] == sha256
                for name, sha256 in recorded.items()
                if name in self.hashes
            )
        )


def root_attrs(
    attrs: Mapping[str, Any],
    order: str,
    content: Content,
    coordinates: str,
    sources: list[str],
    *,
    is_as_opened: bool = False,
) -> dict[str, Any]:
    """Return the root attributes of a store, from those of the Dataset.

    With the records of its content and of the source files, and without those
    of another store. What identifies a data set is kept for the very samples
    that it was recorded of, or that are as they were opened; of others,
    ``source`` says what they were made from.
    """
    if SHA256_ORDER in attrs and not (is_as_opened or content.is_that_of(attrs)):
        attrs = derived(attrs)
    kept = {name: value for name, value in attrs.items() if not is_record(name)}
    software = f"mnist-zarr {importlib.metadata.version('mnist-zarr')}"
    root = {"Conventions": CONVENTIONS, **kept, "software": software, "order": order}
    root |= content_records(content.order, content.n_samples, content.hashes)
    if content.blank:
        root[BLANK_OBJECTS] = blank_lines(content.blank)
    if coordinates:
        root["coordinates"] = coordinates
    if sources:
        root[SOURCE_SHA256] = sources
    return root


def is_as_opened(ds: xr.Dataset) -> bool:
    """Whether these are all samples of a data set of the catalog, unchanged."""
    opened = ds.encoding.get(AS_OPENED, {})
    return bool(opened) and all(
        name in ds.variables and is_same_data(ds[name].variable, variable)
        for name, variable in opened.items()
    )


def without_partial_source(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset that names no source files if they are not those of all its samples."""
    # Of Datasets that it joins, xarray keeps the attributes and the encoding of the first.
    if has_all_source_files(ds):
        return ds
    whole = ds.drop_attrs(deep=False).assign_attrs(
        {name: ds.attrs[name] for name in ds.attrs if name not in ("source", SOURCE_SHA256)}
    )
    whole.encoding = {}
    return whole


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
