"""Many images as one: where each stands, and how its pixels become those of a tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.blocks import BLOCK_BYTES, bytes_per_sample, spans
from mnist_zarr.dataset.schema import COL, IMAGE, ROW, SAMPLE
from mnist_zarr.errors import OptionError

# Bounds of a sheet, whatever is asked for and however large the images are.
MAX_IMAGES = 10_000
MAX_IMAGES_PER_SIDE = 256
# Of the tiles that images become, in pixels; gaps and titles add up to half as many.
MAX_TILE_PIXELS = 8_000_000
MIN_TILE_SIDE, MAX_TILE_SIDE = 28, 512
MAX_TILE_RATIO = 8
# Relative to the longer side of a tile.
GAP, TITLE = 1 / 14, 1 / 4
# More titles than these per row or column would be too small to read.
MAX_TITLES_PER_SIDE = 30
# Samples this close together are read in one slice, with what lies between.
MAX_GAP_BYTES = 250_000


@dataclass(frozen=True)
class Grid:
    """Where each image stands on a sheet, and how its pixels become those of a tile.

    Pixels are averaged where the image is larger than it is shown, and repeated where it is so
    small or narrow that gaps and titles could not be laid out in whole pixels.
    """

    row_lengths: Sequence[int]
    image_shape: tuple[int, ...]  # row, col; then band
    steps: tuple[int, int]  # pixels that are averaged
    repeats: tuple[int, int]
    titles: Sequence[str]  # of each image, or of all, or none

    @classmethod
    def of(cls, ds: xr.Dataset, row_lengths: Sequence[int], names: Sequence[str] = ()) -> Grid:
        rows, columns = len(row_lengths), max(row_lengths)
        n_places = rows * columns
        if n_places > MAX_IMAGES or max(rows, columns) > MAX_IMAGES_PER_SIDE:
            raise OptionError(
                f"a picture of {rows:,} rows and {columns:,} columns is too large; expected "
                f"{MAX_IMAGES:,} images at most, and {MAX_IMAGES_PER_SIDE} rows or columns"
            )
        height, width = ds.sizes[ROW], ds.sizes[COL]
        longest = min(MAX_TILE_SIDE, math.isqrt(MAX_TILE_PIXELS // n_places))
        step = -(-max(height, width) // longest)
        steps = (min(step, height), min(step, width))
        sides = (-(-height // steps[0]), -(-width // steps[1]))
        repeat = max(1, MIN_TILE_SIDE // max(sides))
        shortest = -(-repeat * max(sides) // MAX_TILE_RATIO)
        repeats = (max(repeat, -(-shortest // sides[0])), max(repeat, -(-shortest // sides[1])))
        if len(set(names)) == 1:
            titles = names[:1]
        else:
            titles = names if max(rows, columns) <= MAX_TITLES_PER_SIDE else ()
        return cls(row_lengths, ds[IMAGE].shape[1:], steps, repeats, titles)

    @property
    def thinned_shape(self) -> tuple[int, ...]:
        sides = (-(-n // step) for n, step in zip(self.image_shape, self.steps, strict=False))
        return (*sides, *self.image_shape[2:])

    @property
    def tile_shape(self) -> tuple[int, int]:
        height, width = self.thinned_shape[:2]
        return height * self.repeats[0], width * self.repeats[1]

    @property
    def gap(self) -> int:
        return max(1, round(max(self.tile_shape) * GAP))

    @property
    def title_pixels(self) -> int:
        """The height of what stands above each image."""
        return round(max(self.tile_shape) * TITLE) if len(self.titles) > 1 else 0

    @property
    def pitch(self) -> tuple[int, int]:
        """From one image to the next, down and to the right."""
        height, width = self.tile_shape
        return self.title_pixels + height + self.gap, width + self.gap

    @property
    def sheet_shape(self) -> tuple[int, int]:
        rows, columns = len(self.row_lengths), max(self.row_lengths)
        return rows * self.pitch[0] - self.gap, columns * self.pitch[1] - self.gap

    def corners(self) -> Iterator[tuple[int, int]]:
        """Yield the upper left pixel of each image."""
        for row, length in enumerate(self.row_lengths):
            for column in range(length):
                yield row * self.pitch[0] + self.title_pixels, column * self.pitch[1]

    def thin(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        for axis, step in enumerate(self.steps, start=1):
            if step > 1:
                starts = np.arange(0, images.shape[axis], step)
                sums = np.add.reduceat(images, starts, axis=axis, dtype=np.float64)
                counts = np.diff(starts, append=images.shape[axis])
                images = sums / counts.reshape(-1, *(1,) * (images.ndim - axis - 1))
        return images

    def new_sheet(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a sheet of NaN, which shows as paper."""
        shape = (*self.sheet_shape, *self.image_shape[2:])
        return np.full(shape, np.nan, np.result_type(dtype, np.float32))

    def place(
        self, sheet: npt.NDArray[Any], numbers: npt.NDArray[np.intp], thinned: npt.NDArray[Any]
    ) -> None:
        """Draw the images of these numbers on the sheet."""
        corners, (height, width) = list(self.corners()), self.tile_shape
        for number, image in zip(numbers.tolist(), thinned, strict=True):
            top, left = corners[number]
            tile = image.repeat(self.repeats[0], axis=0).repeat(self.repeats[1], axis=1)
            sheet[top : top + height, left : left + width] = tile


def read_sheet(grid: Grid, ds: xr.Dataset, positions: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Read the images at these positions, a few megabytes at a time, into one large image."""
    sheet = grid.new_sheet(ds[IMAGE].dtype)
    by_position = np.argsort(positions, kind="stable")
    ascending = positions[by_position]
    sample_bytes = bytes_per_sample(ds[IMAGE].variable)
    for first, last in spans(ascending, sample_bytes, MAX_GAP_BYTES, BLOCK_BYTES):
        start, stop = int(ascending[first]), int(ascending[last - 1]) + 1
        # dask passes a slice on to the store, but not a list.
        span = ds[IMAGE].isel({SAMPLE: slice(start, stop)}).values
        images = span[ascending[first:last] - start]
        grid.place(sheet, by_position[first:last], grid.thin(images))
    return sheet
