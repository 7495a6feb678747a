"""Several files as one array, and as a Dataset: the samples of the first, then of the second, ...

What the engines of all file formats have in common.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.blocks import spans
from mnist_zarr.dataset.lazy import (
    LazyArray,
    MappedSamples,
    RepeatedValues,
    SampleNumbers,
    SuggestedChunks,
    lazy_array,
)
from mnist_zarr.dataset.records import SOURCE_FILES, SOURCE_SAMPLES
from mnist_zarr.dataset.schema import (
    COL,
    IMAGE,
    ROW,
    SAMPLE,
    STRING_DTYPE,
    make_dataset,
    source_index_dtype,
)
from mnist_zarr.dataset.unlabelled import MARK, UNLABELLED, as_marked, marked_dtype
from mnist_zarr.errors import OptionError, SourceError

# What dask reads at once: large against the cost of a task, small against memory.
DASK_CHUNK_BYTES = 16 << 20
# Samples that lie this close are read together with what is between them.
MAX_GAP_BYTES = 64 << 10
MAX_SPAN_BYTES = 2 << 20
# A few bytes of a header can announce billions of samples without elements, and each would
# get a position and a split.
MAX_EMPTY_SAMPLES = 1 << 16
# Options of xarray.open_dataset for what plain numbers do not have.
CF_DECODERS = (
    "mask_and_scale",
    "decode_times",
    "decode_timedelta",
    "use_cftime",
    "concat_characters",
    "decode_coords",
)
swap_rows_and_columns = operator.methodcaller("swapaxes", 1, 2)


class SampleFile(Protocol):
    """A file of samples: IDX or .npy. Must be picklable."""

    @property
    def name(self) -> str:
        """What messages call the file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""

    @property
    def seeks_cheaply(self) -> bool:
        """Whether samples in any order cost about the same."""

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included); a file of rank 0 has one."""


class SourceFile(Protocol):
    """A file that a Dataset is read from, or a folder of them."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def identity(self) -> str | None:
        """What tells this version from any other, if known."""

    def sha256(self) -> str:
        """Return its hash, in hexadecimal digits."""


class StackedFiles:
    """The samples of files of one type and sample shape, one file after the other.

    Raises
    ------
    SourceError
        If the files differ in type or sample shape, or one of several is of rank 0.
    """

    def __init__(self, files: Sequence[SampleFile]) -> None:
        first = files[0]
        for other in files[1:]:
            fits = (other.dtype, other.shape[1:]) == (first.dtype, first.shape[1:])
            if not (fits and first.shape and other.shape):
                raise SourceError(
                    f"files that do not fit together: {first.name} holds "
                    f"{_describe_samples(first)}, {other.name} holds {_describe_samples(other)}"
                )
        self._files = tuple(files)
        self._starts = np.cumsum([0, *map(n_samples_of, files)]).tolist()

    def as_lazy_array(self) -> LazyArray:
        """Return the array of all samples."""
        first = self._files[0]
        shape = (self._starts[-1], *first.shape[1:]) if first.shape else ()
        return lazy_array(shape, first.dtype, self)

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        parts = [
            file.read_samples(max(start, begin) - begin, min(stop, end) - begin)
            for file, begin, end in zip(self._files, self._starts, self._starts[1:], strict=False)
            if max(start, begin) < min(stop, end)
        ]
        if not parts:
            return self._files[0].read_samples(0, 0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions, in any order and with repeats."""
        first_file = self._files[0]
        taken = np.empty((len(positions), *first_file.shape[1:]), first_file.dtype)
        by_position = np.argsort(positions, kind="stable")
        ordered = positions[by_position]
        sample_bytes = math.prod(first_file.shape[1:]) * first_file.dtype.itemsize
        for first, last in spans(ordered, sample_bytes, MAX_GAP_BYTES, MAX_SPAN_BYTES):
            span = self.read_samples(int(ordered[first]), int(ordered[last - 1]) + 1)
            taken[by_position[first:last]] = span[ordered[first:last] - ordered[first]]
        return taken


class _MarkedLabels:
    """The labels of a file beside others without labels, or no label for each of its samples."""

    seeks_cheaply = True

    def __init__(self, file: SampleFile | None, n_samples: int, dtype: np.dtype[Any]) -> None:
        self.name = file.name if file else "no labels"
        self.shape = (n_samples,)
        self.dtype = dtype
        self._file = file

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the labels ``start`` to ``stop`` (not included)."""
        if self._file is None:
            return np.full(stop - start, UNLABELLED, self.dtype)
        return as_marked(self._file.read_samples(start, stop), self.dtype, self.name)


def dataset_of_files(
    images: Sequence[SampleFile],
    labels: Sequence[SampleFile | None],
    splits: Sequence[str | None],
    *,
    transposed: bool = False,
) -> xr.Dataset:
    """Make the lazy Dataset of image files, concatenated, and of their labels.

    Parameters
    ----------
    images, labels : sequence of SampleFile
        A label file for each image file, None for a test split without labels; or
        none at all.
    splits : sequence of str or None
        The split of each image file, where it is known.
    transposed : bool
        Whether rows and columns of the images are swapped in the files.

    Raises
    ------
    SourceError
        If the files do not fit together, or hold no images that can be
        transposed.
    """
    for image, label in zip(images, labels, strict=True):
        if label is not None:
            _check_same_length(image, label)
    counts = [n_samples_of(image) for image in images]
    stacked = StackedFiles(images).as_lazy_array()
    if transposed:
        stacked = _transpose(stacked)
    n_samples = sum(counts)
    if n_samples > MAX_EMPTY_SAMPLES and 0 in stacked.shape:
        raise SourceError(
            f"{images[0].name}: {n_samples:,} samples of shape {stacked.shape[1:]}, without "
            f"elements; expected {MAX_EMPTY_SAMPLES:,} of those at most: is the header damaged?"
        )
    positions = source_index_dtype(n_samples)
    has_samples = bool(stacked.shape)
    has_splits = has_samples and any(splits)
    ds = make_dataset(
        stacked,
        label=_stack_labels(images, labels, splits),
        label_attrs=MARK if None in labels and any(labels) else None,
        split=_splits(splits, counts) if has_splits else None,
        source_index=lazy_array((n_samples,), positions, SampleNumbers(positions))
        if has_samples
        else None,
    )
    if transposed:
        ds[IMAGE].attrs["source_dims"] = f"{SAMPLE} {COL} {ROW}"
    suggest_chunks(ds)
    # A worker of a cluster can read its own samples of a raw file, but not of a gzip file.
    ds[IMAGE].encoding["seeks_cheaply"] = all(image.seeks_cheaply for image in images)
    return ds


def _stack_labels(
    images: Sequence[SampleFile],
    labels: Sequence[SampleFile | None],
    splits: Sequence[str | None],
) -> Any:
    files = [label for label in labels if label is not None]
    if not files:
        return None
    if len(files) < len(labels):
        for image, label, split in zip(images, labels, splits, strict=True):
            if label is None and split != "test":  # competitions keep the labels of that
                raise SourceError(
                    f"{image.name}: has no label file beside it, unlike other sources; add it, or "
                    "name the files to build from, with `labels=False` for those that have none"
                )
        dtype = np.result_type(*(marked_dtype(file.dtype, file.name) for file in files))
        counted = zip(labels, map(n_samples_of, images), strict=True)
        files = [_MarkedLabels(label, count, dtype) for label, count in counted]
    return StackedFiles(files).as_lazy_array()


def suggest_chunks(ds: xr.Dataset) -> None:
    """Say how dask reads the samples of a Dataset of files best, for ``chunks={}``."""
    for variable in ds.variables.values():
        suggested = SuggestedChunks(_dask_chunks(ds[IMAGE], variable.dims))
        variable.encoding["preferred_chunks"] = suggested


def dataset_of_labels(file: SampleFile) -> xr.Dataset:
    """Make the lazy Dataset of a label file alone."""
    return make_dataset(None, label=StackedFiles([file]).as_lazy_array())


def refuse_unknown_options(given: Iterable[str], known: Iterable[str]) -> None:
    """Check the other options that xarray passes to an engine: those of CF decode nothing here.

    Raises
    ------
    OptionError
        If one is neither of the engine nor of CF.
    """
    for name in given:
        if name not in CF_DECODERS:
            raise OptionError(f"{name!r}: no such option; choose from {', '.join(known)}")


def as_opened(
    ds: xr.Dataset, files: Sequence[SourceFile], drop_variables: str | Iterable[str] | None
) -> xr.Dataset:
    """Return a Dataset as an engine of xarray does, and with the names of its files.

    Parameters
    ----------
    ds : xarray.Dataset
        Made from the files.
    files : sequence of SourceFile
        ``source`` names them; ``encoding["source_files"]`` has them, to be
        hashed when the Dataset is written if it has no more samples than they.
    drop_variables : str or iterable of str, optional
        The variables to leave out.
    """
    ds.attrs["source"] = ", ".join(os.path.basename(file.name) for file in files)
    ds.encoding[SOURCE_FILES] = tuple(files)
    ds.encoding[SOURCE_SAMPLES] = ds.sizes.get(SAMPLE)
    dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
    ds = ds.drop_vars(dropped, errors="ignore")
    ds.set_close(_close_nothing)
    return ds


def _close_nothing() -> None:
    """Be the closer that xarray.open_mfdataset expects: no file is open."""


def n_samples_of(file: SampleFile) -> int:
    """Return the number of samples; a file of rank 0 has one."""
    return file.shape[0] if file.shape else 1


def _transpose(images: LazyArray) -> LazyArray:
    if len(images.shape) != 3:
        raise SourceError(
            f"`transposed`: expected images of shape (sample, row, col), got {images.shape}"
        )
    n_samples, n_cols, n_rows = images.shape
    stored = xr.Variable((SAMPLE, COL, ROW), images)
    upright = MappedSamples(stored, swap_rows_and_columns)
    return lazy_array((n_samples, n_rows, n_cols), images.dtype, upright)


def _splits(splits: Sequence[str | None], counts: Sequence[int]) -> LazyArray:
    values = RepeatedValues([split or "unknown" for split in splits], counts)
    return lazy_array((sum(counts),), cast(Any, STRING_DTYPE), values)


def _describe_samples(file: SampleFile) -> str:
    if not file.shape:
        return "no samples (rank 0)"
    return f"{file.dtype} samples of shape {file.shape[1:]}"


def _check_same_length(image: SampleFile, label: SampleFile) -> None:
    if image.shape[:1] != label.shape[:1]:
        raise SourceError(
            f"images and labels differ in number: {n_samples_of(image):,} images in {image.name}, "
            f"{n_samples_of(label):,} labels in {label.name}"
        )


def _dask_chunks(image: xr.DataArray, dims: tuple[Any, ...]) -> dict[Any, int]:
    sample_bytes = max(1, image.nbytes // max(1, image.shape[0] if image.shape else 1))
    return {dim: max(1, DASK_CHUNK_BYTES // sample_bytes) for dim in dims if dim == SAMPLE}
