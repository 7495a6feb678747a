"""How others do it: the tutorial's code, and the formats that MNIST has elsewhere."""

from __future__ import annotations

import gzip
import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import idx2numpy
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from PIL import Image
from zarr.codecs import ZstdCodec
from zlib_ng import zlib_ng

from mnist_zarr.catalog.entries import BUNDLED_FILES

Array = npt.NDArray[Any]
PAIRS = [
    (BUNDLED_FILES / f"{name}-images-idx3-ubyte.gz", BUNDLED_FILES / f"{name}-labels-idx1-ubyte.gz")
    for name in ("train", "t10k")
]


def gunzip(data: bytes) -> bytes:
    """Unpack a gzip file as fast as can be."""
    return bytes(zlib_ng.decompress(data, wbits=31))


def load_as_the_tutorial_does(images_path: Path, labels_path: Path) -> tuple[Array, Array]:
    """Read a pair of files with struct and numpy, and scale to [-1, 1] in float64."""
    with gzip.open(labels_path, "rb") as file:
        struct.unpack(">II", file.read(8))
        labels = np.frombuffer(file.read(), dtype=np.uint8)
    with gzip.open(images_path, "rb") as file:
        struct.unpack(">IIII", file.read(16))
        images = np.frombuffer(file.read(), dtype=np.uint8).reshape(len(labels), 784)
    return ((images / 255.0) - 0.5) * 2, labels


def load_all_as_the_tutorial_does() -> tuple[Array, Array]:
    """Read and scale both pairs."""
    (x_train, y_train), (x_test, y_test) = (load_as_the_tutorial_does(*pair) for pair in PAIRS)
    return np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])


def build_npz(target: Path) -> None:
    """Save the scaled arrays as the tutorial does."""
    (x_train, y_train), (x_test, y_test) = (load_as_the_tutorial_does(*pair) for pair in PAIRS)
    np.savez_compressed(target, X_train=x_train, y_train=y_train, X_test=x_test, y_test=y_test)


def build_with_xarray(
    target: Path, chunks: tuple[int, ...] | None = None, level: int | None = None
) -> None:
    """Load with gzip and numpy, and write with Dataset.to_zarr; by default in its own encoding."""
    image, label = read_raw_arrays()
    ds = xr.Dataset({"image": (("sample", "row", "col"), image)}, {"label": ("sample", label)})
    encoding = {}
    if level is not None:
        encoding = {
            "image": {"chunks": chunks, "compressors": ZstdCodec(level=level, checksum=True)}
        }
    ds.to_zarr(target, mode="w", consolidated=False, encoding=encoding)


def read_raw_arrays() -> tuple[Array, Array]:
    """Read all images and labels, with gzip and numpy alone."""
    images, labels = [], []
    for images_path, labels_path in PAIRS:
        with gzip.open(images_path, "rb") as file:
            images.append(np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28))
        with gzip.open(labels_path, "rb") as file:
            labels.append(np.frombuffer(file.read(), np.uint8, offset=8))
    return np.concatenate(images), np.concatenate(labels)


def write_hdf5(target: Path) -> None:
    """Write the raw arrays as HDF5 with gzip chunks."""
    image, label = read_raw_arrays()
    with h5py.File(target, "w") as file:
        file.create_dataset("image", data=image, chunks=(2500, 28, 28), compression="gzip")
        file.create_dataset("label", data=label)


def write_parquet(target: Path) -> None:
    """Write PNG-encoded images in Parquet, as the Hugging Face Hub stores MNIST."""
    image, label = read_raw_arrays()
    encoded = []
    for pixels in image:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, kind), "label": pa.array(label, pa.int64())})
    pq.write_table(table, target, row_group_size=1000)


def scale(images: Array) -> Array:
    """Scale to [-1, 1] in float32."""
    return images.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def select_from_source(digit: int) -> Array:
    """Load, scale and mask, as the tutorial does."""
    images, labels = load_all_as_the_tutorial_does()
    return images[labels == digit].astype(np.float32)


def select_from_npz(path: Path, digit: int) -> Array:
    """Load the saved arrays and mask."""
    with np.load(path) as saved:
        parts = [saved[f"X_{part}"][saved[f"y_{part}"] == digit] for part in ("train", "test")]
    return np.concatenate(parts).astype(np.float32)


def select_from_hdf5(path: Path, digit: int) -> Array:
    """Read everything and mask: h5py's own selection of scattered rows is far slower."""
    with h5py.File(path) as file:
        return scale(file["image"][:][file["label"][:] == digit])


def select_from_parquet(path: Path, digit: int) -> Array:
    """Filter by label while reading, then decode the PNG of every match."""
    table = pq.read_table(path, filters=[("label", "==", digit)])
    encoded = table["image"].combine_chunks().field("bytes").to_pylist()
    return scale(np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in encoded]))


def select_with_idx2numpy(digit: int) -> Array:
    """Read the gunzipped stream with idx2numpy and mask."""
    chosen = []
    for images_path, labels_path in PAIRS:
        with gzip.open(images_path) as file:
            images = idx2numpy.convert_from_file(file)
        with gzip.open(labels_path) as file:
            labels = idx2numpy.convert_from_file(file)
        chosen.append(images[labels == digit])
    return scale(np.concatenate(chosen))


def on_threads(n_threads: int, task: Any, items: list[Any]) -> list[Any]:
    """Run a task for each item on ``n_threads`` threads."""
    with ThreadPoolExecutor(n_threads) as threads:
        return list(threads.map(task, items))
