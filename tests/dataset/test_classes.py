"""Numbers of samples per class and split."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from mnist_zarr.dataset.classes import class_attrs, class_names, count_samples
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.errors import SchemaError
from mnist_zarr.writing.writer import write_zarr

SAMPLES = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["train", "test", "extra"])))


@given(SAMPLES)
def test_counts_are_those_of_counting_one_by_one(samples: list[tuple[int, str]]) -> None:
    ds = make_dataset(
        None,
        label=np.array([label for label, _ in samples], dtype=np.uint8),
        split=np.array([split for _, split in samples], dtype=STRING_DTYPE),
    )
    counted = count_samples(ds)
    assert counted.splits == tuple(dict.fromkeys(split for _, split in samples))
    assert list(counted.of_label) == sorted({label for label, _ in samples})
    expected = Counter(samples)
    for label, counts in counted.of_label.items():
        assert counts == tuple(expected[label, split] for split in counted.splits)


@pytest.mark.parametrize(
    ("values", "meanings", "message"),
    [
        ([1, 2, 3], "cat dog cat", "flag_meanings has 'cat' more than once"),
        ([1, 2, 1], "cat dog cow", "flag_values has 1 more than once"),
        ([[1], [2, 3]], "cat dog cow", "expected a list of numbers"),
        ({"a": 1}, "cat", "expected a list of numbers"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    values: Any, meanings: str, message: str
) -> None:
    ds = make_dataset(None, label=np.array([1, 2, 3]))
    ds.label.attrs |= {"flag_values": values, "flag_meanings": meanings}
    with pytest.raises(SchemaError, match=message):
        class_names(ds)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", ""], "class 1: the name is empty"),
        (["cat", " \t"], "class 1: the name is empty"),
        (["cat"], "expected a name for each of 2 classes"),
        (["cat", "dog", "cow"], "expected a name for each of 2 classes"),
        ("ab", "expected a name for each of 2 classes"),
        (["a b", "a_b"], "'a_b' more than once"),
    ],
)
def test_names_that_flags_cannot_hold_are_refused(names: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        class_attrs([0, 1], names)


@pytest.mark.parametrize("meanings", ["cat", "cat dog cow", "", "cat cat"])
def test_names_that_no_reader_could_use_are_not_written(meanings: str) -> None:
    ds = make_dataset(np.zeros((2, 2, 2)), label=np.array([0, 1]))
    ds.label.attrs |= {"flag_values": [0, 1], "flag_meanings": meanings}
    store = MemoryStore()
    with pytest.raises(SchemaError, match="label: flag_"):
        write_zarr(ds, store)
    assert not store._store_dict
