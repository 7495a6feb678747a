"""Pictures of noise, made by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

ROWS, COLS = 6, 8


def noise(seed: int = 0, shape: tuple[int, ...] = (ROWS, COLS)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(
    path: Path, pixels: npt.NDArray[Any] | None = None, *, orientation: int = 1, **options: Any
) -> npt.NDArray[Any]:
    """Save pixels as a picture, by default noise, and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = noise() if pixels is None else pixels
    picture = Image.fromarray(array)
    if orientation != 1:
        exif = picture.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    picture.save(path, **options)
    return array


def folder_of(place: Path, *names: str) -> Path:
    """Make a folder with pictures of these names, each of other noise."""
    for seed, name in enumerate(names):
        save(place / name, noise(seed))
    return place
