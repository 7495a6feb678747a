"""Attributes as JSON holds them, flags of labels, and which variables are coordinates."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.errors import SchemaError
from mnist_zarr.writing.attributes import as_json, flag_attrs, name_coordinates, root_attrs


def test_attributes_become_what_json_gives_back() -> None:
    attrs: dict[Any, Any] = {
        "array": np.arange(3, dtype="u1"),
        "number": np.float32(1.5),
        "flag": np.True_,
        "nested": {"pair": (np.int64(1), "two")},
        "strings": np.array(["a", "b"], np.dtypes.StringDType()),
        7: None,
    }
    converted = as_json(attrs, "the Dataset")
    assert converted == json.loads(json.dumps(converted))
    assert converted == {
        "array": [0, 1, 2],
        "number": 1.5,
        "flag": True,
        "nested": {"pair": [1, "two"]},
        "strings": ["a", "b"],
        "7": None,
    }


@pytest.mark.parametrize(
    "value",
    [object(), datetime.date(2020, 1, 1), np.datetime64("2020-01-01"), b"a", {1}, 1j, [object()]],
    ids=lambda value: type(value).__name__,
)
def test_an_attribute_that_json_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(SchemaError, match=r"'image': attribute 'when': JSON cannot hold .*\.pop"):
        as_json({"units": "1", "when": value}, "'image'")


def test_coordinates_are_named_by_the_variables_beside_them_or_else_by_the_root() -> None:
    variables = {
        "image": xr.Variable(("sample", "row"), np.zeros((2, 3))),
        "mask": xr.Variable(("row",), np.zeros(3)),
        "label": xr.Variable(("sample",), [1, 2]),
        "row": xr.Variable(("row",), [1, 2, 3]),
        "day": xr.Variable(("time",), [1]),
        "run": xr.Variable((), 5),
    }
    attrs, alone = name_coordinates(variables, {"label", "row", "day", "run"})
    assert attrs == {"image": {"coordinates": "label row run"}, "mask": {"coordinates": "row run"}}
    assert alone == "day"


@pytest.mark.parametrize("labels", [np.arange(257), np.array([0.5]), np.array(["a", "b"])])
def test_labels_that_are_no_classes_get_no_flags(labels: Any) -> None:
    assert flag_attrs(labels) == {}


def test_the_root_keeps_the_attributes_of_the_dataset_but_no_hashes_of_another_store() -> None:
    attrs = {"title": "digits", "image_sha256": "1", "metadata_sha256": "2", "source_sha256": ["3"]}
    root = root_attrs(attrs, "label", {"label_sha256": "4"}, "day", [])
    assert root.pop("software").startswith("mnist-zarr ")
    assert root == {
        "Conventions": "CF-1.11 ACDD-1.3",
        "title": "digits",
        "source_sha256": ["3"],
        "order": "label",
        "label_sha256": "4",
        "coordinates": "day",
    }
    assert root_attrs(attrs, "label", {}, "", ["5"])["source_sha256"] == ["5"]
