"""Many images as one: its bounds, and where each image stands."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.sheet import (
    MAX_IMAGES,
    MAX_IMAGES_PER_SIDE,
    MAX_TILE_PIXELS,
    MAX_TILE_RATIO,
    MAX_TILE_SIDE,
    MIN_TILE_SIDE,
    Grid,
    read_sheet,
)
from mnist_zarr.errors import OptionError


@given(
    shape=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    row_lengths=st.lists(st.integers(1, 300), min_size=1, max_size=300),
    is_titled=st.booleans(),
)
def test_a_sheet_has_bounds_whatever_its_images(
    shape: tuple[int, int], row_lengths: list[int], is_titled: bool
) -> None:
    n_images = sum(row_lengths)
    ds = make_dataset(dask.array.zeros((n_images, *shape), chunks=(1, *shape)))
    names = [str(number) for number in range(n_images)] if is_titled else []
    rows, columns = len(row_lengths), max(row_lengths)
    if rows * columns > MAX_IMAGES or max(rows, columns) > MAX_IMAGES_PER_SIDE:
        with pytest.raises(OptionError, match="is too large"):
            Grid.of(ds, row_lengths, names)
        return
    grid = Grid.of(ds, row_lengths, names)
    height, width = grid.sheet_shape
    assert height * width <= 1.5 * MAX_TILE_PIXELS
    assert MIN_TILE_SIDE // 2 < max(grid.tile_shape) <= MAX_TILE_SIDE
    assert max(grid.tile_shape) <= MAX_TILE_RATIO * min(grid.tile_shape)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    row_lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    n_bands=st.sampled_from([None, 3, 4]),
    seed=st.integers(0, 10**6),
)
def test_every_image_stands_in_its_place(
    shape: tuple[int, int], row_lengths: list[int], n_bands: int | None, seed: int
) -> None:
    n_shown, rng = sum(row_lengths), np.random.default_rng(seed)
    whole = (20, *shape) if n_bands is None else (20, *shape, n_bands)
    ds = make_dataset(rng.integers(0, 256, whole).astype(np.uint8))
    ds = ds.rename(dict(zip(ds.image.dims, ("sample", "row", "col", "band"), strict=False)))
    positions = rng.choice(20, n_shown, replace=False)
    grid = Grid.of(ds, row_lengths)
    sheet = read_sheet(grid, ds, positions)
    down, right = grid.repeats
    for position, (top, left) in zip(positions, grid.corners(), strict=True):
        for row in range(shape[0]):
            for col in range(shape[1]):
                pixel = sheet[top + row * down, left + col * right]
                np.testing.assert_array_equal(pixel, ds.image.values[position, row, col])
    n_pixels = n_shown * grid.tile_shape[0] * grid.tile_shape[1] * (n_bands or 1)
    assert np.count_nonzero(~np.isnan(sheet)) == n_pixels


def test_what_is_averaged_is_the_mean_of_its_pixels() -> None:
    image = np.random.default_rng(0).normal(size=(1, 1100, 1025))
    grid = Grid.of(make_dataset(image), [1])
    assert grid.steps == (3, 3)
    (thinned,) = grid.thin(image)
    assert thinned.shape == grid.thinned_shape == (367, 342)
    for row, col in ((0, 0), (17, 99), (366, 341), (366, 5)):
        block = image[0, 3 * row : 3 * row + 3, 3 * col : 3 * col + 3]
        np.testing.assert_allclose(thinned[row, col], block.mean(), rtol=1e-12)
