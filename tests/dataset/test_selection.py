"""Selecting as people type it, against a list comprehension."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.dataset.selection import exclude, select
from mnist_zarr.errors import SelectionError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr

NAMES = ["T-shirt/top", "Trouser", "Ankle boot", "Bag"]


def clothes(n_samples: int = 30) -> xr.Dataset:
    rng = np.random.default_rng(3)
    return make_dataset(
        rng.integers(0, 256, (n_samples, 2, 2)).astype(np.uint8),
        label=rng.integers(0, 4, n_samples).astype(np.uint8),
        split=np.where(rng.random(n_samples) < 0.5, "train", "test").astype(STRING_DTYPE),
        label_attrs=class_attrs(range(4), NAMES),
    )


def labels_of(ds: xr.Dataset, **wanted: Any) -> list[int]:
    return [int(value) for value in select(ds, **wanted).label.values]


def test_one_label_keeps_the_order_and_the_dimension() -> None:
    ds = clothes()
    chosen = select(ds, label=2)
    expected = [i for i, value in enumerate(ds.label.values) if value == 2]
    xr.testing.assert_identical(chosen, ds.isel(sample=expected))
    assert chosen.image.dims == ("sample", "row", "col")


@given(wanted=st.lists(st.integers(0, 3), min_size=1), split=st.sampled_from(["train", "test"]))
def test_several_labels_and_a_split_at_once(wanted: list[int], split: str) -> None:
    ds = clothes()
    chosen = select(ds, label=wanted, split=split)
    pairs = zip(ds.label.values, ds.split.values, strict=True)
    expected = [i for i, (value, part) in enumerate(pairs) if value in wanted and part == split]
    xr.testing.assert_identical(chosen, ds.isel(sample=expected))


@given(unwanted=st.lists(st.integers(0, 3), min_size=1))
def test_all_but_some_labels_are_selected(unwanted: list[int]) -> None:
    ds = clothes()
    expected = [i for i, value in enumerate(ds.label.values) if value not in unwanted]
    xr.testing.assert_identical(exclude(ds, label=unwanted), ds.isel(sample=expected))


def test_samples_that_meet_all_conditions_are_left_out_and_without_one_none_are() -> None:
    ds = clothes()
    pairs = list(zip(ds.label.values, ds.split.values, strict=True))
    expected = [i for i, pair in enumerate(pairs) if pair != (3, "test")]
    assert len(expected) < len(pairs)
    xr.testing.assert_identical(exclude(ds, label="bag", split="test"), ds.isel(sample=expected))
    xr.testing.assert_identical(exclude(ds), ds)
    with pytest.raises(SelectionError, match="no sample has label 'shoe'; choose from 0"):
        exclude(ds, label="shoe")


def test_a_class_of_one_sample_keeps_the_dimension() -> None:
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([5, 0, 5]))
    assert select(ds, label=0).sizes["sample"] == 1
    assert exclude(ds, label=5).image.dims == ("sample", "row", "col")


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        (slice(1, 2), {1, 2}),  # both ends included, as labels are sliced in xarray
        (slice(None, 1), {0, 1}),
        (slice(2, None), {2, 3}),
        (slice("Trouser", "ankle boot"), {1, 2}),
        ([0, 3], {0, 3}),
        (np.array([1]), {1}),
        ({2, 3}, {2, 3}),
        (range(2), {0, 1}),
        (np.uint8(3), {3}),
        (2.0, {2}),
        ("Ankle boot", {2}),
        ("ankle_boot", {2}),
        ("T-shirt/top", {0}),
        (["Bag", 1], {1, 3}),
        ("3", {3}),
    ],
)
def test_labels_are_taken_in_every_way_in_which_people_type_them(
    wanted: Any, allowed: set[int]
) -> None:
    ds = clothes()
    assert labels_of(ds, label=wanted) == [v for v in ds.label.values if v in allowed]


def test_it_works_on_a_selection_and_on_other_coordinates() -> None:
    ds = clothes().assign_coords(writer=("sample", np.arange(30) // 10))
    chosen = select(select(ds, label=[1, 2]), writer=1, label=2)
    assert set(chosen.label.values.tolist()) == {2}
    assert set(chosen.writer.values.tolist()) == {1}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"label": 42}, "no sample has label 42; choose from 0 (T-shirt/top), 1 (Trouser), 2"),
        ({"label": "boot"}, "no sample has label 'boot'; choose from 0 (T-shirt/top)"),
        ({"label": 2.5}, "no sample has label 2.5"),
        ({"label": [1, 9]}, "no sample has label 9"),
        ({"label": 300}, "no sample has label 300"),
        ({"label": -1}, "no sample has label -1"),
        ({"split": "valid"}, "no sample has split 'valid'; choose from test, train"),
        ({"writer": 3}, "writer: no such coordinate along 'sample'; choose from label, split"),
        ({"label": slice("a", 2)}, "label: cannot compare slice('a', 2, None)"),
        ({"label": slice(0, 4, 2)}, "a range takes no step"),
    ],
)
def test_a_wrong_value_names_the_choices(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError) as caught:
        select(clothes(), **wanted)
    assert message in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_labels_without_names_are_offered_as_numbers() -> None:
    ds = make_dataset(np.zeros((3, 1, 1)), label=np.array([5, 5, 8]))
    with pytest.raises(SelectionError, match=r"choose from 5, 8$"):
        select(ds, label=7)


def test_a_valid_pair_without_samples_is_an_empty_selection() -> None:
    ds = make_dataset(
        np.zeros((2, 1, 1)),
        label=np.array([1, 2]),
        split=np.array(["train", "test"], dtype=STRING_DTYPE),
    )
    assert select(ds, label=1, split="test").sizes["sample"] == 0


def test_a_class_that_lies_together_is_selected_as_one_slice() -> None:
    store = MemoryStore()
    write_zarr(clothes(400), store, order="label", chunk_bytes=40)
    ds = open_store(store, chunks={"sample": 10})
    chosen = select(ds, label=3)
    start = int(np.flatnonzero(ds.label.values == 3)[0])
    # Whole chunks but the first and the last: no sample is picked out of a chunk one by one.
    assert chosen.image.chunks is not None
    assert chosen.image.chunks[0][0] == 10 - start % 10
    assert set(chosen.image.chunks[0][1:-1]) == {10}


def test_nothing_is_read_but_coordinates() -> None:
    ds = select(open_dataset("mnist"), label=7, split="train")
    assert ds.sizes["sample"] == 6265
    assert not ds.image.variable._in_memory


@pytest.mark.parametrize(
    "wanted",
    [
        xr.DataArray([3, 7]),
        pd.Series([3, 7]),
        pd.Index([3, 7]),
        frozenset([3, 7]),
        {3: None, 7: None}.keys(),
        (number for number in (3, 7)),
        np.array([3, 7], dtype=">i2"),
    ],
    ids=lambda wanted: type(wanted).__name__,
)
def test_any_collection_of_labels_is_taken(wanted: Any) -> None:
    ds = make_dataset(np.zeros((5, 2, 2)), label=np.array([3, 7, 1, 3, 0]))
    assert select(ds, label=wanted).label.values.tolist() == [3, 7, 3]


def test_an_array_of_rank_0_is_one_label_and_one_of_rank_2_is_refused() -> None:
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([3, 7, 3]))
    assert select(ds, label=np.array(7)).sizes["sample"] == 1
    with pytest.raises(
        SelectionError, match="expected a list of values, got an array of 2 dimensions"
    ):
        select(ds, label=np.array([[3, 7]]))
    with pytest.raises(SelectionError, match="no sample has label b'7'"):
        select(ds, label=b"7")


@pytest.mark.parametrize("wanted", [True, [True, False, True], slice(False, 3)])
def test_a_mask_is_not_taken_for_labels_0_and_1(wanted: Any) -> None:
    ds = make_dataset(np.zeros((3, 2, 2)), label=np.array([0, 1, 3]))
    with pytest.raises(SelectionError, match=r"got booleans; .* use ds\.isel\(sample=mask\)"):
        select(ds, label=wanted)
    flags = ds.assign_coords(is_odd=("sample", [False, True, True]))
    assert select(flags, is_odd=True).label.values.tolist() == [1, 3]


def test_a_name_that_several_classes_may_have_is_not_guessed() -> None:
    ds = clothes()
    ds.label.attrs |= {"flag_values": [0, 1, 2, 3], "flag_meanings": "Cat CAT dog Dog"}
    with pytest.raises(SelectionError, match=r"'cat': may be any of 0 \(Cat\), 1 \(CAT\)"):
        select(ds, label="cat")
    assert set(labels_of(ds, label="CAT")) == {1}
