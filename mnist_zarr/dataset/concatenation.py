"""Several Datasets as one: the samples of the first, then those of the second, ..., lazily.

What identifies one data set does not outlive it. Of the whole is said what all parts say alike.
Where every part has them, titles, licences, references and source files are listed one after the
other. The ``id`` of a data set and the hashes of its content go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.blocks import BLOCK_BYTES, bytes_per_sample, iter_blocks
from mnist_zarr.dataset.classes import FLAGS, class_names, flags_of
from mnist_zarr.dataset.lazy import (
    MappedSamples,
    RepeatedValues,
    SampleNumbers,
    SampleReader,
    lazy_array,
)
from mnist_zarr.dataset.records import (
    DATASET_ID,
    DERIVED_FROM,
    SHA256_ORDER,
    SOURCE_FILES,
    SOURCE_SAMPLES,
    SOURCE_SHA256,
    derived,
    has_all_source_files,
    is_record,
)
from mnist_zarr.dataset.scaling import VALID_RANGE, known_range, packing_of, state_range, unpack
from mnist_zarr.dataset.schema import (
    IMAGE,
    LABEL,
    SAMPLE,
    SOURCE_INDEX,
    SPLIT,
    STRING_DTYPE,
    as_strings,
    is_string,
    source_index_dtype,
    validate,
)
from mnist_zarr.dataset.unlabelled import (
    MARK,
    are_unlabelled,
    as_marked,
    is_marked,
    marked_dtype,
)
from mnist_zarr.errors import SourceError

# Attributes of a Dataset that are listed one after the other, and what stands between them.
SEPARATORS = {"title": " + ", "source": ", ", "license": "; ", "references": "; "}
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Part:
    """A Dataset to concatenate.

    Attributes
    ----------
    name : str
        What messages call it.
    ds : xarray.Dataset
        The Dataset.
    is_as_opened : bool
        Whether its samples are known to be those that its attributes speak of.
    """

    name: str
    ds: xr.Dataset
    is_as_opened: bool = False

    @property
    def attrs(self) -> dict[Any, Any]:
        """What the Dataset says of itself and is true of its samples."""
        attrs = dict(self.ds.attrs)
        if self.is_as_opened or SHA256_ORDER not in attrs:
            return attrs
        # Of a data set or store that was opened, and who knows what was selected or changed. Of
        # several, only the titles are listed.
        return derived({name: attrs[name] for name in attrs if name not in (DATASET_ID, "license")})

    @property
    def source_files(self) -> tuple[Any, ...]:
        """The source files of all its samples, or those that a store records; else none."""
        files: tuple[Any, ...] = self.ds.encoding.get(SOURCE_FILES, ())
        if files and has_all_source_files(self.ds):
            return files
        recorded = self.attrs.get(SOURCE_SHA256, [])
        lines = [recorded] if isinstance(recorded, str) else recorded
        pairs = [str(line).partition("  ") for line in lines]
        return tuple(RecordedFile(name, digest) for digest, _, name in pairs)


@dataclass(frozen=True)
class RecordedFile:
    """A source file of which only name and hash are known, from the records of a store."""

    name: str
    digest: str

    @property
    def identity(self) -> str:
        """What tells this version of the file from any other."""
        return self.digest

    def sha256(self) -> str:
        """Return the hash of the file, in hexadecimal digits."""
        return self.digest


def concat_samples(parts: Sequence[Part]) -> xr.Dataset:
    """Concatenate Datasets along ``sample``, without reading their images.

    Parameters
    ----------
    parts : sequence of Part
        Of the same variables, sample shapes and types; integers along ``sample``
        alone, such as labels, may differ in size. A part without ``split`` is of
        split ``"unknown"`` if others have one. Of images that open rescaled the
        stored integers are taken; the result opens rescaled if all do so alike.

    Returns
    -------
    xarray.Dataset
        ``source_index`` continues from each part to the next. Names of classes
        are kept where all parts have flags.

    Raises
    ------
    SchemaError
        If a part is not of the data model.
    SourceError
        If the parts do not fit together: in variables, shapes or types, in the
        range of their pixels, or in the names of their classes.
    """
    for part in parts:
        validate(part.ds)
    variables = {}
    for name in _names(parts):
        if name == SOURCE_INDEX:
            variables[name] = _renumber([_source_index_of(part.ds) for part in parts])
        elif name == IMAGE:
            variables[name] = _concat_images(parts)
        elif name == SPLIT:
            variables[name] = _concat_alike(parts, name, [_split_of(part.ds) for part in parts])
        elif name == LABEL:
            variables[name] = _concat_labels(parts)
        else:
            variables[name] = _concat_alike(parts, name, [part.ds[name].variable for part in parts])
        variables[name].attrs |= _merge_flags(parts, name)
    coords = {SOURCE_INDEX, *(str(name) for part in parts for name in part.ds.coords)}
    ds = xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in coords},
        {name: variable for name, variable in variables.items() if name in coords},
        _merge_root_attrs([part.attrs for part in parts]),
    )
    if all(part.source_files for part in parts):
        ds.encoding[SOURCE_FILES] = tuple(file for part in parts for file in part.source_files)
        ds.encoding[SOURCE_SAMPLES] = ds.sizes[SAMPLE]
    return ds


def _names(parts: Sequence[Part]) -> list[str]:
    """Return the names of the variables, of which only some can be made where they lack."""
    names = dict.fromkeys(str(name) for part in parts for name in part.ds.variables)
    for name in names:
        if name in (SPLIT, SOURCE_INDEX):
            continue
        having = [part for part in parts if name in part.ds.variables]
        lacking = [part for part in parts if name not in part.ds.variables]
        if lacking:
            raise SourceError(
                f"sources that do not fit together: {having[0].name} has {name!r}, but "
                f"{lacking[0].name} does not"
            )
    return list(names | {SOURCE_INDEX: None})


def _split_of(ds: xr.Dataset) -> xr.Variable:
    if SPLIT in ds.variables:
        return ds[SPLIT].variable
    n_samples = ds.sizes[SAMPLE]
    return _along_sample(STRING_DTYPE, RepeatedValues(["unknown"], [n_samples]), (n_samples,))


def _source_index_of(ds: xr.Dataset) -> xr.Variable:
    if SOURCE_INDEX in ds.variables:
        return ds[SOURCE_INDEX].variable
    n_samples = ds.sizes[SAMPLE]
    dtype = source_index_dtype(n_samples)
    return _along_sample(dtype, SampleNumbers(dtype), (n_samples,))


def _renumber(variables: Sequence[xr.Variable]) -> xr.Variable:
    """Concatenate source indices: those of each part follow the largest of the part before."""
    starts = [0]
    for variable in variables:
        largest = max((int(block.max()) for _, block in iter_blocks(variable)), default=-1)
        starts.append(starts[-1] + largest + 1)
    dtype = source_index_dtype(starts[-1])
    return _concat(variables, dtype, [partial(_shift, start, dtype) for start in starts[:-1]])


def _concat_images(parts: Sequence[Part]) -> xr.Variable:
    originals = [part.ds[IMAGE].variable for part in parts]
    images = [unpack(image) for image in originals]
    result = _concat_alike(parts, IMAGE, images)
    ranges = [known_range(image) for image in images]
    for part, bounds in zip(parts, ranges, strict=True):
        if ranges[0] and bounds and bounds != ranges[0]:
            raise SourceError(
                "sources that do not fit together: the values of 'image' range from "
                f"{ranges[0][0]:g} to {ranges[0][1]:g} in {parts[0].name}, from {bounds[0]:g} to "
                f"{bounds[1]:g} in {part.name}"
            )
    packings = [packing_of(image.encoding) for image in originals]
    stays_packed = bool(packings[0]) and all(packing == packings[0] for packing in packings)
    if stays_packed:
        result.attrs |= packings[0]
        ranges = [known_range(image) for image in originals]
    result.attrs.pop(VALID_RANGE, None)
    if ranges[0] and all(ranges):
        as_python = int if result.dtype.kind in "iu" and not stays_packed else float
        state_range(result, [as_python(bound) for bound in ranges[0]])
    result.encoding["seeks_cheaply"] = all(v.encoding.get("seeks_cheaply") for v in images)
    result.encoding["reads_cheaply"] = all(v.encoding.get("reads_cheaply", True) for v in images)
    return result


def _concat_labels(parts: Sequence[Part]) -> xr.Variable:
    labels = [part.ds[LABEL].variable for part in parts]
    if not any(map(is_marked, labels)):
        return _concat_alike(parts, LABEL, labels)
    marked = [
        label if is_marked(label) else _as_marked(label, part.name)
        for label, part in zip(labels, parts, strict=True)
    ]
    return _concat_alike(parts, LABEL, marked)


def _as_marked(label: xr.Variable, name: str) -> xr.Variable:
    dtype = marked_dtype(label.dtype, name)
    convert = partial(as_marked, dtype=dtype, name=name)
    return _along_sample(
        dtype, MappedSamples(label, convert), label.shape, attrs={**label.attrs, **MARK}
    )


def _concat_alike(
    parts: Sequence[Part], name: str, variables: Sequence[xr.Variable]
) -> xr.Variable:
    """Concatenate variables, if they are of one shape and kind."""
    first, dtype = variables[0], variables[0].dtype
    n_shared = int(SAMPLE in first.dims)
    for part, other in zip(parts, variables, strict=True):
        common = _common_dtype(dtype, other.dtype, is_number=first.dims == (SAMPLE,))
        fits = other.dims == first.dims and other.shape[n_shared:] == first.shape[n_shared:]
        if not fits or common is None:
            raise SourceError(
                f"sources that do not fit together: {name!r} is {_describe(first)} in "
                f"{parts[0].name}, {_describe(other)} in {part.name}"
            )
        if not n_shared and not np.array_equal(first.values, other.values):
            raise SourceError(
                f"sources that do not fit together: {name!r} has other values in {part.name} than "
                f"in {parts[0].name}"
            )
        dtype = common
    if not n_shared:
        return first.copy(deep=False)
    convert = partial(as_strings, name) if is_string(dtype) else partial(_shift, 0, dtype)
    return _concat(variables, dtype, [convert] * len(variables))


def _common_dtype(
    one: np.dtype[Any], other: np.dtype[Any], *, is_number: bool
) -> np.dtype[Any] | None:
    """Return the type that holds the values of both; None if they are not of one kind.

    Labels may be integers of any size. Pixels of another type are of another range.
    """
    if is_string(one) and is_string(other):
        return STRING_DTYPE
    if one != other and not (is_number and one.kind in "iu" and other.kind in "iu"):
        return None
    dtype = np.promote_types(one, other)
    return dtype if dtype.kind == one.kind or dtype.kind in "iu" else None


def _describe(variable: xr.Variable) -> str:
    sizes = ", ".join(f"{dim} {size}" for dim, size in variable.sizes.items() if dim != SAMPLE)
    return f"{variable.dtype} ({sizes or ', '.join(map(str, variable.dims))})"


def _concat(
    variables: Sequence[xr.Variable],
    dtype: np.dtype[Any],
    converts: Sequence[Callable[[Values], Values]],
) -> xr.Variable:
    """Concatenate variables along ``sample``, with the attributes that they have in common."""
    first = variables[0]
    attrs = _common([variable.attrs for variable in variables])
    if first.ndim > 1 and any(variable.chunks is not None for variable in variables):
        # A task per chunk, which block by block would be computed again and again.
        concatenate = cast(Any, dask.array.concatenate)
        data = concatenate([_as_dask(variable).data for variable in variables])
        return xr.Variable(first.dims, data, attrs)
    reader = _Concatenated(variables, dtype, converts)
    shape = (sum(map(len, variables)), *first.shape[1:])
    return _along_sample(dtype, reader, shape, first.dims, attrs)


def _along_sample(
    dtype: Any,
    reader: SampleReader,
    shape: tuple[int, ...],
    dims: tuple[Any, ...] = (SAMPLE,),
    attrs: Mapping[Any, Any] | None = None,
) -> xr.Variable:
    return xr.Variable(dims, lazy_array(shape, dtype, reader), attrs)


def _as_dask(variable: xr.Variable) -> xr.Variable:
    if variable.chunks is not None:
        return variable
    return variable.chunk({SAMPLE: max(1, BLOCK_BYTES // max(1, bytes_per_sample(variable)))})


class _Concatenated:
    """The samples of several variables, one variable after the other."""

    def __init__(
        self,
        variables: Sequence[xr.Variable],
        dtype: np.dtype[Any],
        converts: Sequence[Callable[[Values], Values]],
    ) -> None:
        self._parts = list(zip(variables, converts, strict=True))
        self._dtype = dtype
        self._ends = np.cumsum([len(variable) for variable in variables])

    def read_samples(self, start: int, stop: int) -> Values:
        """Return the samples ``start`` to ``stop`` (not included)."""
        return self.take_samples(np.arange(start, stop), is_range=True)

    def take_samples(self, positions: npt.NDArray[np.int64], *, is_range: bool = False) -> Values:
        """Return the samples at these positions, in any order and with repeats."""
        sample_shape = self._parts[0][0].shape[1:]
        samples = np.empty((len(positions), *sample_shape), self._dtype)
        part_of = np.searchsorted(self._ends, positions, side="right")
        for number, (variable, convert) in enumerate(self._parts):
            (chosen,) = np.nonzero(part_of == number)
            if len(chosen):
                wanted = positions[chosen] - (self._ends[number] - len(variable))
                key = slice(int(wanted[0]), int(wanted[-1]) + 1) if is_range else wanted
                samples[chosen] = convert(variable[key].values)
        return samples


def _shift(by: int, dtype: np.dtype[Any], values: Values) -> Values:
    return values.astype(dtype, copy=False) + dtype.type(by) if by else values.astype(dtype)


def _merge_flags(parts: Sequence[Part], name: str) -> dict[str, Any]:
    """Return flags with the classes of all parts; none if a part names no classes of its own."""
    parts = [part for part in parts if not (name == LABEL and _has_no_labels(part.ds))]
    named: dict[int, tuple[str, Part]] = {}
    for part in parts:
        for value, word in class_names(part.ds, name).items():
            other, first = named.setdefault(value, (word, part))
            if word != other:
                raise SourceError(
                    f"sources that do not fit together: {name} {value} is {other!r} in "
                    f"{first.name}, {word!r} in {part.name}"
                )
    has_flags = [name in part.ds and part.ds[name].attrs.keys() >= set(FLAGS) for part in parts]
    if not parts or not all(has_flags):
        return {}
    return flags_of({value: word for value, (word, _) in named.items()})


def _has_no_labels(ds: xr.Dataset) -> bool:
    return bool(is_marked(ds[LABEL]) and are_unlabelled(ds[LABEL]).all())


def _common(attrs_of_parts: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return the attributes that are the same in all parts; flags are merged elsewhere."""
    first, *others = attrs_of_parts
    return {
        name: value
        for name, value in first.items()
        if name not in FLAGS
        and all(name in attrs and np.array_equal(attrs[name], value) for attrs in others)
    }


def _merge_root_attrs(attrs_of_parts: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    merged = {
        name: value
        for name, value in _common(attrs_of_parts).items()
        if name not in (DATASET_ID, DERIVED_FROM, SOURCE_SHA256) and not is_record(name)
    }
    for name, separator in SEPARATORS.items():
        merged.pop(name, None)
        said = [str(attrs[name]) for attrs in attrs_of_parts if name in attrs]
        if len(said) == len(attrs_of_parts):
            # Two parts of one data set are not that data set: its title is there twice.
            merged[name] = separator.join(said if name == "title" else dict.fromkeys(said))
    return merged
