"""Linear maps of pixel values onto another range, computed or packed in a store.

A *packed* image is stored as integers with the CF attributes ``scale_factor``
and ``add_offset`` (CF 1.11, section 8.1), so that xarray opens it as floats::

    float = integer * scale_factor + add_offset

Its ``valid_range`` has the type of ``scale_factor``, so it is a range of the
floats (NetCDF Users Guide, appendix A, "valid_range").

Arithmetic of xarray changes values and keeps their attributes: ``image / 255.``
still says ``valid_range`` [0, 255]. It drops ``.encoding``, though, which is how
:func:`range_of` tells what the attribute was stated for.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.formulas import map_values
from mnist_zarr.dataset.schema import IMAGE, require
from mnist_zarr.errors import OptionError, SchemaError

PACKING = ("scale_factor", "add_offset")
VALID_RANGE = "valid_range"
# As a share of the distance of two integers; float32 stays below it for uint8.
MAX_PACKING_ERROR = 1e-3


@dataclass(frozen=True)
class Scaling:
    """The linear map of one range of values onto another.

    Raises
    ------
    OptionError
        If ``low`` is not less than ``high``, or one or their distance is not finite.

    Examples
    --------
    >>> Scaling(0, 255, -1, 1)(np.array([0.0, 51.0, 255.0]))
    array([-1. , -0.6,  1. ])
    """

    source_low: float
    source_high: float
    low: float
    high: float

    def __post_init__(self) -> None:
        is_range = is_finite(self.low) and is_finite(self.high) and self.low < self.high
        if not (is_range and is_finite(self.high - self.low)):
            raise OptionError(
                f"expected two finite numbers, the lower first, got {self.low!r} and {self.high!r}"
            )

    def __call__(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the values in the other range."""
        # In exactly these steps, so that [-1, 1] is ((x / 255.) - .5) * 2 bit for bit.
        unit = (values - self.source_low) / (self.source_high - self.source_low)
        width = self.high - self.low
        return (unit + self.low / width) * width

    @property
    def packing(self) -> dict[str, float]:
        """The CF attributes with which xarray applies the map."""
        factor = (self.high - self.low) / (self.source_high - self.source_low)
        return dict(zip(PACKING, (factor, self.low - self.source_low * factor), strict=True))

    def describe(self, result: xr.Variable) -> None:
        """Say in the attributes and the encoding of the result how it was made."""
        state_range(result, (float(self.low), float(self.high)))
        if "comment" in result.attrs:
            ranges = f"[{self.source_low:g}, {self.source_high:g}] to [{self.low:g}, {self.high:g}]"
            result.attrs["comment"] = f"{result.attrs['comment']}; then rescaled from {ranges}"


def is_finite(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, numbers.Real) and math.isfinite(value)


def scaling_of(variable: xr.Variable, low: float, high: float) -> Scaling:
    """Return the map of the range of a variable onto [low, high].

    Raises
    ------
    OptionError
        If ``low`` is not less than ``high``, or one is not finite.
    SchemaError
        If the range of the variable is not known, or empty.
    """
    source_low, source_high = range_of(variable)
    return Scaling(source_low, source_high, low, high)


def range_of(variable: xr.Variable) -> tuple[float, float]:
    """Return the lowest and the highest value that a variable can have.

    Raises
    ------
    SchemaError
        If it is not known; see :func:`known_range`.

    Examples
    --------
    >>> image = xr.Variable("pixel", np.array([0, 255], "uint8"), {"valid_range": [0, 255]})
    >>> range_of(image)
    (0.0, 255.0)
    >>> known_range(image / 255.0) is None
    True
    """
    if bounds := known_range(variable):
        return bounds
    attribute = variable.attrs.get(VALID_RANGE)
    reason = f"{VALID_RANGE} {attribute} may be that before a change; " if attribute else ""
    raise SchemaError(
        f"the range of these {variable.dtype} values is not known: {reason}state it with "
        f"ds.image.encoding['{VALID_RANGE}'] = [lowest, highest]"
    )


def known_range(variable: xr.Variable) -> tuple[float, float] | None:
    """Return the lowest and the highest value that a variable can have, if that is known.

    It is what ``.encoding["valid_range"]`` states; else, of values as they were
    read from a file, their attribute ``valid_range``; else, of integers without
    this attribute or with one that says the same, the range of their type.

    Raises
    ------
    SchemaError
        If what states the range is not two finite numbers.
    """
    stated, attribute = variable.encoding.get(VALID_RANGE), variable.attrs.get(VALID_RANGE)
    if stated is None and attribute is not None and _is_as_read(variable):
        stated = attribute
    if stated is None and variable.dtype.kind in "iu":
        info = np.iinfo(variable.dtype)
        if attribute is None or np.ravel(attribute).tolist() == [info.min, info.max]:
            stated = [info.min, info.max]
    if stated is None:
        return None
    bounds = np.ravel(stated).tolist()
    if len(bounds) != 2 or not all(map(is_finite, bounds)) or not bounds[0] < bounds[1]:
        raise SchemaError(
            f"{VALID_RANGE}: expected two finite numbers, the lower first, got {bounds}"
        )
    return float(bounds[0]), float(bounds[1])


def _is_as_read(variable: xr.Variable) -> bool:
    """Whether these are the values of a file, of which xarray has read the encoding as well."""
    if packing_of(variable.encoding):
        return True
    # Not get(): NumPy takes None for float64.
    if "dtype" not in variable.encoding or variable.encoding["dtype"] != variable.dtype:
        return False
    is_packed = bool(packing_of(variable.attrs))  # opened as it is stored
    # The attribute has the type of the values (NetCDF Users Guide, appendix A).
    is_of_integers = np.asarray(variable.attrs[VALID_RANGE]).dtype.kind in "iu"
    return is_packed or is_of_integers == (variable.dtype.kind in "iu")


def packing_of(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what attributes or an encoding say of packing; nothing of a variable without it."""
    return {name: mapping[name] for name in PACKING if name in mapping}


def with_true_range(variable: xr.Variable) -> xr.Variable:
    """Return a variable whose attribute ``valid_range`` is known to be true, or not there."""
    bounds, attribute = known_range(variable), variable.attrs.get(VALID_RANGE)
    stated = variable.encoding.get(VALID_RANGE, attribute if bounds else None)
    if stated is attribute:
        return variable
    result = variable.copy(deep=False)
    result.attrs.pop(VALID_RANGE, None)
    if stated is not None:
        as_python = float if variable.dtype.kind == "f" else int
        result.attrs[VALID_RANGE] = [as_python(bound) for bound in np.ravel(stated).tolist()]
    return result


def state_range(variable: xr.Variable, bounds: Sequence[float]) -> None:
    """Say of the values of a variable that they are within these bounds."""
    variable.attrs[VALID_RANGE] = variable.encoding[VALID_RANGE] = list(bounds)


def pack(ds: xr.Dataset, bounds: tuple[float, float]) -> xr.Dataset:
    """Give ``image`` the attributes that open it in a range; its integers do not change.

    Raises
    ------
    OptionError
        If the bounds are not two finite numbers, the lower first, or float64
        cannot tell the integers apart between them.
    SchemaError
        If there is no image, it is not of integers, or it is packed already.
    """
    require(ds, "`rescale`", IMAGE)
    image = ds[IMAGE].variable
    if packing_of(image.attrs) or packing_of(image.encoding):
        raise SchemaError(
            "`rescale`: 'image' already has a scale_factor or add_offset; omit `rescale`, or build "
            "from the original files"
        )
    if image.dtype.kind not in "iu":
        raise SchemaError(
            "`rescale`: expected an 'image' of integers, which the store keeps, got "
            f"{image.dtype}; omit `rescale` to store these values"
        )
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise OptionError(f"`rescale`: expected (low, high), got {bounds!r}")
    scaling = scaling_of(image, *bounds)
    factor, offset = scaling.packing.values()
    if not _is_exact(factor, offset, bounds):
        raise OptionError(
            f"`rescale`: float64 cannot tell the integers from {scaling.source_low:g} to "
            f"{scaling.source_high:g} apart between {bounds[0]!r} and {bounds[1]!r}; choose bounds "
            f"closer to 0, state the range of the integers in .encoding['{VALID_RANGE}'], or omit "
            "`rescale`"
        )
    packed = image.copy(deep=False)
    scaling.describe(packed)
    packed.attrs |= scaling.packing
    return ds.assign({IMAGE: packed})


def _is_exact(factor: float, offset: float, values: npt.ArrayLike) -> bool:
    """Whether the distance of two integers is large against the rounding of the floats."""
    largest = np.max(np.abs(values), initial=abs(offset))
    # The product, the sum and the difference are each rounded by half the spacing at most.
    return bool(2 * np.spacing(largest) <= MAX_PACKING_ERROR * abs(factor))


def keep_packing(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset from a packed store with its integers and packing; any other unchanged."""
    if IMAGE not in ds.variables:
        return ds
    image = ds[IMAGE].variable
    packing, integers = packing_of(image.encoding), unpack(image)
    if not packing or integers is image:
        return ds
    integers.attrs = image.attrs | packing
    return ds.assign({IMAGE: integers})


def copy_packing(integers: xr.Variable, opened: xr.Variable) -> None:
    """Give integers the packing of a variable that opens rescaled, if it does."""
    packing = packing_of(opened.encoding)
    if packing and integers.dtype == opened.encoding.get("dtype"):
        integers.attrs |= packing
        if bounds := known_range(opened):
            state_range(integers, bounds)


def unpack(variable: xr.Variable) -> xr.Variable:
    """Return the integers of a packed variable, lazily; any other variable unchanged.

    A packed variable is one that xarray opened as floats, or as integers with
    ``mask_and_scale=False``.

    Raises
    ------
    SchemaError
        When values are read that no stored integer stands for, since they were
        changed, or that stand for several, since float64 cannot tell them apart.
        If the scale factor or offset is no number.
    """
    given = [
        variable.attrs.get(name, variable.encoding.get(name, default))
        for name, default in zip(PACKING, (1.0, 0.0), strict=True)
    ]
    try:
        factor, offset = map(float, given)
    except (TypeError, ValueError) as error:
        raise SchemaError(
            f"scale_factor, add_offset: expected two numbers, got {given[0]!r} and {given[1]!r}"
        ) from error
    integers = variable.copy(deep=False)
    if packing_of(variable.encoding):
        stored_dtype = np.dtype(variable.encoding.get("dtype", variable.dtype))
        if stored_dtype.kind not in "iu":
            return variable
        integers = map_values(variable, _Unpacking(factor, offset, stored_dtype), stored_dtype)
    elif not packing_of(variable.attrs):
        return variable
    left_out = (*PACKING, VALID_RANGE)
    integers.attrs = {name: value for name, value in variable.attrs.items() if name not in left_out}
    if VALID_RANGE in variable.attrs and (bounds := known_range(variable)):
        state_range(integers, [round((bound - offset) / factor) for bound in bounds])
    return integers


@dataclass(frozen=True)
class _Unpacking:
    """The formula from floats to the integers of a store."""

    factor: float
    offset: float
    dtype: np.dtype[Any]

    def __call__(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        exact = (values - self.offset) / self.factor
        nearest = np.rint(exact)
        info = np.iinfo(self.dtype)
        # Not the opposite comparison: NaN must fail.
        good = (np.abs(exact - nearest) <= MAX_PACKING_ERROR) & (nearest >= info.min)
        good &= nearest <= info.max
        if not good.all():
            raise SchemaError(
                f"no {self.dtype} of the store stands for the value {values[~good][0]} "
                f"(scale_factor {self.factor}, add_offset {self.offset}); if the values were "
                "changed, remove both from .encoding"
            )
        if not _is_exact(self.factor, self.offset, values):
            raise SchemaError(
                f"float64 cannot tell the {self.dtype} of the store apart (scale_factor "
                f"{self.factor}, add_offset {self.offset}); open it with `mask_and_scale=False`"
            )
        return nearest
