"""The data model: names, dimensions, types and attributes of a labelled Dataset.

============== ================== ========= ==========================================
variable       dimensions         type      meaning
============== ================== ========= ==========================================
image          sample, row, col   as source the pixels; in colour sample, row, col, band
label          sample             as source class number, CF flag_values/flag_meanings; -1: none
split          sample             string    "train", "test"
source_index   sample             uint32    position in the source files, concatenated
============== ================== ========= ==========================================

``label``, ``split`` and ``source_index`` are coordinates without an index, so
that opening a store loads no array that grows with the data. The attributes
follow CF 1.11 (section 3.5 for the flags) and ACDD 1.3. ``band`` is what GDAL, rioxarray and
STAC call the dimension of red, green, blue and alpha; it comes last, as in arrays of
Pillow, matplotlib and scikit-image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.errors import SchemaError, SourceError

__all__ = [
    "BAND",
    "COL",
    "CONVENTIONS",
    "IMAGE",
    "LABEL",
    "ROW",
    "SAMPLE",
    "SOURCE_INDEX",
    "SPLIT",
    "STRING_DTYPE",
    "make_dataset",
    "validate",
]

SAMPLE, ROW, COL, BAND = "sample", "row", "col", "band"
IMAGE, LABEL, SPLIT, SOURCE_INDEX = "image", "label", "split", "source_index"
CONVENTIONS = "CF-1.11 ACDD-1.3"
BANDS_OF_COLOR = (3, 4)  # RGB, RGBA
# How splits are spelt in the names of files and arrays.
SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
# Of a label table, so many samples tell whether it is a one-hot encoding.
INDICATOR_SAMPLES = 1024
STRING_DTYPE = np.dtypes.StringDType()


def split_of(word: str) -> str:
    """Return the split that a word of a file or table means; other words stay as they are.

    Examples
    --------
    >>> split_of("t10k"), split_of("Training"), split_of("extra")
    ('test', 'train', 'extra')
    """
    return SPLIT_OF_WORD.get(word.lower(), word)


def split_order(split: str | None) -> tuple[int, str]:
    """Return the sort key of a split: train, then test, then others by name."""
    return {"train": 0, "test": 1}.get(split or "", 2), split or ""


def __dir__() -> list[str]:
    return __all__


def is_string(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are strings: of variable or fixed length, or Python objects."""
    return dtype.kind in "TUO"


def as_strings(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values of a variable, Python objects among them as strings of NumPy.

    Raises
    ------
    SchemaError
        If one is no string, or one that UTF-8 cannot encode.

    Examples
    --------
    >>> as_strings("split", np.array(["train", "test"], dtype=object)).dtype.kind
    'T'
    """
    if values.dtype == STRING_DTYPE:
        return values
    try:
        if not is_string(values.dtype):
            raise TypeError(f"got {values.dtype}")
        # Not as `str` would have it: "None" for what is missing.
        return values.astype(object).astype(np.dtypes.StringDType(coerce=False))
    except (ValueError, TypeError) as error:
        raise SchemaError(
            f"{name!r}: expected strings, got other objects among them; replace them, or convert "
            "all with .astype(str)"
        ) from error


def image_dims(shape: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the dimensions of an image array.

    Parameters
    ----------
    shape : sequence of int
        ``(sample, row, col)``, or ``(sample, row, col, band)`` with the three bands of
        RGB or the four of RGBA. Dimensions of other shapes have numbers.

    Examples
    --------
    >>> image_dims((60000, 28, 28)), image_dims((50000, 32, 32, 3))
    (('sample', 'row', 'col'), ('sample', 'row', 'col', 'band'))
    >>> image_dims((100, 784)), image_dims((100, 16, 16, 16))
    (('sample', 'dim_1'), ('sample', 'dim_1', 'dim_2', 'dim_3'))
    """
    rank = len(shape)
    if rank == 3 or (rank == 4 and shape[3] in BANDS_OF_COLOR):
        return (SAMPLE, ROW, COL, BAND)[:rank]
    return (SAMPLE, *(f"dim_{axis}" for axis in range(1, rank)))[:rank]


def source_index_dtype(n_samples: int) -> np.dtype[Any]:
    """Return the type that holds every position: uint32, or uint64 if that is too small."""
    return np.dtype(np.uint32 if n_samples <= 2**32 else np.uint64)


def image_attrs(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the attributes of ``image``."""
    attrs: dict[str, Any] = {"long_name": "pixel intensity", "units": "1"}
    if dtype == np.uint8:
        attrs["valid_range"] = [0, 255]
    return attrs


def make_dataset(
    image: npt.ArrayLike | Any | None,
    *,
    label: npt.ArrayLike | Any | None = None,
    split: npt.ArrayLike | Any | None = None,
    source_index: npt.ArrayLike | Any | None = None,
    label_attrs: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make a labelled Dataset from arrays, which may be lazy.

    Strings get a variable length, as they have in every Dataset of this package: a
    ``split`` of fixed length would cut off longer names that are assigned to it.

    Parameters
    ----------
    image : array or None
        Shape ``(sample, row, col)``, or ``(sample, row, col, band)`` with the 3 bands
        of RGB or the 4 of RGBA; another shape gets dimensions ``sample, dim_1, ...``.
    label : array, optional
        Shape ``(sample,)``, or ``(sample, column)``, of which column 0 is used.
    split, source_index : array, optional
        Shape ``(sample,)``.
    label_attrs : mapping, optional
        Attributes of ``label``, such as those of :func:`class_attrs`.
    attrs : mapping, optional
        Attributes of the Dataset.

    Raises
    ------
    SourceError
        If the arrays differ in length, one is no array or of another shape, or
        ``label`` is a one-hot encoding.

    Notes
    -----
    dask cannot concatenate strings of NumPy with its own. Before
    :func:`xarray.concat` with a Dataset of dask arrays, such as one of
    :func:`xarray.open_zarr`, call ``.chunk()``.

    Examples
    --------
    >>> ds = make_dataset(np.zeros((2, 28, 28), "uint8"), label=[7, 3], split=["train", "test"])
    >>> ds.split.dtype
    StringDType()
    >>> own = make_dataset(ds.image.values, split=["validation", "validation"])
    >>> xr.concat([ds.drop_vars("label"), own], "sample").split.values.tolist()
    ['train', 'test', 'validation', 'validation']
    """
    data_vars: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    if image is not None:
        variable = xr.Variable(image_dims(_shape_of("image", image)), image)
        variable.attrs = image_attrs(variable.dtype)
        data_vars[IMAGE] = variable
    if label is not None:
        coords[LABEL] = label_variable(label, label_attrs)
    if split is not None:
        coords[SPLIT] = split_variable(split)
    if source_index is not None:
        long_name = "position of the sample in the source files, concatenated"
        coords[SOURCE_INDEX] = _along_sample(SOURCE_INDEX, source_index)
        coords[SOURCE_INDEX].attrs = {"long_name": long_name}
    lengths = {
        name: variable.sizes[SAMPLE]
        for name, variable in (data_vars | coords).items()
        if SAMPLE in variable.dims
    }
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count:,} samples in {name!r}" for name, count in lengths.items())
        raise SourceError(f"arrays differ in length: {counts}")
    return xr.Dataset(data_vars, coords, {"Conventions": CONVENTIONS, **(attrs or {})})


def label_variable(
    label: npt.ArrayLike | Any, attrs: Mapping[str, Any] | None = None
) -> xr.Variable:
    """Return the variable ``label`` as :func:`make_dataset` makes it."""
    variable = _with_strings(_column_of_labels(label))
    variable.attrs = {"long_name": "class of the sample", **(attrs or {})}
    return variable


def split_variable(split: npt.ArrayLike | Any) -> xr.Variable:
    """Return the variable ``split`` as :func:`make_dataset` makes it."""
    variable = _with_strings(_along_sample(SPLIT, split))
    variable.attrs = {"long_name": "part of the data set that the sample belongs to"}
    return variable


def _with_strings(variable: xr.Variable) -> xr.Variable:
    return variable.astype(STRING_DTYPE) if variable.dtype.kind == "U" else variable


def _shape_of(name: str, array: npt.ArrayLike | Any) -> tuple[int, ...]:
    try:
        shape = np.shape(array)
    except (TypeError, ValueError) as error:  # lists of different lengths, a Dataset
        raise SourceError(f"{name}: expected an array, got {type(array).__name__}") from error
    if not shape and not hasattr(array, "dtype"):
        raise SourceError(f"{name}: expected an array, got {type(array).__name__}")
    return shape


def _along_sample(name: str, array: npt.ArrayLike | Any) -> xr.Variable:
    if len(shape := _shape_of(name, array)) != 1:
        raise SourceError(f"{name}: expected shape (sample,), got {shape}")
    return xr.Variable((SAMPLE,), array)


def _column_of_labels(label: npt.ArrayLike | Any) -> xr.Variable:
    rank = len(_shape_of("labels", label))
    if rank == 1:
        return xr.Variable((SAMPLE,), label)
    if rank == 2 and np.shape(label)[1] > 0:
        table = xr.Variable((SAMPLE, "column"), label)
        # One read of a file; a table of classes has others among so many.
        check_is_no_indicator(table[:INDICATOR_SAMPLES].values)
        return table.isel(column=0)
    raise SourceError(
        f"labels: expected shape (sample,) or (sample, column), got {np.shape(label)}"
    )


def check_is_no_indicator(head: npt.NDArray[Any], name: str = "labels") -> None:
    """Check that a label table is no encoding of zeros and ones, of which no column is the label.

    Parameters
    ----------
    head : numpy.ndarray
        Shape (sample, column): the first ``INDICATOR_SAMPLES`` rows.
    name : str
        What the message calls the table.

    Raises
    ------
    SourceError
        If the classes of each sample are ones among zeros.
    """
    n_rows, n_columns = head.shape
    if n_columns == 1 or not n_rows or not np.isin(head, (0, 1)).all():
        return
    found = f"{name}: expected the number of a class for each sample, got a table of {n_columns} "
    if (head.sum(axis=1) == 1).all():
        raise SourceError(
            f"{found}columns of zeros and ones, as in a one-hot encoding; convert it with "
            ".argmax(axis=1)"
        )
    raise SourceError(
        f"{found}columns of zeros and ones, with other than a single one in some rows; choose one "
        "column, such as with [:, 0], or a class for each sample"
    )


def check_is_dataset(given: object) -> None:
    """Check that an argument is a Dataset.

    Raises
    ------
    SchemaError
        If it is something else; the message says how to get a Dataset from it.
    """
    if isinstance(given, xr.DataArray):
        raise SchemaError(
            "expected an xarray.Dataset, got a DataArray; use .to_dataset(name='image')"
        )
    if not isinstance(given, xr.Dataset):
        is_path = isinstance(given, str | os.PathLike)
        remedy = "; open it first: a store with open_store(...), IDX files with open_idx(...)"
        kind = type(given).__name__
        raise SchemaError(f"expected an xarray.Dataset, got {kind}{remedy if is_path else ''}")


def require(ds: xr.Dataset, caller: str, *names: str) -> None:
    """Check that a Dataset has some variables, which the caller needs.

    Raises
    ------
    SchemaError
        If it lacks one.
    """
    for name in names:
        if name not in ds.variables:
            raise SchemaError(f"{caller}: needs {name!r}, which this Dataset lacks")


def validate(ds: xr.Dataset) -> None:
    """Check that a Dataset follows the data model.

    Raises
    ------
    SchemaError
        If ``ds`` is not a Dataset or has no dimension ``sample``, ``sample`` is
        not the first dimension of a variable that has it, ``label``, ``split``
        or ``source_index`` is not one-dimensional, or ``source_index`` does not
        hold integers.
    """
    check_is_dataset(ds)
    if SAMPLE not in ds.dims:
        raise SchemaError(
            f"expected a Dataset with dimension 'sample', got {tuple(ds.dims)}; "
            "rename the first dimension with .rename(...)"
        )
    for name, variable in ds.variables.items():
        if SAMPLE in variable.dims[1:]:
            raise SchemaError(
                f"{name!r}: 'sample' must be the first dimension, got {variable.dims}; "
                "use .transpose('sample', ...)"
            )
    for name in (LABEL, SPLIT, SOURCE_INDEX):
        if name in ds.variables and ds[name].dims != (SAMPLE,):
            raise SchemaError(f"{name!r}: expected dimensions ('sample',), got {ds[name].dims}")
    if SOURCE_INDEX in ds.variables and ds[SOURCE_INDEX].dtype.kind not in "iu":
        raise SchemaError(f"{SOURCE_INDEX!r}: expected integers, got {ds[SOURCE_INDEX].dtype}")
