"""Rescaled, standardized and split: exactly as the tutorials do it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.dataset.transform import rescale, standardize, stratified_split
from mnist_zarr.errors import MissingExtraError, OptionError, SchemaError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits, lazy_digits, tutorial_scaling
from tests.support.partners import partner

BYTES = np.arange(256, dtype=np.uint8)


def test_every_byte_becomes_what_the_tutorial_computes_bit_for_bit() -> None:
    assert rescale(BYTES, dtype="float64").tobytes() == tutorial_scaling(BYTES).tobytes()
    assert rescale(BYTES).tobytes() == tutorial_scaling(BYTES).astype(np.float32).tobytes()
    assert rescale(BYTES, 0, 1, "float64").tobytes() == (BYTES / 255.0).tobytes()
    two = rescale(BYTES, low=0, high=2, dtype="float64")
    assert two.tobytes() == ((BYTES / 255.0) * 2).tobytes()


@given(
    array=hnp.arrays(
        st.sampled_from(["u1", "i1", "u2", "i2", "i4", ">i2"]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3),
        fill=st.nothing(),
    ),
    low=st.floats(-10, 0),
    width=st.floats(0.5, 20),
)
def test_any_integers_are_rescaled_from_the_range_of_their_type(
    array: npt.NDArray[Any], low: float, width: float
) -> None:
    high = low + width
    info = np.iinfo(array.dtype)
    expected = np.empty(array.shape)
    for place in np.ndindex(array.shape):
        unit = (float(array[place]) - info.min) / (float(info.max) - info.min)
        expected[place] = (unit + low / (high - low)) * (high - low)
    np.testing.assert_array_equal(rescale(array, low, high, "float64"), expected)
    np.testing.assert_array_equal(rescale(array, low, high), expected.astype("float32"))
    every_other = rescale(array[::-2], low, high, "float64")
    np.testing.assert_array_equal(every_other, expected[::-2])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "step"), [((500, 28, 28), 1), ((499, 27, 29), 1), ((300, 28, 28), 2), ((400_000,), 3)]
)
def test_many_pixels_are_rescaled_as_few_are(shape: tuple[int, ...], step: int, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)[::step]
    expected = tutorial_scaling(pixels).astype(dtype)
    assert rescale(pixels, dtype=dtype).tobytes() == expected.tobytes()


def test_a_dataset_keeps_coordinates_and_attributes_and_says_its_new_range() -> None:
    ds = digits()
    ds.image.attrs["comment"] = "0 is white"
    ds.attrs["title"] = "digits"
    ds["mask"] = ds.image > 100
    scaled = rescale(ds, 0, 2)
    assert scaled.image.dtype == np.float32
    assert scaled.image.attrs == {
        **ds.image.attrs,
        "valid_range": [0.0, 2.0],
        "comment": "0 is white; then rescaled from [0, 255] to [0, 2]",
    }
    assert scaled.attrs == ds.attrs
    xr.testing.assert_identical(scaled.drop_vars("image"), ds.drop_vars("image"))
    xr.testing.assert_identical(scaled.image, rescale(ds.image, 0, 2))
    assert ds.image.attrs["valid_range"] == [0, 255]


def test_a_stated_range_wins_over_the_range_of_the_type() -> None:
    binary = digits().image % 2
    binary.encoding["valid_range"] = [0, 1]
    assert set(np.unique(rescale(binary))) == {-1, 1}
    floats = rescale(digits().image, 0, 1, "float64")
    again = rescale(floats, -1, 1, "float64")
    np.testing.assert_array_equal(again, tutorial_scaling(digits().image.values))


def with_stated_range(image: xr.DataArray, bounds: list[float]) -> xr.DataArray:
    image.encoding["valid_range"] = bounds
    return image


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rescale(BYTES, 1, 1), OptionError, "the lower first, got 1 and 1"),
        (lambda: rescale(BYTES, 0, np.inf), OptionError, "expected two finite numbers"),
        (lambda: rescale(BYTES, np.nan, 1), OptionError, "expected two finite numbers"),
        (lambda: rescale(BYTES, dtype="int8"), OptionError, "expected float32, .* got 'int8'"),
        (lambda: rescale(BYTES / 2), SchemaError, r"float64 values is not known: .*valid_range"),
        (lambda: rescale(BYTES > 2), SchemaError, "bool values is not known"),
        (lambda: rescale(3), SchemaError, "expected a Dataset or an array, got a single value"),
        (lambda: rescale(xr.Dataset()), SchemaError, "expected a Dataset with 'image'"),
        (
            lambda: rescale(with_stated_range(digits().image, [3, 3])),
            SchemaError,
            r"valid_range: expected two finite numbers, the lower first, got \[3, 3\]",
        ),
        (lambda: standardize(BYTES, mean=3), OptionError, "give both, or neither"),
        (
            lambda: standardize(BYTES, 3, 0),
            OptionError,
            "or two arrays of them, got 3 and 0",
        ),
        (lambda: standardize(BYTES, np.nan, 1), OptionError, "expected finite numbers"),
        (lambda: standardize(BYTES * 0), SchemaError, "all values are 0.* deviation is 0"),
        (lambda: standardize(BYTES[:0]), SchemaError, "no values"),
        (lambda: standardize(BYTES / np.nan), SchemaError, "not all finite"),
        (lambda: standardize(np.array([1.0, np.inf])), SchemaError, "not all finite"),
        (lambda: standardize(np.array([1e308, 1e308, -1e308])), SchemaError, "not all finite"),
        (lambda: standardize(xr.Dataset()), SchemaError, "expected a Dataset with 'image'"),
        (
            lambda: standardize(digits().isel(sample=digits().split.values == "test")),
            SchemaError,
            "no sample is of split 'train'; give `mean` and `std`",
        ),
    ],
)
def test_bad_input_raises_a_named_error(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_mnist_has_the_mean_and_deviation_known_from_tutorials() -> None:
    attrs = standardize(open_dataset("mnist")).image.attrs
    assert round(attrs["standardized_mean"] / 255, 4) == 0.1307
    assert round(attrs["standardized_std"] / 255, 4) == 0.3081


def test_mean_and_deviation_are_of_the_training_split_or_else_of_all(tmp_path: Path) -> None:
    train = digits().image.values[digits().split.values == "train"].astype(float)
    for ds in (digits(), *lazy_digits(tmp_path).values()):
        result = standardize(ds, dtype="float64").image
        assert result.attrs["standardized_mean"] == pytest.approx(train.mean(), rel=1e-14)
        assert result.attrs["standardized_std"] == pytest.approx(train.std(), rel=1e-14)
        expected = (digits().image.values - train.mean()) / train.std()
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
        xr.testing.assert_identical(result, standardize(ds.image, dtype="float64"))
    whole = standardize(digits().drop_vars("split")).image.attrs
    assert whole["standardized_mean"] == pytest.approx(digits().image.values.mean())
    assert "valid_range" in whole


@pytest.fixture
def train_test_split() -> Any:
    return partner("sklearn.model_selection").train_test_split


@pytest.mark.parametrize(
    ("n_samples", "test_size", "random_state"),
    [(60, 20, 123), (60, 7, 0), (500, 0.2, 42), (501, 0.333, 1), (500, 499 - 3, 5), (90, 3, 7)],
)
def test_the_split_is_that_of_scikit_learn(
    train_test_split: Any, n_samples: int, test_size: float, random_state: int
) -> None:
    ds = digits(n_samples, random_state)
    split = stratified_split(ds, test_size, random_state).split
    train, test = train_test_split(
        np.arange(n_samples), test_size=test_size, random_state=random_state, stratify=ds.label
    )
    np.testing.assert_array_equal(np.flatnonzero(split == "test"), np.sort(test))
    np.testing.assert_array_equal(np.flatnonzero(split == "train"), np.sort(train))
    assert split.dtype == STRING_DTYPE
    assert split.attrs == ds.split.attrs


def test_mnist_is_split_as_the_tutorial_splits_it_and_no_image_is_read(
    train_test_split: Any,
) -> None:
    ds = open_dataset("mnist")
    split = stratified_split(ds)
    _, test = train_test_split(
        np.arange(70_000), test_size=10_000, random_state=123, stratify=ds.label.values
    )
    np.testing.assert_array_equal(np.flatnonzero(split.split == "test"), np.sort(test))
    assert not split.image.variable._in_memory
    xr.testing.assert_identical(
        split.drop_vars(["image", "split"]), ds.drop_vars(["image", "split"])
    )


@pytest.mark.usefixtures("train_test_split")
@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda ds: ds.drop_vars("label"), {}, SchemaError, "needs 'label'"),
        (lambda ds: ds, {"test_size": 60}, OptionError, "`test_size=60` of 60 samples"),
        (lambda ds: ds, {"test_size": 1.5}, OptionError, r"`test_size=1\.5` of 60 samples"),
        (lambda ds: ds, {"test_size": 0}, OptionError, "`test_size=0` of 60 samples"),
        (lambda ds: ds, {"test_size": 2}, OptionError, "number of classes = 3"),
        (lambda ds: ds, {"random_state": "x"}, OptionError, "`random_state='x'`"),
        (
            lambda ds: ds.isel(sample=np.sort(np.unique(ds.label.values, return_index=True)[1])),
            {"test_size": 1},
            SchemaError,
            "label 0: has only one sample",
        ),
    ],
)
def test_a_split_that_cannot_be_raises_a_named_error(
    change: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        stratified_split(change(digits()), **{"test_size": 20, **options})


def test_without_scikit_learn_the_error_gives_the_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[sklearn\]'"):
        stratified_split(digits(), 20)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (rescale, {"low": "a"}, "expected two finite numbers"),
        (rescale, {"low": None}, "expected two finite numbers"),
        (rescale, {"dtype": "nix"}, "`dtype`: expected float32, .* got 'nix'"),
        (standardize, {"mean": "a", "std": "b"}, "`mean`, `std`: expected finite numbers"),
        (write_zarr, {"rescale": 5}, r"expected \(low, high\), got 5"),
        (write_zarr, {"rescale": ("a", "b")}, "two finite numbers"),
        (write_zarr, {"chunk_bytes": "2M"}, "a whole number of 1 or more, got '2M'"),
        (write_zarr, {"chunk_bytes": 1.5}, r"a whole number of 1 or more, got 1\.5"),
        (write_zarr, {"level": "9"}, "levels 1 to 22, got '9'"),
    ],
)
def test_options_of_another_type_raise_errors_of_ours(
    call: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    target = [tmp_path / "d.zarr"] if call is write_zarr else []
    with pytest.raises(OptionError, match=message):
        call(digits(), *target, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_single_sample_is_standardized_by_its_own_pixels() -> None:
    one = standardize(open_dataset("mnist").isel(sample=5)).image.values
    assert (abs(one.mean()) < 1e-6, abs(one.std() - 1) < 1e-5) == (True, True)


@pytest.mark.parametrize("chunks", [None, {}, {"sample": 7, "row": 2}])
def test_each_pixel_is_standardized_by_its_own_moments(
    chunks: dict[str, int] | None, tmp_path: Path
) -> None:
    ds = digits()
    ds.image[:, 0, 0] = 9  # never changes
    write_zarr(ds, tmp_path / "d.zarr")
    opened = open_store(tmp_path / "d.zarr", chunks=None)
    if chunks is not None:
        opened = opened.chunk(chunks)
    train = ds.image.values[ds.split.values == "train"].astype(float)
    mean, std = train.mean(axis=0), train.std(axis=0)
    expected = (ds.image.values - mean) / np.where(std == 0, 1, std)
    for result in (
        standardize(opened, dtype="float64", per_pixel=True),
        standardize(opened, mean, std, dtype="float64"),
    ):
        assert "valid_range" not in result.image.attrs
        np.testing.assert_allclose(result.image, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(result.image[3:9, 1], expected[3:9, 1], rtol=1e-12)


def test_moments_of_another_shape_are_refused() -> None:
    with pytest.raises(OptionError, match=r"expected the shape of a sample, \(4, 3\), got \(2,\)"):
        standardize(digits(), [1, 2], [1, 2])
    with pytest.raises(OptionError, match="or two arrays of them"):
        standardize(digits(), np.zeros((4, 3)), 1)
