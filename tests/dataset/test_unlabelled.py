"""The label of samples without one; what stores and readers make of it is in tests/promises."""

from __future__ import annotations

import numpy as np
import pytest

from mnist_zarr.dataset.concatenation import Part, concat_samples
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.unlabelled import (
    MARK,
    are_unlabelled,
    label_of_export,
    marked_dtype,
    without_labels,
)
from mnist_zarr.errors import SourceError


@pytest.mark.parametrize(
    ("dtype", "marked"),
    [("uint8", "int16"), ("int8", "int8"), ("uint16", "int32"), ("int64", "int64")],
)
def test_the_type_of_labels_grows_only_if_it_cannot_hold_minus_1(dtype: str, marked: str) -> None:
    assert marked_dtype(np.dtype(dtype), "x") == marked


@pytest.mark.parametrize("dtype", ["uint64", "float64", "bool"])
def test_labels_of_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(SourceError, match=f"x: beside samples without labels.* got {dtype}"):
        marked_dtype(np.dtype(dtype), "x")


def test_minus_1_is_a_label_like_others_where_nothing_says_that_it_means_none() -> None:
    ds = make_dataset(None, label=np.array([-1, 1]))
    assert not are_unlabelled(ds.label).any()
    assert label_of_export(ds.label.variable, np.array([0, 1]), None) is ds.label.variable


def test_samples_without_labels_are_joined_to_others() -> None:
    labelled = make_dataset(np.zeros((2, 4, 4)), label=np.array([7, 255], np.uint8))
    others = without_labels(make_dataset(np.ones((1, 4, 4))))
    for parts, expected in (
        ([labelled, others], [7, 255, -1]),
        ([others, labelled, others], [-1, 7, 255, -1]),
        ([others, others], [-1, -1]),
    ):
        joined = concat_samples([Part("part", ds) for ds in parts]).label
        assert joined.values.tolist() == expected
        assert joined.attrs["valid_min"] == 0


def test_names_of_classes_outlive_a_part_without_labels_only() -> None:
    named = make_dataset(
        np.zeros((1, 4, 4)),
        label=np.array([1], np.uint8),
        label_attrs={"flag_values": [0, 1], "flag_meanings": "cat dog"},
    )
    unnamed = make_dataset(np.zeros((1, 4, 4)), label=np.array([1], np.int16), label_attrs=MARK)
    without = without_labels(unnamed.drop_vars("label"))
    joined = concat_samples([Part("a", named), Part("b", without)])
    assert joined.label.attrs["flag_meanings"] == "cat dog"
    joined = concat_samples([Part("a", named), Part("b", unnamed)])
    assert "flag_meanings" not in joined.label.attrs


def test_exported_labels_have_the_type_that_they_had() -> None:
    label = make_dataset(None, label=np.array([0, 255, -1], np.int16), label_attrs=MARK).label
    exported = label_of_export(label.variable, np.array([0, 1]), "train")
    assert exported is not None
    assert exported.dtype == np.uint8
    assert label_of_export(label.variable, np.array([2]), "test") is None
    larger = make_dataset(None, label=np.array([256], np.int16), label_attrs=MARK).label.variable
    exported = label_of_export(larger, np.array([0]), None)
    assert exported is not None
    assert exported.dtype == np.int16
