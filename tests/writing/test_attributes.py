"""Attributes as JSON holds them, flags of labels, and which variables are coordinates."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.errors import SchemaError
from mnist_zarr.writing.attributes import (
    Content,
    as_json,
    flag_attrs,
    label_attrs,
    name_coordinates,
    root_attrs,
)


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
    assert flag_attrs(labels, {}) == {}


def test_flags_that_are_just_the_numbers_are_made_anew_for_other_labels() -> None:
    derived = {"long_name": "class", "flag_values": [0, 1], "flag_meanings": "0 1"}
    assert label_attrs(derived, np.array([1])) == derived
    anew = {"long_name": "class", "flag_values": [1, 5], "flag_meanings": "1 5"}
    assert label_attrs(derived, np.array([1, 5])) == anew
    assert label_attrs(derived, np.array([0.5])) == {"long_name": "class"}
    assert label_attrs({"long_name": "class"}, np.array([1, 5])) == anew


def test_a_label_without_a_name_among_named_ones_is_refused() -> None:
    named = {"flag_values": [0, 1], "flag_meanings": "cat dog"}
    assert label_attrs(named, np.array([1])) == named
    with pytest.raises(SchemaError, match=r"does not name, such as 2; .*class_attrs"):
        label_attrs(named, np.array([0, 2, 3]))


def content(order: str = "source_index", **hashes: str) -> Content:
    return Content(order, 6, hashes)


def test_the_root_keeps_the_attributes_of_the_dataset_but_no_hashes_of_another_store() -> None:
    attrs = {"title": "digits", "metadata_sha256": ["2"], "source_sha256": ["3"]}
    root = root_attrs(attrs, "label", content(label="4"), "day", [])
    assert root.pop("software").startswith("mnist-zarr ")
    assert root == {
        "Conventions": "CF-1.11 ACDD-1.3",
        "title": "digits",
        "source_sha256": ["3"],
        "order": "label",
        "sha256_order": "source_index",
        "sha256_samples": 6,
        "label_sha256": "4",
        "coordinates": "day",
    }
    assert root_attrs(attrs, "label", content(), "", ["5"])["source_sha256"] == ["5"]


NAMED = {
    "id": "mnist",
    "title": "MNIST",
    "license": "CC",
    "references": "LeCun",
    "source": "four files",
    "source_sha256": ["3"],
    "creator": "me",
}
RECORDED = NAMED | {"sha256_order": "source_index", "image_sha256": "1", "label_sha256": "2"}


@pytest.mark.parametrize(
    ("attrs", "written"),
    [
        (NAMED, content(image="5")),  # nothing is recorded of other samples
        (RECORDED, content(image="1", label="2")),
        (RECORDED, content(image="1", label="2", writer="7")),
        (RECORDED, content(image="1")),
    ],
)
def test_what_identifies_a_data_set_is_kept_for_the_samples_that_it_was_recorded_of(
    attrs: dict[str, Any], written: Content
) -> None:
    root = root_attrs(attrs, "source", written, "", [])
    assert NAMED.items() <= root.items()


@pytest.mark.parametrize(
    ("attrs", "written"),
    [
        (RECORDED, content(image="5", label="2")),
        (RECORDED, content(image="1", label="5")),
        (RECORDED, content("stored", image="1", label="2")),
        (NAMED | {"sha256_order": "source_index"}, content(image="1", label="2")),
    ],
)
def test_of_other_samples_the_root_says_what_they_were_made_from(
    attrs: dict[str, Any], written: Content
) -> None:
    root = root_attrs(attrs, "source", written, "", [])
    assert root.keys().isdisjoint({"id", "title", "license", "source_sha256"})
    assert root["source"] == "made, at least in part, from: MNIST (id mnist, license CC)"
    assert (root["derived_from"], root["creator"]) == ("mnist", "me")
    again = root_attrs(root, "source", content(image="6"), "", [])
    assert (again["source"], again["derived_from"]) == (root["source"], "mnist")
    as_opened = root_attrs(attrs, "source", written, "", [], is_as_opened=True)
    assert NAMED.items() <= as_opened.items()
