"""Integers that a store keeps packed and that open as floats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.builder import build
from mnist_zarr.dataset.records import METADATA_SHA256
from mnist_zarr.dataset.scaling import unpack
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import OptionError, SchemaError
from mnist_zarr.formats.npz import write_npz
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.keys import is_document, keys_of
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits, tutorial_scaling
from tests.support.files import file_contents


def chunks_of(store: Path) -> dict[str, bytes]:
    return {k: data for k, data in file_contents(store).items() if not is_document(k)}


@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_rescaled_store_holds_the_bytes_of_the_raw_one_and_opens_as_floats(
    tmp_path: Path, order: Any, zarr_format: Any
) -> None:
    options: dict[str, Any] = {"order": order, "zarr_format": zarr_format, "chunk_bytes": 100}
    write_zarr(digits(), tmp_path / "raw.zarr", **options)
    given = digits()
    build(tmp_path / "scaled.zarr", given, rescale=(-1, 1), **options)
    xr.testing.assert_identical(given, digits())
    raw, scaled = chunks_of(tmp_path / "raw.zarr"), chunks_of(tmp_path / "scaled.zarr")
    assert len(raw) > 6
    assert raw == scaled
    opened = xr.open_zarr(tmp_path / "scaled.zarr")
    original = xr.open_zarr(tmp_path / "raw.zarr")
    assert opened.image.dtype == np.float64
    difference = opened.image.values - tutorial_scaling(original.image.values)
    assert np.abs(difference).max() <= 2.3e-16
    assert opened.image.attrs["valid_range"] == [-1.0, 1.0]
    del opened.attrs[METADATA_SHA256], original.attrs[METADATA_SHA256]
    assert opened.attrs == original.attrs
    again = rescale(opened, dtype="float64").image.values
    np.testing.assert_array_equal(again, tutorial_scaling(original.image.values))
    twice = rescale(rescale(opened, 0, 1), 5, 6).image
    np.testing.assert_allclose(twice, original.image / 255 + 5, atol=1e-6)
    integers = xr.open_zarr(tmp_path / "scaled.zarr", mask_and_scale=False)
    np.testing.assert_array_equal(rescale(integers).image, rescale(original).image)
    assert "scale_factor" not in rescale(integers).image.attrs


def test_other_integers_are_packed_into_the_range_too(tmp_path: Path) -> None:
    image = np.array([-32768, 0, 32767], dtype=np.int16).reshape(3, 1, 1)
    write_zarr(make_dataset(image), tmp_path / "i.zarr", rescale=(0, 10))
    opened = xr.open_zarr(tmp_path / "i.zarr").image
    np.testing.assert_allclose(opened.values.ravel(), rescale(image, 0, 10, "f8").ravel())
    np.testing.assert_array_equal(rescale(opened, 0, 10), rescale(image, 0, 10))


@pytest.mark.parametrize(
    ("change", "bounds", "error", "message"),
    [
        (lambda ds: rescale(ds), (-1, 1), SchemaError, "expected an 'image' of integers"),
        (lambda ds: ds.drop_vars("image"), (-1, 1), SchemaError, "needs 'image'"),
        (lambda ds: ds, (1, -1), OptionError, "the lower first, got 1 and -1"),
        (lambda ds: ds, (1, 2, 3), OptionError, r"expected \(low, high\), got \(1, 2, 3\)"),
    ],
)
def test_a_store_that_cannot_be_rescaled_is_not_written(
    tmp_path: Path, change: Any, bounds: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_zarr(change(digits()), tmp_path / "d.zarr", rescale=bounds)
    assert list(tmp_path.iterdir()) == []


def test_a_rescaled_store_is_not_rescaled_again(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", rescale=(-1, 1))
    for options in ({}, {"mask_and_scale": False}):
        opened = xr.open_zarr(tmp_path / "d.zarr", **options)  # type: ignore[arg-type]
        with pytest.raises(SchemaError, match="already has a scale_factor or add_offset"):
            write_zarr(opened, tmp_path / "e.zarr", rescale=(-1, 1))
    assert os.listdir(tmp_path) == ["d.zarr"]


def test_values_changed_in_place_are_not_taken_for_packed_ones(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", rescale=(-1, 1))
    opened = xr.open_zarr(tmp_path / "d.zarr", chunks=None).load()
    opened.image.values[3, 2, 1] = 0.123
    with pytest.raises(SchemaError, match=r"no uint8 of the store stands for the value 0\.123"):
        rescale(opened)


@pytest.mark.parametrize("chunks", [None, "auto"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_rescaled_store_that_is_written_anew_keeps_its_integers(
    tmp_path: Path, zarr_format: Any, chunks: Any
) -> None:
    options: dict[str, Any] = {"zarr_format": zarr_format, "chunk_bytes": 100}
    build(tmp_path / "scaled.zarr", digits(), rescale=(-1, 1), **options)
    again, expected = tmp_path / "again.zarr", tmp_path / "expected.zarr"
    opened = open_store(tmp_path / "scaled.zarr", chunks=chunks)
    write_zarr(opened, again, order="label", **options)
    build(expected, digits(), order="label", rescale=(-1, 1), **options)
    assert chunks_of(again) == chunks_of(expected)
    xr.testing.assert_identical(
        xr.open_zarr(again).drop_attrs(), xr.open_zarr(expected).drop_attrs()
    )
    assert xr.open_zarr(again).image.attrs == xr.open_zarr(expected).image.attrs
    write_zarr(opened.assign(image=opened.image / 2), tmp_path / "floats.zarr", **options)
    assert xr.open_zarr(tmp_path / "floats.zarr", mask_and_scale=False).image.dtype == np.float64


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i4", "u8", "i8"])
@pytest.mark.parametrize(
    "bounds",
    [(0, 1), (-1, 1), (0, 1e-300), (1e6, 1e6 + 1), (1e12, 1e12 + 1), (1e16, 1e16 + 2), (0, 5e-324)],
)
def test_what_is_packed_comes_back_exactly_or_is_refused(dtype: str, bounds: Any) -> None:
    info = np.iinfo(dtype)
    extremes = np.array([info.min, info.min + 1, info.max - 1, info.max], dtype).reshape(4, 1, 1)
    packed, again = MemoryStore(), MemoryStore()
    # By hand: what float64 resolves is 2 ** -52 of the larger bound, but 5e-324 at the least.
    resolved = max(*map(abs, bounds), 1e-307) * 2.0**-52
    if resolved / (bounds[1] - bounds[0]) * (info.max - info.min) < 5e-4:
        write_zarr(make_dataset(extremes), packed, rescale=bounds)
        write_zarr(open_store(packed), again)
        integers = xr.open_zarr(again, mask_and_scale=False).image.values
        assert integers.tolist() == extremes.tolist()
    else:
        with pytest.raises(OptionError, match="float64 cannot tell the integers from"):
            write_zarr(make_dataset(extremes), packed, rescale=bounds)
        assert not keys_of(packed)


def test_a_stated_range_lets_wide_integers_be_packed_and_values_beyond_it_are_not_guessed() -> None:
    for value, is_exact in ((255, True), (2**60 + 1, False)):
        ds = make_dataset(np.array([0, value], np.uint64).reshape(2, 1, 1))
        ds.image.encoding["valid_range"] = [0, 255]
        packed, again = MemoryStore(), MemoryStore()
        write_zarr(ds, packed, rescale=(0, 1))
        if is_exact:
            write_zarr(open_store(packed), again)
            assert xr.open_zarr(again, mask_and_scale=False).image.values.ravel()[1] == value
        else:
            with pytest.raises(SchemaError, match="float64 cannot tell the uint64 of the store"):
                write_zarr(open_store(packed), again)


def test_the_valid_range_of_integers_beyond_int64_is_kept() -> None:
    variable = xr.Variable("x", np.zeros(1, np.uint64), {"valid_range": [0.0, 2.0**64 - 2048]})
    variable.attrs |= {"scale_factor": 1.0}
    variable.encoding = {"dtype": variable.dtype}
    assert unpack(variable).attrs["valid_range"] == [0, 2**64 - 2048]


def test_bounds_whose_distance_is_not_finite_are_refused() -> None:
    with pytest.raises(OptionError, match=r"expected two finite numbers"):
        rescale(np.zeros(3, np.uint8), -1e308, 1e308)


def test_a_scale_factor_that_is_no_number_is_refused() -> None:
    ds = digits()
    ds.image.attrs["scale_factor"] = "x"
    with pytest.raises(SchemaError, match=r"expected two numbers, got 'x' and 0\.0"):
        write_zarr(ds, MemoryStore())


def scaled_by_tutorials(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    return {
        "to [0, 1]": ds.image / 255.0,
        "to [-1, 1]": ds.image / 127.5 - 1,
        "floats": ds.image.astype("float32"),
        "rescaled, then changed": rescale(ds.image, 0, 1) * 0.5,
        "wider integers": ds.image.astype("int16") - 128,
    }


@pytest.mark.parametrize("kind", scaled_by_tutorials(digits()))
@pytest.mark.parametrize("opened", [False, True])
def test_a_range_that_was_stated_before_the_values_changed_is_not_believed(
    kind: str, opened: bool, tmp_path: Path
) -> None:
    ds = digits()
    if opened:
        write_zarr(ds, tmp_path / "digits.zarr")
        ds = xr.open_zarr(tmp_path / "digits.zarr")
    changed = ds.assign(image=scaled_by_tutorials(ds)[kind])
    assert "valid_range" in changed.image.attrs
    write_zarr(changed, tmp_path / "changed.zarr")
    stored = open_store(tmp_path / "changed.zarr")
    assert "valid_range" not in stored.image.attrs
    refused = [changed] if stored.image.dtype.kind == "i" else [changed, stored]
    for unknown in refused:
        with pytest.raises(SchemaError, match=r"range of these .* is not known.*encoding"):
            rescale(unknown)
        with pytest.raises(SchemaError, match=r"range of these .* is not known"):
            write_npz(unknown, tmp_path / "changed.npz")


def test_a_range_stated_in_the_encoding_is_used_stored_and_believed_again(tmp_path: Path) -> None:
    ds = digits()
    unit = ds.assign(image=ds.image / 255.0)
    unit.image.encoding["valid_range"] = [0, 1]
    write_zarr(unit, tmp_path / "unit.zarr")
    stored = xr.open_zarr(tmp_path / "unit.zarr")
    assert stored.image.attrs["valid_range"] == [0.0, 1.0]
    for known in (unit, stored):
        np.testing.assert_allclose(rescale(known).image, rescale(ds).image, atol=1e-6)
        part = known.isel(sample=slice(3, 9))
        np.testing.assert_allclose(rescale(part).image, rescale(ds).image[3:9], atol=1e-6)


def test_a_store_that_opens_rescaled_keeps_its_range_however_it_is_opened(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "packed.zarr", rescale=(-1, 1))
    for mask_and_scale in (True, False):
        opened = xr.open_zarr(tmp_path / "packed.zarr", mask_and_scale=mask_and_scale)
        again = tmp_path / f"again-{mask_and_scale}.zarr"
        write_zarr(opened, again)
        assert xr.open_zarr(again).image.attrs["valid_range"] == [-1.0, 1.0]
        np.testing.assert_array_equal(rescale(opened).image, rescale(digits()).image)


def test_the_range_of_integers_in_a_packed_store_that_were_changed_is_not_believed() -> None:
    store = MemoryStore()
    write_zarr(digits(), store, rescale=(-1, 1))
    doubled = open_store(store).image * 2
    with pytest.raises(SchemaError, match="is not known"):
        rescale(doubled)
