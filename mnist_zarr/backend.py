"""IDX files as lazy xarray Datasets: the engine ``"idx"`` and ``open_idx``.

Several files are one array here: the rows of the first, then those of the
second, and so on. Nothing but headers is read before values are asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from mnist_zarr.errors import SourceError
from mnist_zarr.files import PathOrFile, describe, is_url
from mnist_zarr.idx import IdxFile
from mnist_zarr.pairs import IdxPair, find_labels, find_pairs, is_folder, parse_name
from mnist_zarr.schema import (
    COL,
    IMAGE,
    ROW,
    SAMPLE,
    STRING_DTYPE,
    make_dataset,
    source_index_dtype,
)

Source = PathOrFile | Sequence[str | os.PathLike[str] | IdxPair]

# What dask reads at once: large against the cost of a task, small against memory.
DASK_CHUNK_BYTES = 16 << 20
# Rows that lie this close are read together with what is between them.
MAX_GAP_BYTES = 64 << 10
MAX_SPAN_BYTES = 2 << 20
# A few bytes of a header can announce billions of samples without elements, and each would
# get a position and a split.
MAX_EMPTY_SAMPLES = 1 << 16


class RowReader(Protocol):
    """What makes the rows of a :class:`LazyRows`. Must be picklable."""

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers, in any order and with repeats."""


class LazyRows(BackendArray):
    """An array whose rows are made on demand.

    To be wrapped in xarray's LazilyIndexedArray, which makes negative indices positive.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], reader: RowReader) -> None:
        self.shape = shape
        self.dtype = dtype
        self.reader = reader

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )
        # The adapter fails on an empty slice of negative step; nothing else needs it here.
        return self._read(key.tuple)

    def _read(self, key: tuple[Any, ...]) -> Any:
        if not self.shape:
            return self.reader.read_rows(0, 1)[0]
        rows, *others = key
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(self.shape[0])
            array = self.reader.read_rows(start, max(start, stop))
        elif isinstance(rows, slice):
            array = self.reader.take_rows(np.arange(self.shape[0])[rows])
        elif isinstance(rows, np.ndarray):
            array = self.reader.take_rows(rows)
        else:
            array = self.reader.read_rows(int(rows), int(rows) + 1)
        for axis, other in reversed(list(enumerate(others, start=1))):
            array = array[(slice(None),) * axis + (other,)]
        # The dots keep a single string an array of its type.
        return array if isinstance(rows, slice | np.ndarray) else array[0, ...]


class RowsFile(Protocol):
    """A file of rows: IDX or .npy. Must be picklable."""

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
        """Whether rows in any order cost about the same."""

    def read(self) -> npt.NDArray[Any]:
        """Return the whole array."""

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""


class StackedFiles:
    """The rows of files of equal type and row shape, one file after the other.

    Raises
    ------
    SourceError
        If the files differ in type or row shape, or one of several is of rank 0.
    """

    def __init__(self, files: Sequence[RowsFile]) -> None:
        first = files[0]
        for other in files[1:]:
            fits = (other.dtype, other.shape[1:]) == (first.dtype, first.shape[1:])
            if not (fits and first.shape and other.shape):
                raise SourceError(
                    f"files that do not fit together: {first.name} holds {_describe_rows(first)}, "
                    f"{other.name} holds {_describe_rows(other)}"
                )
        self._files = tuple(files)
        self._starts = np.cumsum([0, *map(_n_rows, files)]).tolist()

    def as_lazy_rows(self) -> LazyRows:
        """Return the array of all rows."""
        first = self._files[0]
        shape = (self._starts[-1], *first.shape[1:]) if first.shape else ()
        return LazyRows(shape, first.dtype, self)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        if not self._files[0].shape:
            return self._files[0].read().reshape(1)
        parts = [
            file.read_rows(max(start, begin) - begin, min(stop, end) - begin)
            for file, begin, end in zip(self._files, self._starts, self._starts[1:], strict=False)
            if max(start, begin) < min(stop, end)
        ]
        if not parts:
            return self._files[0].read_rows(0, 0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers, in any order and with repeats."""
        first_file = self._files[0]
        taken = np.empty((len(rows), *first_file.shape[1:]), first_file.dtype)
        by_position = np.argsort(rows, kind="stable")
        ordered = rows[by_position]
        for first, last in self._spans(ordered):
            span = self.read_rows(int(ordered[first]), int(ordered[last - 1]) + 1)
            taken[by_position[first:last]] = span[ordered[first:last] - ordered[first]]
        return taken

    def _spans(self, ordered: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Cut ascending row numbers into stretches that are worth one read."""
        first_file = self._files[0]
        row_bytes = max(1, math.prod(first_file.shape[1:]) * first_file.dtype.itemsize)
        max_gap, max_span = MAX_GAP_BYTES // row_bytes + 1, MAX_SPAN_BYTES // row_bytes + 1
        first = 0
        gaps = np.flatnonzero(np.diff(ordered) > max_gap) + 1
        for stop in (*gaps.tolist(), len(ordered)):
            while first < stop:
                last = int(np.searchsorted(ordered, ordered[first] + max_span))
                yield first, min(last, stop)
                first = min(last, stop)


class TransposedImages:
    """Images whose rows and columns are swapped when they are read."""

    def __init__(self, images: LazyRows) -> None:
        if len(images.shape) != 3:
            raise SourceError(
                f"transposed: expected images of shape (sample, row, col), got {images.shape}"
            )
        self._images = images

    def as_lazy_rows(self) -> LazyRows:
        """Return the array of all images."""
        n_samples, n_cols, n_rows = self._images.shape
        return LazyRows((n_samples, n_rows, n_cols), self._images.dtype, self)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the images ``start`` to ``stop``."""
        return self._images.reader.read_rows(start, stop).swapaxes(1, 2)

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the images of these numbers, in any order and with repeats."""
        return self._images.reader.take_rows(rows).swapaxes(1, 2)


class RepeatedValues:
    """Rows that repeat each of some strings a number of times."""

    def __init__(self, values: Sequence[str], counts: Sequence[int]) -> None:
        self._values = np.asarray(values, dtype=STRING_DTYPE)
        self._ends = np.cumsum(counts)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        # Slice by slice: to take strings one by one takes ten times as long.
        rows = np.empty(stop - start, dtype=STRING_DTYPE)
        begin = 0
        for value, end in zip(self._values, self._ends.tolist(), strict=True):
            rows[max(begin - start, 0) : max(end - start, 0)] = value
            begin = end
        return rows

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return self._values[np.searchsorted(self._ends, rows, side="right")]


class Positions:
    """The rows 0, 1, 2, ..."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start`` to ``stop``."""
        return np.arange(start, stop, dtype=self._dtype)

    def take_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows of these numbers."""
        return rows.astype(self._dtype)


class SuggestedChunks(dict[Any, int]):
    """Chunk sizes for ``chunks={}``; to choose others separates nothing that is stored.

    xarray takes the sizes by ``get`` with a default, and asks ``get`` without one whether
    stored chunks are separated by those that the user chose, of which it would warn.
    """

    def get(self, dim: Any, default: Any = None) -> Any:
        return None if default is None else super().get(dim, default)


class IdxBackendEntrypoint(BackendEntrypoint):
    """xarray's entry point for IDX files, raw or gzip.

    ``xr.open_dataset(path)`` finds it by itself where the name is a usual one
    (``train-images-idx3-ubyte.gz``); for others give ``engine="idx"``.
    """

    description = "Open IDX files (the format of MNIST) and folders of them"
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "labels",
        "transposed",
        "storage_options",
    )

    def open_dataset(  # type: ignore[override]  # each engine names its own options
        self,
        filename_or_obj: Source,
        *,
        drop_variables: str | Iterable[str] | None = None,
        labels: PathOrFile | None = None,
        transposed: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open IDX files as a lazy Dataset; see :func:`open_idx`."""
        if _is_label_file(filename_or_obj) and labels is None:
            ds = _open_labels(cast(PathOrFile, filename_or_obj), storage_options)
        else:
            pairs = _pairs_of(filename_or_obj, labels, storage_options)
            ds = _open_pairs(pairs, transposed, storage_options)
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        ds = ds.drop_vars(dropped, errors="ignore")
        ds.set_close(_close_nothing)
        return ds

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name, or a name in the folder, is that of an IDX file."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.fspath(filename_or_obj)
        if not is_url(path) and os.path.isdir(path):
            return any(parse_name(name) is not None for name in os.listdir(path))
        return parse_name(path) is not None


def open_idx(
    source: Source,
    *,
    labels: PathOrFile | None = None,
    transposed: bool = False,
    chunks: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Open IDX files as one lazy, labelled Dataset.

    The same as ``xr.open_dataset(source, engine="idx")``; beside that, several
    sources are accepted.

    Parameters
    ----------
    source : path, URL, open binary file, or a list of paths and URLs
        An image file, a folder with one pair of files per split, or several
        of these, which are then concatenated in the order given. A list may
        also have :class:`~mnist_zarr.pairs.IdxPair`, which names both files.
    labels : path, URL or open binary file, optional
        The label file of a single image file. By default the file that lies
        beside it and has the matching name, if there is one.
    transposed : bool
        Whether the files hold each image with rows and columns swapped, as
        EMNIST's do. The Dataset has them upright, and ``source_dims`` of
        ``image`` says so.
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col) in the file's type, with the coordinates
        ``label`` (where there are labels), ``split`` (where the names tell
        it) and ``source_index``. A file of another rank than 3 has the
        dimensions ``sample, dim_1, ...``. Of a label table of rank 2 (as in
        QMNIST) column 0 is ``label``.

    Raises
    ------
    IdxFormatError
        If a file is not a whole IDX file.
    SourceError
        If images and labels differ in number, or the files do not fit
        together.
    SourceNotFoundError
        If there is no such file or folder.

    Examples
    --------
    >>> from mnist_zarr.catalog import BUNDLED_FILES
    >>> ds = open_idx(BUNDLED_FILES / "t10k-images-idx3-ubyte.gz")
    >>> ds.label[:5].values
    array([7, 2, 1, 0, 4], dtype=uint8)
    """
    path = os.fspath(source) if isinstance(source, os.PathLike) else source
    return xr.open_dataset(
        cast(Any, path),
        engine=cast(Any, IdxBackendEntrypoint),
        chunks=chunks,
        labels=labels,
        transposed=transposed,
        storage_options=storage_options,
    )


def _close_nothing() -> None:
    """Stand where xarray.open_mfdataset expects a closer: no file is open."""


def _is_label_file(source: Source) -> bool:
    if not isinstance(source, str | os.PathLike):
        return False
    name = parse_name(source)
    return name is not None and name.role == "labels"


def _open_labels(source: PathOrFile, storage_options: dict[str, Any] | None) -> xr.Dataset:
    file = IdxFile(source, storage_options=storage_options)
    label = indexing.LazilyIndexedArray(StackedFiles([file]).as_lazy_rows())
    ds = make_dataset(None, label=label, attrs={"source": _file_names([file])})
    ds.encoding["source_files"] = (file,)
    return ds


def _pairs_of(
    source: Source | IdxPair, labels: PathOrFile | None, storage_options: dict[str, Any] | None
) -> list[tuple[PathOrFile, PathOrFile | None, str | None]]:
    """Return image file, label file and split of every pair that the source names."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        if labels is not None:
            raise SourceError("labels: cannot be given for several sources; name folders instead")
        if not source:
            raise SourceError("source: expected one or more files or folders, got an empty list")
        return [pair for part in source for pair in _pairs_of(part, None, storage_options)]
    if isinstance(source, IdxPair):
        return [_as_tuple(source)]
    if not isinstance(source, str | os.PathLike):
        return [(cast(PathOrFile, source), labels, None)]
    name = parse_name(source)
    if name is None and labels is None and is_folder(source, storage_options=storage_options):
        return [_as_tuple(pair) for pair in find_pairs(source, storage_options=storage_options)]
    if labels is None:
        labels = find_labels(source, storage_options=storage_options)
    return [(source, labels, name.split if name else None)]


def _as_tuple(pair: IdxPair) -> tuple[PathOrFile, PathOrFile | None, str | None]:
    return pair.images, pair.labels, pair.split


def _open_pairs(
    pairs: Sequence[tuple[PathOrFile, PathOrFile | None, str | None]],
    transposed: bool,
    storage_options: dict[str, Any] | None,
) -> xr.Dataset:
    images = [IdxFile(image, storage_options=storage_options) for image, _, _ in pairs]
    labels = [
        IdxFile(label, storage_options=storage_options)
        for _, label, _ in pairs
        if label is not None
    ]
    if labels and len(labels) < len(images):
        alone = next(describe(image) for image, label, _ in pairs if label is None)
        raise SourceError(f"{alone}: no label file found beside it, while other sources have one")
    splits = [split for _, _, split in pairs]
    ds = dataset_of_files(images, labels, splits, transposed=transposed)
    ds.attrs["source"] = _file_names(images + labels)
    ds.encoding["source_files"] = (*images, *labels)
    return ds


def dataset_of_files(
    images: Sequence[RowsFile],
    labels: Sequence[RowsFile],
    splits: Sequence[str | None],
    *,
    transposed: bool = False,
) -> xr.Dataset:
    """Make the lazy Dataset of image files, one after the other.

    Parameters
    ----------
    images, labels : sequence of RowsFile
        A label file for each image file, or none at all.
    splits : sequence of str or None
        The split of each image file, as far as it is known.
    transposed : bool
        Whether the images lie in the files column by column.

    Raises
    ------
    SourceError
        If the files do not fit together.
    """
    for image, label in zip(images, labels, strict=False):
        _check_same_length(image, label)
    counts = [_n_rows(image) for image in images]
    stacked = StackedFiles(images).as_lazy_rows()
    if transposed:
        stacked = TransposedImages(stacked).as_lazy_rows()
    n_samples = sum(counts)
    if n_samples > MAX_EMPTY_SAMPLES and 0 in stacked.shape:
        raise SourceError(
            f"{images[0].name}: {n_samples:,} samples of shape {stacked.shape[1:]}, which hold "
            f"nothing; expected {MAX_EMPTY_SAMPLES:,} of those at most: is the header damaged?"
        )
    positions = source_index_dtype(n_samples)
    has_samples = bool(stacked.shape)
    has_splits = has_samples and any(splits)
    ds = make_dataset(
        _lazy(stacked),
        label=_lazy(StackedFiles(labels).as_lazy_rows()) if labels else None,
        split=_lazy(_splits(splits, counts)) if has_splits else None,
        source_index=_lazy(LazyRows((n_samples,), positions, Positions(positions)))
        if has_samples
        else None,
    )
    if transposed:
        ds[IMAGE].attrs["source_dims"] = f"{SAMPLE} {COL} {ROW}"
    for variable in ds.variables.values():
        suggested = SuggestedChunks(_dask_chunks(ds[IMAGE], variable.dims))
        variable.encoding["preferred_chunks"] = suggested
    # A worker of a cluster can read its own rows of a raw file, but not of a gzip file.
    ds[IMAGE].encoding["seeks_cheaply"] = all(image.seeks_cheaply for image in images)
    return ds


def _n_rows(file: RowsFile) -> int:
    return file.shape[0] if file.shape else 1


def _lazy(rows: LazyRows) -> indexing.LazilyIndexedArray:
    return indexing.LazilyIndexedArray(rows)


def _splits(splits: Sequence[str | None], counts: Sequence[int]) -> LazyRows:
    values = RepeatedValues([split or "unknown" for split in splits], counts)
    return LazyRows((sum(counts),), cast(Any, STRING_DTYPE), values)


def _describe_rows(file: RowsFile) -> str:
    return f"{file.dtype} rows of shape {file.shape[1:]}" if file.shape else "no rows (rank 0)"


def _check_same_length(image: RowsFile, label: RowsFile) -> None:
    if image.shape[:1] != label.shape[:1]:
        raise SourceError(
            f"images and labels differ in number: {_n_rows(image):,} images in {image.name}, "
            f"{_n_rows(label):,} labels in {label.name}"
        )


def _dask_chunks(image: xr.DataArray, dims: tuple[Any, ...]) -> dict[Any, int]:
    row_bytes = max(1, image.nbytes // max(1, image.shape[0] if image.shape else 1))
    return {dim: max(1, DASK_CHUNK_BYTES // row_bytes) for dim in dims if dim == SAMPLE}


def _file_names(files: Iterable[IdxFile]) -> str:
    return ", ".join(os.path.basename(file.name) for file in files)
