"""What a store says of its samples is true of these very samples, or not said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.builder import build
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.selection import select
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import SchemaError
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.hosting.publication import publish
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

IDENTIFYING = {"id", "title", "license"}
AS_MNIST = "image, label, equal to the data set 'mnist'"


@pytest.fixture(scope="module")
def mnist_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("origin") / "mnist.zarr"
    build(target, order="label", level=1)
    return target


def joined_with_own(mnist: xr.Dataset) -> xr.Dataset:
    own = make_dataset(np.zeros((5, 28, 28), np.uint8), label=np.arange(5, dtype=np.uint8))
    own = own.assign_coords(split=("sample", ["train"] * 5))
    return xr.concat(
        [mnist.drop_vars("source_index"), own], "sample", data_vars="minimal", join="override"
    )


CHANGES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "joined with own samples": joined_with_own,
    "inverted": lambda ds: ds.assign(image=255 - ds.image),
    "relabelled": lambda ds: ds.assign_coords(label=9 - ds.label),
    "in another order of labels": lambda ds: ds.assign_coords(label=ds.label.variable[::-1]),
    "selected": lambda ds: select(ds, label=7),
    "rescaled": rescale,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("of", ["files", "store"])
def test_samples_that_are_not_mnist_are_not_called_mnist(
    change: str, of: str, mnist_store: Path, tmp_path: Path
) -> None:
    mnist = open_dataset("mnist") if of == "files" else open_store(mnist_store)
    target = tmp_path / "d.zarr"
    write_zarr(CHANGES[change](mnist), target, level=1)
    attrs = xr.open_zarr(target).attrs
    assert attrs.keys().isdisjoint(IDENTIFYING)
    # Files that the values were made of are their source, whatever was done to them.
    assert ("source_sha256" in attrs) == (of == "files" and change != "joined with own samples")
    assert attrs["source"].startswith("made, at least in part, from: MNIST database of handwritten")
    assert "(id mnist, license " in attrs["source"]
    report = verify(target)
    assert report.is_whole
    assert any("mnist" in line for line in [*report.confirmed, *report.unchecked])
    if change == "selected":
        assert report.confirmed[-1] == AS_MNIST
    publish(target, tmp_path / "published.zarr")
    card = json.loads((tmp_path / "published.zarr" / "croissant.json").read_text())
    assert "license" not in card


@pytest.mark.parametrize("order", ["source", "label"])
def test_the_same_samples_are_called_mnist_whichever_way_they_went(
    order: Any, mnist_store: Path, tmp_path: Path
) -> None:
    sources: dict[str, Any] = {
        "name": "mnist",
        "store": mnist_store,
        "dask": open_store(mnist_store),
        "in memory": open_dataset("mnist").load(),
        "more coordinates": open_dataset("mnist").assign_coords(day=("sample", np.arange(70_000))),
    }
    for name, source in sources.items():
        target = tmp_path / f"{name}.zarr"
        build(target, source, order=order, level=1)
        assert xr.open_zarr(target).attrs.keys() >= IDENTIFYING, name
        assert verify(target).confirmed[-1] == AS_MNIST, name


def test_files_that_are_not_those_of_all_samples_are_not_recorded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_idx_files(digits(), tmp_path / name)
    one, two = open_idx(tmp_path / "one"), open_idx(tmp_path / "two")
    write_zarr(one, tmp_path / "one.zarr")
    assert len(xr.open_zarr(tmp_path / "one.zarr").attrs["source_sha256"]) == 4
    write_zarr(xr.concat([one, two], "sample"), tmp_path / "both.zarr")
    assert xr.open_zarr(tmp_path / "both.zarr").attrs.keys().isdisjoint({"source", "source_sha256"})


def two_stores_with_own_labels(tmp_path: Path, names: dict[str, str] | None = None) -> xr.Dataset:
    parts = []
    for part, labels in enumerate(([0, 1, 2, 0], [3, 4, 5, 3])):
        images = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3) + np.uint8(100 * part)
        ds = make_dataset(images, label=np.array(labels, np.uint8))
        ds.label.attrs |= names or {}
        write_zarr(ds, tmp_path / f"{part}.zarr")
        parts.append(open_store(tmp_path / f"{part}.zarr"))
    return xr.concat(parts, "sample")


def test_joined_stores_get_new_numbers_and_flags_and_are_whole(tmp_path: Path) -> None:
    both = two_stores_with_own_labels(tmp_path)
    assert both.source_index.values.tolist() == [0, 1, 2, 3] * 2
    for order in ("source", "label"):
        target = tmp_path / f"{order}.zarr"
        write_zarr(both, target, order=order)
        assert verify(target).is_whole
        stored = open_store(target)
        assert class_names(stored) == {label: str(label) for label in range(6)}
        again = stored.sortby("source_index")
        assert again.source_index.values.tolist() == list(range(8))
        np.testing.assert_array_equal(again.image, both.image)
    moved = both.assign_coords(label=both.label + 10)
    write_zarr(moved, tmp_path / "moved.zarr")
    assert list(class_names(open_store(tmp_path / "moved.zarr"))) == [10, 11, 12, 13, 14, 15]


def test_names_of_classes_that_do_not_fit_all_labels_are_refused(tmp_path: Path) -> None:
    both = two_stores_with_own_labels(tmp_path)
    both.label.attrs |= {"flag_values": [0, 1, 2], "flag_meanings": "cat dog owl"}
    with pytest.raises(SchemaError, match=r"does not name, such as 3; .*class_attrs"):
        write_zarr(both, tmp_path / "d.zarr")
    assert not (tmp_path / "d.zarr").exists()


def test_samples_of_joined_stores_are_exported_in_their_order(tmp_path: Path) -> None:
    both = two_stores_with_own_labels(tmp_path)
    write_npz(both, tmp_path / "both.npz", scaled=False, flat=False)
    with np.load(tmp_path / "both.npz") as archive:
        np.testing.assert_array_equal(archive["X"], both.image)
        assert archive["y"].tolist() == [0, 1, 2, 0, 3, 4, 5, 3]
