"""Changes of a store that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.builder import build
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.changes import append, update
from mnist_zarr.dataset.classes import class_attrs, class_names
from mnist_zarr.errors import (
    OptionError,
    SchemaError,
    SourceError,
    StoreError,
    StoreNotFoundError,
)
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.summary import summarize
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.files import file_contents
from tests.support.targets import IN_PLACE, Named


def with_predictions(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(prediction=("sample", 9 - ds.label.values)).assign_coords(
        day=("sample", np.arange(ds.sizes["sample"]))
    )


def test_a_variable_and_a_coordinate_are_added_in_every_kind_of_target(
    kind: str, new_target: Named
) -> None:
    target, options = new_target
    write_zarr(digits(), target, order="label", chunk_bytes=200, storage_options=options)
    if kind in IN_PLACE:
        with pytest.raises(StoreError, match="the Dataset is read from this very store"):
            update(target, with_predictions, storage_options=options)
        assert verify(target, storage_options=options).is_whole
        return
    before = open_store(target, storage_options=options).load()
    update(target, with_predictions, storage_options=options)
    after = open_store(target, storage_options=options).load()
    xr.testing.assert_identical(
        after.drop_attrs(deep=False), with_predictions(before).drop_attrs(deep=False)
    )
    report = verify(target, storage_options=options)
    assert report.problems == []
    assert any("day" in line for line in report.confirmed)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"order": "label", "chunk_bytes": 240, "level": 3},
        {"chunk_bytes": 120, "shard_bytes": 480, "level": 2},
        {"zarr_format": 2, "codec": "gzip", "level": 5},
        {"zarr_format": 2, "level": 4, "rescale": (-1, 1)},
    ],
)
def test_a_change_of_nothing_changes_nothing(layout: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(digits(), target, **layout)
    before = file_contents(target)
    update(target, lambda ds: ds)
    assert file_contents(target) == before


def test_mnist_stays_mnist_when_a_coordinate_is_added(tmp_path: Path) -> None:
    target = tmp_path / "mnist.zarr"
    build(target, order="label", level=1)
    update(target, with_predictions)
    assert summarize(target).attrs["id"] == "mnist"
    assert verify(target).confirmed[-1] == "image, label, equal to the data set 'mnist'"


def test_a_store_that_xarray_wrote_can_be_changed(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        digits().to_zarr(target)
    update(target, with_predictions)
    assert verify(target).problems == []
    np.testing.assert_array_equal(open_store(target).image, digits().image)


def test_a_change_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(digits(), target)
    before = file_contents(target)
    with pytest.raises(SchemaError, match=r"expected an xarray\.Dataset, got NoneType"):
        update(target, lambda ds: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        update(target, lambda ds: ds.assign(wrong=1 // 0))
    with pytest.raises(OptionError, match="`change`: expected a function"):
        update(target, digits())  # type: ignore[arg-type]
    assert file_contents(target) == before
    with pytest.raises(StoreNotFoundError):
        update(MemoryStore(), with_predictions)


def test_a_shuffled_store_stays_one_and_mixes_what_is_added(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(digits(50), target, order="shuffled", chunk_bytes=100)
    update(target, lambda ds: ds.assign_coords(is_even=ds.label % 2 == 0))
    append(target, digits(30).assign_coords(is_even=digits(30).label % 2 == 0))
    stored = open_store(target).load()
    assert stored.attrs["order"] == "shuffled"
    assert (stored.source_index[:50].values >= 50).any()
    images = np.concatenate([digits(50).image.values, digits(30).image.values])
    np.testing.assert_array_equal(stored.sortby("source_index").image.values, images)
    assert verify(target).problems == []


@pytest.mark.parametrize("layout", [{}, {"order": "label"}, {"rescale": (-1, 1)}])
@pytest.mark.parametrize("lazy", [False, True])
def test_samples_are_added_after_those_of_the_store(
    layout: dict[str, Any], lazy: bool, tmp_path: Path
) -> None:
    target, more = tmp_path / "d.zarr", digits(30, seed=3)
    write_zarr(digits(), target, chunk_bytes=200, **layout)
    if lazy:
        write_zarr(more, tmp_path / "more.zarr")
        append(target, open_store(tmp_path / "more.zarr", chunks=None))
    else:
        append(target, more)
    report = verify(target)
    assert report.problems == []
    assert any(line.startswith("image, label, split, as recorded") for line in report.confirmed)
    stored = xr.open_zarr(target, mask_and_scale=False).load()
    if layout.get("order") == "label":
        assert (np.diff(stored.label.values.astype(int)) >= 0).all()
    in_order = stored.sortby("source_index")
    assert in_order.source_index.values.tolist() == list(range(90))
    for name in ("image", "label", "split"):
        expected = np.concatenate([digits()[name].values, more[name].values])
        np.testing.assert_array_equal(in_order[name].values, expected)
    assert stored.image.attrs.get("scale_factor") == (2 / 255 if "rescale" in layout else None)


def test_mnist_with_more_samples_is_not_called_mnist(tmp_path: Path) -> None:
    target = tmp_path / "mnist.zarr"
    build(target, level=1)
    mnist = open_dataset("mnist").isel(sample=slice(0, 5))
    append(target, mnist)
    attrs = summarize(target).attrs
    assert attrs.keys().isdisjoint({"id", "title", "license"})
    assert len(attrs["source_sha256"]) == 4
    assert attrs["source"].startswith("made, at least in part, from: MNIST database")
    assert verify(target).problems == []
    assert open_store(target).sizes["sample"] == 70_005


def test_samples_that_do_not_fit_are_refused_and_named(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    named = digits()
    named.label.attrs |= class_attrs(range(10), list("abcdefghij"))
    write_zarr(named, target)
    before = file_contents(target)
    with pytest.raises(SourceError, match=r"'image' is uint8 .* in the store, float64"):
        append(target, digits().assign(image=digits().image / 255.0))
    with pytest.raises(SourceError, match="the store has 'label', but the Dataset does not"):
        append(target, digits().drop_vars("label"))
    with pytest.raises(SchemaError, match="values that flag_values does not name, such as 11"):
        append(target, digits().assign_coords(label=xr.full_like(digits().label, 11)))
    assert file_contents(target) == before
    append(target, digits())
    assert class_names(open_store(target)) == dict(enumerate("abcdefghij"))
