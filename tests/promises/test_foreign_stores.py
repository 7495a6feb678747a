"""Stores that xarray or Zarr wrote or changed: a chunk of fill values need not be there."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import StoreError
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.hosting.publication import publish
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.report import Problem
from mnist_zarr.reading.summary import summarize
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import CARD, PAGE
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")


def with_a_black_chunk() -> xr.Dataset:
    images = np.arange(60 * 12, dtype=np.uint8).reshape(60, 4, 3) | 1
    images[20:40] = 0
    return make_dataset(images, label=np.zeros(60, np.uint8))


def written_by_xarray(target: Path) -> None:
    chunks = {"image": {"chunks": (20, 4, 3)}}
    with_a_black_chunk().to_zarr(target, encoding=chunks, zarr_format=3)


def copied_by_xarray(target: Path) -> None:
    ours = MemoryStore()
    write_zarr(with_a_black_chunk(), ours, chunk_bytes=20 * 12)
    xr.open_zarr(ours).to_zarr(target)


def with_predictions_of_xarray(target: Path) -> None:
    write_zarr(with_a_black_chunk(), target, chunk_bytes=20 * 12)
    opened = xr.open_zarr(target)
    added = opened.assign(prediction=("sample", np.zeros(60, np.int64)))
    added[["prediction"]].drop_vars(list(added.coords)).to_zarr(target, mode="a")


def object_keys(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def place_of_kind(kind: str, folder: Path) -> Any:
    if kind == "folder":
        return folder
    if kind == "store object":
        return LocalStore(folder, read_only=True)
    packed = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(packed, "w") as archive:
        for key in object_keys(folder):
            archive.write(folder / key, key)
    return packed


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (written_by_xarray, "image/c/1/0/0"),
        (copied_by_xarray, "image/c/1/0/0"),
        (with_predictions_of_xarray, "prediction/c/0"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "store object", "zip"])
def test_a_chunk_that_zarr_left_out_holds_the_fill_value(
    make: Any, left_out: str, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "d.zarr"
    make(folder)
    assert left_out not in object_keys(folder)
    expected = xr.open_zarr(folder).load()
    assert not expected.image[20:40].any()
    target = place_of_kind(kind, folder)
    for chunks in ("auto", None):
        opened = open_store(target, chunks=chunks)
        for name in expected.variables:
            np.testing.assert_array_equal(opened[name].values, expected[name].values)
    report = verify(target)
    assert report.problems == []
    assert summarize(target).counts["0"][-1] == 60
    write_npz(open_store(target), tmp_path / "d.npz", scaled=False)
    published = tmp_path / "published.zarr"
    publish(target, published)
    assert object_keys(published) - {CARD, PAGE} == object_keys(folder)
    xr.testing.assert_identical(xr.open_zarr(published).load(), expected)


def test_a_store_that_is_published_over_another_shows_nothing_of_it(memory_url: str) -> None:
    write_zarr(digits(), f"{memory_url}/d.zarr", chunk_bytes=20 * 12)
    assert open_store(f"{memory_url}/d.zarr").image[20:40].values.any()
    black = MemoryStore()
    images = xr.zeros_like(digits()[["image"]])
    images.to_zarr(black, encoding={"image": {"chunks": (20, 4, 3)}}, zarr_format=3)
    publish(black, f"{memory_url}/d.zarr", overwrite=True)
    assert not open_store(f"{memory_url}/d.zarr").image.values.any()


@pytest.mark.parametrize("kind", ["folder", "store object", "zip"])
def test_a_chunk_of_ours_that_is_missing_is_damage_unless_it_holds_the_fill_value(
    kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "d.zarr"
    write_zarr(with_a_black_chunk(), folder, chunk_bytes=20 * 12)
    assert object_keys(folder) >= {"image/c/1/0/0", "label/c/0"}
    (folder / "image" / "c" / "1" / "0" / "0").unlink()
    assert verify(place_of_kind(kind, folder)).problems == []
    assert not open_store(place_of_kind(kind, folder)).image[20:40].values.any()
    (folder / "image" / "c" / "2" / "0" / "0").unlink()
    target = place_of_kind(kind, folder)
    image = open_store(target).image
    assert image[:40].values.any()
    with pytest.raises(StoreError, match="image/c/2/0/0: this chunk is missing"):
        image.load()
    with pytest.raises(StoreError, match="lacks 1 of"):
        publish(target, MemoryStore())
    assert verify(target).problems == [Problem("image/c/2/0/0", "is missing")]


def ours(target: Path) -> xr.Dataset:
    write_zarr(open_dataset("mnist").isel(sample=slice(0, 200)), target, chunk_bytes=40_000)
    opened: xr.Dataset = xr.open_zarr(target)
    return opened


def test_samples_that_xarray_appended_are_told_from_those_that_are_recorded(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    mnist = open_dataset("mnist").isel(sample=slice(0, 200))
    # Before 2026.9 xarray appends no strings to those of a store.
    write_zarr(mnist.drop_vars("split"), target, chunk_bytes=40_000)
    opened = xr.open_zarr(target)
    opened.isel(sample=slice(0, 10)).load().drop_encoding().to_zarr(target, append_dim="sample")
    report = verify(target)
    added = next(problem for problem in report.problems if problem.place == "sample")
    assert added.what.startswith("10 samples were added after the 200 that are recorded (use")
    documents = [f"{name}/zarr.json" for name in ("image", "label", "source_index")]
    changed = [
        p.place for p in report.problems if p.what == "has changed since the store was built"
    ]
    assert changed == documents
    assert len(report.problems) == len(documents) + 1
    assert "the values of the 10 samples that were added" in report.unchecked
    assert report.confirmed == [
        "image, label of the first 200 samples, as recorded when the store was built",
        "image, label of the first 200 samples, equal to the data set 'mnist'",
    ]


def test_samples_that_were_cut_off_are_counted(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    ours(target)
    group = zarr.open_group(target)
    for name in list(group.array_keys()):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array.resize((150, *array.shape[1:]))
    zarr.consolidate_metadata(target)
    report = verify(target)
    assert Problem("sample", "50 of 200 samples were removed") in report.problems
    assert "image, label, split: the hashes are of more samples" in report.unchecked
    assert report.confirmed == ["image, label, equal to the data set 'mnist'"]


def test_a_coordinate_that_xarray_added_with_its_own_attributes_leaves_nothing_to_confirm(
    tmp_path: Path,
) -> None:
    target = tmp_path / "d.zarr"
    ours(target)
    added = xr.Dataset(coords={"day": ("sample", np.arange(200))})
    added.to_zarr(target, mode="a")
    report = verify(target)
    assert report.confirmed == []
    assert report.unchecked[0].startswith("metadata: no hashes are recorded; the store was written")
    assert (
        report.to_text().splitlines()[0].endswith("complete; nothing is recorded to compare with")
    )


def test_a_variable_that_xarray_added_is_named_and_the_rest_confirmed(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    with_predictions_of_xarray(target)
    report = verify(target)
    assert report.problems == []
    assert "prediction: was added after the store was built" in report.unchecked
    assert "image, label, as recorded when the store was built" in report.confirmed
