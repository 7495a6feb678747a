"""Formulas are taken off lazy arrays only where it is certain that this changes no value."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.dataset.formulas import Elementwise, without_formulas
from mnist_zarr.dataset.lazy import MappedSamples, lazy_array
from mnist_zarr.dataset.scaling import Scaling
from mnist_zarr.dataset.transform import rescale, standardize
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


@pytest.fixture(params=[None, "auto"], ids=["lazy", "dask"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> xr.Dataset:
    write_zarr(digits(), tmp_path / "d.zarr", chunk_bytes=100)
    return open_store(tmp_path / "d.zarr", chunks=request.param)


MOVES: list[Callable[[xr.DataArray], xr.DataArray]] = [
    lambda image: image,
    lambda image: image[3:50],
    lambda image: image[5:40][::3, 1:3],
    lambda image: image[np.flatnonzero(np.arange(60) % 3)],
    lambda image: image[:, 1, [2, 0]],
]


@pytest.mark.parametrize("move", MOVES)
def test_formulas_are_taken_off_samples_that_were_picked_after_them(
    stored: xr.Dataset, move: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    scaled = standardize(rescale(stored, 0, 1), 0.1, 0.3)
    variable = move(scaled.image).variable
    plain, formulas = without_formulas(variable)
    assert plain.dtype == np.uint8
    assert len(formulas) == 2
    np.testing.assert_array_equal(_compute(plain), move(digits().image).values, strict=True)
    values = _compute(plain)
    for formula in formulas:
        values = formula(values)
    np.testing.assert_array_equal(values, variable.values, strict=True)


def _compute(variable: xr.Variable) -> Any:
    is_dask = variable.chunks is not None
    return variable.data.compute(scheduler="synchronous") if is_dask else variable.values


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image * 2,
        lambda image: image.clip(0, 1),
        lambda image: image.mean("col"),
        lambda image: image.cumsum("sample"),
        lambda image: image.astype("float64"),
        lambda image: image.where(image > 0),
    ],
)
def test_a_formula_is_not_taken_off_what_changes_values_after_it(
    stored: xr.Dataset, change: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    variable = change(rescale(stored).image).variable
    plain, formulas = without_formulas(variable)
    assert formulas == ()
    assert plain is variable


def test_formulas_that_differ_are_not_taken_off(stored: xr.Dataset) -> None:
    stored = stored.chunk(sample=20)
    one, other = rescale(stored, 0, 1), rescale(stored)
    assert without_formulas(xr.concat([one, other], "sample").image.variable)[1] == ()
    assert without_formulas(xr.concat([one, stored], "sample").image.variable)[1] == ()
    same = xr.concat([other, rescale(stored)], "sample").image.variable
    plain, formulas = without_formulas(same)
    assert len(formulas) == 1
    twice = np.concatenate([digits().image.values] * 2)
    np.testing.assert_array_equal(_compute(plain), twice, strict=True)


def test_what_makes_values_smaller_stays() -> None:
    as_bytes = Elementwise(Scaling(0, 1, 0, 255), np.dtype("f8"), np.dtype("u1"))
    pixels = xr.Variable(("sample",), np.linspace(0, 1, 9))
    mapped = lazy_array(pixels.shape, np.dtype("u1"), MappedSamples(pixels, as_bytes))
    variable = xr.Variable(("sample",), mapped)
    assert without_formulas(variable) == (variable, ())


def test_a_function_of_whole_samples_is_no_formula() -> None:
    pixels = xr.Variable(("sample", "row"), np.arange(6).reshape(3, 2))
    mapped = lazy_array(pixels.shape, pixels.dtype, MappedSamples(pixels, np.flip))
    assert without_formulas(xr.Variable(pixels.dims, mapped))[1] == ()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n_values", [0, 1, 999, 1 << 17, (1 << 17) + 1, 1 << 18])
def test_looking_up_gives_what_the_formula_gives(dtype: str, n_values: int) -> None:
    scaling = Scaling(0, 255, -1, 1)
    values = np.random.default_rng(0).integers(0, 256, n_values).astype(np.uint8)
    formula = Elementwise(scaling, values.dtype, np.dtype(dtype))
    expected = scaling(values.astype(np.float64)).astype(dtype)
    np.testing.assert_array_equal(formula(values), expected, strict=True)
    signed = Elementwise(scaling, np.dtype("i1"), np.dtype(dtype))
    expected = scaling(values.view("i1").astype(np.float64)).astype(dtype)
    np.testing.assert_array_equal(signed(values.view("i1")), expected, strict=True)


def test_a_formula_travels_without_its_tables() -> None:
    formula = Elementwise(Scaling(0, 255, -1, 1), np.dtype("u1"), np.dtype("f4"))
    formula(np.zeros(1 << 18, np.uint8))
    copied = pickle.loads(pickle.dumps(formula))
    assert copied == formula
    assert len(pickle.dumps(formula)) < 1000
