"""Colour keeps its dimensions from every kind of source to every kind of output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from mnist_zarr import plot
from mnist_zarr.builder import build
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.formats.npz import open_npz, write_npz
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.plan import Order
from tests.support.idx_pairs import put_pair
from tests.support.pictures import noise, save

DIMS = ("sample", "row", "col", "band")


def make_source(kind: str, place: Path, images: npt.NDArray[Any]) -> Path:
    labels = np.arange(len(images), dtype=np.uint8) % 2
    if kind == "idx":
        put_pair(place, "train", images, labels)
    elif kind == "npz":
        np.savez(place / "a.npz", X_train=images, y_train=labels)
        return place / "a.npz"
    else:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            save(place / "train" / str(label) / f"{number}.png", image)
    return place


@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("n_bands", [3, 4])
@pytest.mark.parametrize("kind", ["idx", "npz", "pictures"])
def test_colour_from_every_source_to_every_output(
    kind: str, n_bands: int, order: Order, tmp_path: Path
) -> None:
    images = noise(shape=(6, 5, 7, n_bands))
    (tmp_path / "source").mkdir()
    build(tmp_path / "t.zarr", make_source(kind, tmp_path / "source", images), order=order)
    assert verify(tmp_path / "t.zarr").is_whole
    ds = xr.open_zarr(tmp_path / "t.zarr").sortby("source_index")
    assert ds.image.dims == DIMS
    by_source = np.concatenate([images[::2], images[1::2]]) if kind == "pictures" else images
    np.testing.assert_array_equal(ds.image.values, by_source)
    stored = open_store(tmp_path / "t.zarr")
    shown = plot.samples(stored).images[0].get_array()
    assert shown is not None
    assert shown.shape[2] in (3, 4)
    assert rescale(stored).image.dims == DIMS
    write_idx_files(stored, tmp_path / "idx")
    write_npz(stored, tmp_path / "t.npz", scaled=False, flat=False)
    for again in (open_idx(tmp_path / "idx"), open_npz(tmp_path / "t.npz")):
        assert again.image.dims == DIMS
        np.testing.assert_array_equal(again.image.values, by_source)
