"""Changes of pixels that wait until somebody asks for values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.lazy import is_lazy, kept
from mnist_zarr.dataset.scaling import Scaling
from mnist_zarr.dataset.transform import rescale, standardize
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits, lazy_digits

CHANGES: list[Callable[[xr.Dataset], xr.Dataset]] = [
    rescale,
    lambda ds: standardize(ds, 33.0, 78.0),
]


def test_what_is_lazy_stays_lazy_and_gives_the_same_values(tmp_path: Path) -> None:
    for form, ds in lazy_digits(tmp_path).items():
        for change in CHANGES:
            expected, changed = change(digits()).image, change(ds).image
            assert (changed.chunks is None) == (ds.image.chunks is None), form
            assert not changed.variable._in_memory
            read_best = ds.image.encoding.get("preferred_chunks")
            assert changed.encoding.get("preferred_chunks") == read_best
            for key in (slice(None), slice(3, 50, 4), [5, 1, 59, 1], 8, slice(9, 9)):
                np.testing.assert_array_equal(changed[key], expected[key], strict=True)
            np.testing.assert_array_equal(changed[2:9, 1, [2, 0]], expected[2:9, 1, [2, 0]])


def test_a_lazy_store_is_not_read_before_values_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", chunk_bytes=120)
    scaled = rescale(open_store(tmp_path / "d.zarr", chunks=None))
    read = []
    convert = Scaling.__call__

    def recording(self: Scaling, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        read.append(values.size)
        return convert(self, values)

    monkeypatch.setattr("mnist_zarr.dataset.scaling.Scaling.__call__", recording)
    assert not read
    scaled.image[4:6].load()
    assert read == [256]  # the table of one block


def test_changing_pixels_of_lazy_files_decodes_nothing(decoded: list[int]) -> None:
    ds = open_dataset("mnist")
    decoded.clear()  # of the headers
    changed = [change(ds).image for change in CHANGES]
    assert not decoded
    assert [is_lazy(image.variable) for image in changed] == [True, True]
    assert not is_lazy(ds.image[:2].load().variable)
    assert not is_lazy(ds.image.chunk().variable)


def test_dask_arrays_are_rescaled_lazily_chunk_by_chunk() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    array = cast(Any, dask.array).from_array(pixels, (5, 16))
    scaled = rescale(array)
    assert isinstance(scaled, dask.array.Array)
    assert scaled.chunks == array.chunks
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, rescale(pixels))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.integers(1, 7),
    st.lists(
        st.one_of(
            # Of negative steps xarray gives other samples than NumPy where none are meant.
            st.slices(20).filter(lambda key: (key.step or 1) > 0),
            st.integers(0, 19),
            st.lists(st.integers(0, 19), max_size=5).map(lambda p: np.array(p, np.int64)),
        ),
        max_size=4,
    ),
)
def test_what_is_kept_is_what_was_read(values: list[int], part: int, keys: list[Any]) -> None:
    array = np.array(values)
    variable = kept(xr.Variable("sample", array), part)
    for key in keys:
        inside = key if isinstance(key, slice) else key % len(array)
        np.testing.assert_array_equal(variable[inside].values, array[inside])
    np.testing.assert_array_equal(variable.values, array)
