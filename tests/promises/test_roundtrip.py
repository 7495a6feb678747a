"""Files in, store, files out: what is in between loses nothing, whatever the layout.

``pytest tests/promises/test_roundtrip.py --hypothesis-profile=thorough`` tries some thousand more.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore, ZipStore

from mnist_zarr.builder import build
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.transform import standardize
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.plot import mean_images
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.raw_idx import NUMPY_CODE_OF_TYPE, assert_same_bits, raw_idx

# What names of files say of the type.
WORD_OF_TYPE = {
    0x08: "ubyte",
    0x09: "byte",
    0x0B: "short",
    0x0C: "int",
    0x0D: "float",
    0x0E: "double",
}
INTEGERS = (0x08, 0x09, 0x0B, 0x0C)
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e-45, 0.1, 255.0]
MANY_CLASSES = 300


@dataclass(frozen=True)
class Part:
    """One split of a source: the elements of its files as they stand there."""

    split: str | None
    images: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None

    def files(self) -> dict[str, bytes]:
        """Return the files by name, of the dumbest writer."""
        word = {"test": "t10k-", "train": "train-"}.get(self.split or "", "")
        files = {f"{word}images-idx{_ending(self.images)}": _idx_bytes(self.images)}
        if self.labels is not None:
            files[f"{word}labels-idx{_ending(self.labels)}"] = _idx_bytes(self.labels)
        return files


def _ending(array: npt.NDArray[Any]) -> str:
    return f"{array.ndim}-{WORD_OF_TYPE[_type_code(array)]}"


def _type_code(array: npt.NDArray[Any]) -> int:
    return next(code for code, numpy in NUMPY_CODE_OF_TYPE.items() if array.dtype == numpy)


def _idx_bytes(array: npt.NDArray[Any]) -> bytes:
    return raw_idx(_type_code(array), array.shape, array.tobytes())


# -- what is drawn -----------------------------------------------------------------------


@st.composite
def arrays(draw: st.DrawFn, type_code: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Draw elements by their bytes: any NaN, infinity and subnormal number among them."""
    dtype = np.dtype(NUMPY_CODE_OF_TYPE[type_code])
    count = math.prod(shape)
    if dtype.kind == "f" and draw(st.booleans()):
        places = draw(st.binary(min_size=count, max_size=count))
        return np.array([SPECIAL[place % len(SPECIAL)] for place in places], dtype).reshape(shape)
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    return np.frombuffer(data, dtype).reshape(shape)


@st.composite
def sources(draw: st.DrawFn) -> list[Part]:
    """Draw the parts of a source: train and test, or one that may have no name."""
    type_code = draw(st.sampled_from(list(NUMPY_CODE_OF_TYPE)))
    row_shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    label_code = draw(st.none() | st.sampled_from(INTEGERS))
    parts = []
    splits: list[list[str | None]] = [[None], ["train"], ["test"], ["train", "test"]]
    for split in draw(st.sampled_from(splits)):
        n_samples = draw(st.integers(0, 9))
        images = draw(arrays(type_code, (n_samples, *row_shape)))
        labels = None if label_code is None else draw(arrays(label_code, (n_samples,)))
        parts.append(Part(split, images, labels))
    return parts


@st.composite
def layouts(draw: st.DrawFn, *, has_labels: bool) -> dict[str, Any]:
    """Draw options of write_zarr."""
    codec = draw(st.sampled_from(["zstd", "gzip"]))
    options: dict[str, Any] = {
        "zarr_format": draw(st.sampled_from([3, 2])),
        "order": draw(
            st.sampled_from(
                ["source", "label", "shuffled"] if has_labels else ["source", "shuffled"]
            )
        ),
        "codec": codec,
        "level": draw(st.integers(1, 22 if codec == "zstd" else 9)),
        "chunk_bytes": draw(st.none() | st.integers(1, 400)),
    }
    if options["zarr_format"] == 3 and options["chunk_bytes"]:
        options["shard_bytes"] = draw(st.none() | st.integers(options["chunk_bytes"], 1000))
    return options


@contextmanager
def target_of(kind: str, folder: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the target of a build, and what plain xarray opens."""
    if kind == "folder":
        yield folder / "d.zarr", folder / "d.zarr"
    elif kind == "zip":
        yield folder / "d.zarr.zip", ZipStore(folder / "d.zarr.zip", mode="r")
    else:
        url = "memory://roundtrip/d.zarr"
        try:
            yield url, url
        finally:
            fsspec.filesystem("memory").rm("/roundtrip", recursive=True)


# -- the round trips ---------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    parts=sources(),
    packed=st.booleans(),
    kind=st.sampled_from(["folder", "zip", "memory"]),
    data=st.data(),
)
def test_files_become_a_store_that_reads_as_they_do_and_gives_them_back(
    parts: list[Part], packed: bool, kind: str, data: st.DataObject
) -> None:
    options = data.draw(layouts(has_labels=parts[0].labels is not None))
    is_integer = parts[0].images.dtype.kind in "iu"
    rescale = data.draw(st.none() | st.just((-1, 1))) if is_integer else None
    with tempfile.TemporaryDirectory() as name, target_of(kind, Path(name)) as (target, opened):
        _check_round_trip(parts, packed, Path(name), target, opened, options, rescale)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=10)
@given(
    labels=arrays(0x0B, (2 * MANY_CLASSES,)).map(lambda labels: labels % MANY_CLASSES - 100),
    data=st.data(),
)
def test_hundreds_of_classes_with_negative_labels_come_back(
    labels: npt.NDArray[Any], data: st.DataObject
) -> None:
    labels = labels.astype(">i2")
    images = np.arange(len(labels) * 6, dtype=">i4").reshape(-1, 2, 3)
    options = data.draw(layouts(has_labels=True))
    parts = [Part("train", images[:500], labels[:500]), Part("test", images[500:], labels[500:])]
    with tempfile.TemporaryDirectory() as name, target_of("folder", Path(name)) as (target, opened):
        _check_round_trip(parts, True, Path(name), target, opened, options, None)


def _check_round_trip(
    parts: list[Part],
    packed: bool,
    folder: Path,
    target: Any,
    opened: Any,
    options: dict[str, Any],
    rescale: tuple[float, float] | None,
) -> None:
    source, exported = folder / "source", folder / "exported"
    source.mkdir()
    for part in parts:
        for name, content in part.files().items():
            (source / f"{name}{'.gz' if packed else ''}").write_bytes(
                gzip.compress(content, 1) if packed else content
            )
    stated: dict[str, Any] = {"labels": False} if parts[0].labels is None else {}
    build(target, source, rescale=rescale, **stated, **options)
    with xr.open_zarr(opened, chunks=None, mask_and_scale=False) as ds:
        _check_stored(ds.load(), parts, options["order"])
    assert verify(target).is_whole
    write_idx_files(open_store(target), exported)
    # A store tells of a split only by the samples that have it.
    kept = [part for part in parts if len(part.images) or part.split is None]
    expected = {name: content for part in kept for name, content in part.files().items()}
    assert {path.name: path.read_bytes() for path in exported.glob("*")} == expected


def _check_stored(ds: xr.Dataset, parts: list[Part], order: str) -> None:
    images = _native(np.concatenate([part.images for part in parts]))
    positions = ds.source_index.values
    np.testing.assert_array_equal(np.sort(positions), np.arange(len(images)))
    assert_same_bits(ds.image.values, images[positions])
    assert ds.attrs["image_sha256"] == hashlib.sha256(images.tobytes()).hexdigest()
    by_label = np.arange(len(images))
    if parts[0].labels is None:
        assert "label" not in ds.variables
    else:
        labels = _native(np.concatenate([part.labels for part in parts if part.labels is not None]))
        assert_same_bits(ds.label.values, labels[positions])
        assert ds.attrs["label_sha256"] == hashlib.sha256(labels.tobytes()).hexdigest()
        by_label = np.argsort(labels, kind="stable")
    if order == "source":
        by_label = np.arange(len(images))
    if order != "shuffled":
        np.testing.assert_array_equal(positions, by_label)
    if parts[0].split is None:
        assert "split" not in ds.variables
    else:
        splits = np.repeat([part.split for part in parts], [len(part.images) for part in parts])
        assert ds.split.values.tolist() == splits[positions].tolist()


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    image=hnp.arrays(
        st.sampled_from([">i2", "u2", "u8", "i8", "f2", "bool"]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4),
        fill=st.nothing(),
    ),
    data=st.data(),
)
def test_types_that_idx_has_not_come_back_too(image: npt.NDArray[Any], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["u1", "i8"]))
    labels = data.draw(hnp.arrays(dtype, len(image), fill=st.nothing()))
    store = MemoryStore()
    write_zarr(make_dataset(image, label=labels), store, **data.draw(layouts(has_labels=True)))
    back = xr.open_zarr(store, chunks=None).load().sortby("source_index")
    assert_same_bits(back.image.values, _native(image))
    assert_same_bits(back.label.values, labels)


@pytest.mark.parametrize("dtype", [">f4", "<f4", "<f8"])
def test_a_nan_that_signals_passes_as_any_other(dtype: str) -> None:
    signalling = {4: 0x7F800001, 8: 0x7FF0000000000001}[np.dtype(dtype).itemsize]
    bits = np.full((4, 2, 2), signalling, dtype.replace("f", "u"))
    ds = make_dataset(bits.view(dtype), label=np.array([0, 1, 0, 1]))
    store = MemoryStore()
    write_zarr(ds, store, order="label")
    back = open_store(store, chunks=None)
    assert_same_bits(back.image.values, _native(ds.image.values))
    assert np.isnan(standardize(back, 0, 1).image.values).all()
    mean_images(back)
