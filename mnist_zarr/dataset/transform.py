"""Preprocessing of Datasets, lazily: rescale, standardize, split."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.formulas import PIECE_VALUES, map_samples, map_values
from mnist_zarr.dataset.moments import mean_and_std
from mnist_zarr.dataset.scaling import (
    VALID_RANGE,
    known_range,
    scaling_of,
    state_range,
    unpack,
)
from mnist_zarr.dataset.schema import (
    IMAGE,
    LABEL,
    SAMPLE,
    SPLIT,
    check_is_dataset,
    require,
    split_variable,
)
from mnist_zarr.dataset.selection import select
from mnist_zarr.dataset.unlabelled import are_unlabelled
from mnist_zarr.errors import OptionError, SchemaError, missing_extra

# A Dataset, a DataArray, a NumPy or a dask array: the result is of the same kind.
T = TypeVar("T")


def rescale(
    ds_or_array: T, low: float = -1, high: float = 1, dtype: npt.DTypeLike = "float32"
) -> T:
    """Map the range of the pixels linearly onto [low, high].

    The range is that of the integer type, 0 to 255 for uint8, unless another one
    is known: the attribute ``valid_range`` of values as they were opened, or what
    ``image.encoding["valid_range"]`` states. (Arithmetic of xarray keeps
    attributes, but not the encoding: after it, the range must be stated.) So the
    default is ``((x / 255.) - .5) * 2``, and with ``low=0`` it is ``x / 255.``.

    Parameters
    ----------
    ds_or_array : xarray.Dataset, xarray.DataArray, numpy.ndarray or dask array
        In a Dataset the variable ``image`` is rescaled. The result is as lazy
        as the input: dask stays dask, and values that were opened with
        ``chunks=None`` are rescaled when they are read.
    low, high : float
        The results for the lowest and the highest value.
    dtype : {"float32", "float64", "float16"}
        Of the result.

    Returns
    -------
    same as ``ds_or_array``
        Computed in float64, bit for bit as the formula above, and rounded to
        ``dtype``. Attributes and coordinates are kept, and ``valid_range`` is
        updated. Values outside the old range are outside the new one too.

    Raises
    ------
    OptionError
        If ``low`` and ``high`` are not two finite numbers, the lower first, or
        ``dtype`` is not a type of floats.
    SchemaError
        If there is no image or array, or its range is not known. Also when
        values of a rescaled store are read that were changed.

    Examples
    --------
    >>> rescale(np.array([0, 51, 255], dtype="uint8"))
    array([-1. , -0.6,  1. ], dtype=float32)
    """
    float_dtype = _float_dtype(dtype)

    def rescaled(variable: xr.Variable) -> xr.Variable:
        _check_numbers(variable)
        integers = unpack(variable)
        scaling = scaling_of(integers, low, high)
        result = map_values(integers, scaling, float_dtype)
        scaling.describe(result)
        return result

    return _with_image(ds_or_array, rescaled)


def standardize(
    ds_or_array: T,
    mean: npt.ArrayLike | None = None,
    std: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "float32",
    *,
    per_pixel: bool = False,
) -> T:
    """Subtract the mean and divide by the standard deviation, of all pixels or of each one.

    Parameters
    ----------
    ds_or_array : xarray.Dataset, xarray.DataArray, numpy.ndarray or dask array
        In a Dataset the variable ``image`` is standardized, as lazily as by
        :func:`rescale`.
    mean, std : float or array, optional
        In units of the values: one number each, or one for each pixel, of the
        shape of a sample. By default both are computed, in one pass and bounded
        memory, from the samples of split ``"train"``, or from all if there is no
        ``split``; ``std`` is that of a population (divided by n). Tutorials give
        0.1307 and 0.3081 for MNIST divided by 255:
        ``standardize(rescale(ds, 0, 1), 0.1307, 0.3081)``; for the raw pixels
        they are 255 times as large, 33.32 and 78.57.
    dtype : {"float32", "float64", "float16"}
        Of the result, which is computed in float64 and rounded.
    per_pixel : bool
        Whether to compute ``mean`` and ``std`` for each pixel. A pixel that never
        changes is only centred, as by scikit-learn's ``StandardScaler``.

    Returns
    -------
    same as ``ds_or_array``
        Attributes and coordinates are kept; the attributes
        ``standardized_mean`` and ``standardized_std`` record what was used, if
        that is one number each.

    Raises
    ------
    OptionError
        If only one of ``mean`` and ``std`` is given, they have another shape than
        a sample, one is not finite, a single ``std`` is not above zero, another
        is below it, or ``dtype`` is not a type of floats.
    SchemaError
        If there is no image or array; or if ``mean`` and ``std`` have to be
        computed and there is no training sample, or the values are all equal or
        not all finite.

    Examples
    --------
    >>> standardize(np.array([1, 3], dtype="uint8"))
    array([-1.,  1.], dtype=float32)
    >>> standardize(np.array([[1, 5], [3, 5]], dtype="uint8"), per_pixel=True)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """
    float_dtype = _float_dtype(dtype)
    if mean is None and std is None:
        values = _training_values(ds_or_array)
        _check_numbers(values)
        mean, std = mean_and_std(values, per_pixel=per_pixel)
    if mean is None or std is None:
        raise OptionError("`mean`, `std`: give both, or neither to have them computed")
    means, stds = _check_moments(mean, std)
    formula: _Standardization | _PixelStandardization = (
        _PixelStandardization(means, stds)
        if means.ndim
        else _Standardization(float(means), float(stds))
    )
    return _with_image(ds_or_array, lambda variable: formula.apply(variable, float_dtype))


def stratified_split(
    ds: xr.Dataset, test_size: float = 10_000, random_state: int | None = 123
) -> xr.Dataset:
    """Set the coordinate ``split`` at random, with equal shares of every class.

    The test samples are those of scikit-learn's
    ``train_test_split(np.arange(n), test_size=..., random_state=..., stratify=ds.label)``,
    which depend on the order of ``ds``: to get the same samples from stores of
    either order, give ``ds.sortby("source_index")``. Needs the extra
    ``sklearn``.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``label``, the only variable that is read.
    test_size : int or float
        Number of test samples, or their share between 0 and 1.
    random_state : int or None
        The seed. None gives another split each time.

    Returns
    -------
    xarray.Dataset
        The samples in the same order; ``split`` is ``"train"`` or ``"test"``.

    Raises
    ------
    OptionError
        If ``test_size`` is outside its range or leaves a split with fewer
        samples than classes, or ``random_state`` is no seed.
    SchemaError
        If ``ds`` is not a Dataset, samples have no labels, or a class has only one
        sample.
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = make_dataset(np.zeros((6, 2, 2)), label=np.array([0, 0, 0, 1, 1, 1]))
    >>> stratified_split(ds, test_size=2).split.values.tolist()
    ['train', 'train', 'test', 'train', 'train', 'test']
    """
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra("stratified_split needs scikit-learn", "sklearn") from error
    check_is_dataset(ds)
    require(ds, "stratified_split", LABEL)
    labels = ds[LABEL].values
    if n_unlabelled := np.count_nonzero(are_unlabelled(ds[LABEL])):
        raise SchemaError(
            f"stratified_split: {n_unlabelled:,} samples have no label; leave them out with "
            "exclude(ds, label=-1)"
        )
    values, counts = np.unique(labels, return_counts=True)
    if (counts == 1).any():
        raise SchemaError(
            f"label {values[counts == 1][0]}: has only one sample, which cannot be in both splits; "
            "drop it first"
        )
    try:
        _, test = train_test_split(
            np.arange(len(labels)), test_size=test_size, random_state=random_state, stratify=labels
        )
    except (ValueError, TypeError) as error:
        raise OptionError(
            f"`test_size={test_size!r}` of {len(labels):,} samples, "
            f"`random_state={random_state!r}`: "
            f"{error}"
        ) from error
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[test] = True
    return ds.assign_coords({SPLIT: split_variable(np.where(is_test, "test", "train"))})


def _float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        float_dtype = np.dtype(dtype)
    except TypeError:
        float_dtype = None
    if float_dtype is None or float_dtype.kind != "f":
        raise OptionError(f"`dtype`: expected float32, float64 or float16, got {dtype!r}")
    return float_dtype


def _check_numbers(variable: xr.Variable) -> None:
    if variable.dtype.kind not in "biuf":
        raise SchemaError(f"expected an image or array of real numbers, got {variable.dtype}")


def _with_image(ds_or_array: T, change: Callable[[xr.Variable], xr.Variable]) -> T:
    given: Any = ds_or_array
    changed: Any
    if isinstance(given, xr.Dataset):
        changed = given.assign({IMAGE: change(_image_of(given))})
    elif isinstance(given, xr.DataArray):
        # Only a Dataset takes a lazy variable without loading it.
        ds = given.to_dataset(name=IMAGE)
        changed = ds.assign({IMAGE: change(given.variable)})[IMAGE].rename(given.name)
    else:
        changed = change(_as_variable(given)).data
    return cast(T, changed)


def _image_of(ds: xr.Dataset) -> xr.Variable:
    if IMAGE not in ds.variables:
        raise SchemaError(f"expected a Dataset with 'image', got {list(map(str, ds.variables))}")
    return ds[IMAGE].variable


def _as_variable(array: Any) -> xr.Variable:
    data = array if isinstance(array, dask.array.Array) else np.asarray(array)
    if not data.ndim:
        raise SchemaError(
            f"expected a Dataset or an array, got a single value ({type(array).__name__})"
        )
    return xr.Variable([f"dim_{axis}" for axis in range(data.ndim)], data)


def _training_values(ds_or_array: Any) -> xr.Variable:
    if isinstance(ds_or_array, xr.Dataset):
        _image_of(ds_or_array)
        ds = ds_or_array
    elif isinstance(ds_or_array, xr.DataArray):
        ds = ds_or_array.to_dataset(name=IMAGE)
    else:
        return _as_variable(ds_or_array)
    if SPLIT in ds.coords and ds[SPLIT].dims == (SAMPLE,):
        if not (ds[SPLIT].values == "train").any():
            raise SchemaError("split: no sample is of split 'train'; give `mean` and `std`")
        ds = select(ds, split="train")
    return ds[IMAGE].variable


def _check_moments(mean: Any, std: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        means, stds = (np.asarray(value, dtype=np.float64) for value in (mean, std))
    except (TypeError, ValueError):
        means = stds = np.array(np.nan)
    is_finite = np.isfinite(means).all() and np.isfinite(stds).all()
    is_positive = (stds >= 0).all() if stds.ndim else stds > 0
    if not (is_finite and is_positive and means.shape == stds.shape):
        raise OptionError(
            "`mean`, `std`: expected finite numbers, `std` above 0, or two arrays of them, got "
            f"{mean!r} and {std!r}"
        )
    return means, stds


@dataclass(frozen=True)
class _Standardization:
    """The formula, with its two numbers."""

    mean: float
    std: float

    def __call__(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return (values - self.mean) / self.std

    def apply(self, variable: xr.Variable, dtype: np.dtype[Any]) -> xr.Variable:
        """Return the variable standardized, and say in its attributes how that was done."""
        result = map_values(variable, self, dtype)
        bounds = known_range(variable)
        if result.attrs.pop(VALID_RANGE, None) is not None and bounds:
            state_range(result, self(np.asarray(bounds)).tolist())
        result.attrs |= {"standardized_mean": self.mean, "standardized_std": self.std}
        _add_comment(result, f"less {self.mean:g}, divided by {self.std:g}")
        return result


@dataclass(frozen=True, eq=False)
class _PixelStandardization:
    """The formula, with an array of the shape of a sample in place of each number."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    def apply(self, variable: xr.Variable, dtype: np.dtype[Any]) -> xr.Variable:
        """Return the variable standardized, and say in its attributes how that was done."""
        if self.mean.shape != variable.shape[1:]:
            raise OptionError(
                f"`mean`, `std`: expected the shape of a sample, {variable.shape[1:]}, got "
                f"{self.mean.shape}"
            )
        if variable.chunks is not None:
            variable = variable.chunk(dict.fromkeys(variable.dims[1:], -1))
        result = map_samples(variable, functools.partial(self._standardized, dtype), dtype)
        result.attrs.pop(VALID_RANGE, None)
        _add_comment(result, "each pixel less its own mean, divided by its own deviation")
        return result

    def _standardized(self, dtype: np.dtype[Any], samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = np.empty(samples.shape, dtype)
        divisor = np.where(self.std == 0, 1.0, self.std)
        step = max(1, PIECE_VALUES // max(1, self.mean.size))
        for start in range(0, len(samples), step):
            piece = samples[start : start + step].astype(np.float64)
            result[start : start + step] = (piece - self.mean) / divisor
        return result


def _add_comment(result: xr.Variable, how: str) -> None:
    if "comment" in result.attrs:
        result.attrs["comment"] = f"{result.attrs['comment']}; then standardized: {how}"
