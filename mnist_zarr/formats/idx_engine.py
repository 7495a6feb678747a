"""IDX files as lazy xarray Datasets: the engine ``"idx"`` and ``open_idx``.

Nothing but headers is read before values are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import xarray as xr
from xarray.backends import BackendEntrypoint

from mnist_zarr.errors import SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import ZipFiles, is_archive
from mnist_zarr.files.sources import PathOrFile, open_bytes
from mnist_zarr.files.urls import is_url, path_or_url
from mnist_zarr.formats.idx import IdxFile
from mnist_zarr.formats.idx_names import (
    IdxPair,
    find_labels,
    find_pairs,
    find_pairs_in_archive,
    is_folder,
    parse_name,
)
from mnist_zarr.formats.source import Source
from mnist_zarr.formats.stacked import (
    as_opened,
    dataset_of_files,
    dataset_of_labels,
    refuse_unknown_options,
)

Files = PathOrFile | ZipFiles | Sequence[str | os.PathLike[str] | IdxPair]


_Pair = tuple[PathOrFile | ByteSource, PathOrFile | ByteSource | None, str | None]


class IdxBackendEntrypoint(BackendEntrypoint):
    """xarray's entry point for IDX files, raw or gzip.

    ``xr.open_dataset(path)`` finds it where the file name is a usual one
    (``train-images-idx3-ubyte.gz``); for other names give ``engine="idx"``.
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
        filename_or_obj: Files,
        *,
        drop_variables: str | Iterable[str] | None = None,
        labels: PathOrFile | Literal[False] | None = None,
        transposed: bool = False,
        storage_options: dict[str, Any] | None = None,
        **decoders: Any,
    ) -> xr.Dataset:
        """Open IDX files as a lazy Dataset; see :func:`open_idx`."""
        refuse_unknown_options(decoders, self.open_dataset_parameters)
        if _is_label_file(filename_or_obj) and labels is None:
            file = IdxFile(cast(PathOrFile, filename_or_obj), storage_options=storage_options)
            ds, files = dataset_of_labels(file), [file]
        else:
            pairs = _pairs_of(filename_or_obj, labels, storage_options)
            ds, files = _open_pairs(pairs, transposed, storage_options)
        stored = dict.fromkeys(_as_stored(file.bytes) for file in files)
        return as_opened(ds, list(stored), drop_variables)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name, or a name in the folder, is a usual one of IDX files."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = path_or_url(filename_or_obj)
        if not is_url(path) and os.path.isdir(path):
            return any(parse_name(name) is not None for name in os.listdir(path))
        return parse_name(path) is not None


def open_idx(
    source: Files,
    *,
    labels: PathOrFile | Literal[False] | None = None,
    transposed: bool = False,
    chunks: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Open IDX files as one lazy, labelled Dataset.

    The same as ``xr.open_dataset(source, engine="idx")``, but it also accepts
    several sources.

    Parameters
    ----------
    source : path, URL, open binary file, or a list of paths and URLs
        An image file, a folder or zip archive with one pair of files per split, or
        several of these, which are concatenated in the order given. A list may also
        contain :class:`~mnist_zarr.formats.idx_names.IdxPair`, which names both
        files.
    labels : path, URL, open binary file or False, optional
        The label file of a single image file. By default the file of the
        matching name in the same folder, if there is one. False opens images only.
    transposed : bool
        Whether rows and columns of each image are swapped in the files, as in
        EMNIST's. The Dataset has the images upright; the attribute
        ``source_dims`` of ``image`` records it.
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col) in the file's type, or (sample, row, col, band)
        with 3 or 4 bands, with the coordinates ``label`` (if there are labels),
        ``split`` (if the names tell it) and ``source_index``. A test split without
        labels, beside others that have them, gets the label -1. A file of another shape
        has the dimensions ``sample, dim_1, ...``. Column 0 of a label table of rank 2 (as in
        QMNIST) is ``label``.

    Raises
    ------
    IdxFormatError
        If a file is not a whole IDX file; also when values are read.
    FileFormatError
        If gzip data are damaged; also when values are read.
    SourceError
        If images and labels differ in number, the files do not fit together, a
        folder holds no IDX files, more than one data set, labels without their
        images, or a raw and a gzip file of one name that differ, the labels are
        one-hot, or a file cannot be read or changes while it is read.
    SourceNotFoundError
        If there is no such file or folder.
    OptionError
        If a path or URL is none, or ``storage_options`` is no dictionary.
    MissingExtraError
        If the package that knows the URL is not installed.

    Examples
    --------
    >>> from mnist_zarr.catalog.entries import BUNDLED_FILES
    >>> ds = open_idx(BUNDLED_FILES / "t10k-images-idx3-ubyte.gz")
    >>> ds.label[:5].values
    array([7, 2, 1, 0, 4], dtype=uint8)
    """
    return xr.open_dataset(
        cast(Any, source),
        engine=cast(Any, IdxBackendEntrypoint),
        chunks=chunks,
        labels=labels,
        transposed=transposed,
        storage_options=storage_options,
    )


def _as_stored(source: ByteSource) -> ByteSource:
    """Return the file itself: of members of an archive, the archive."""
    while source.encoded is not source:
        source = source.encoded
    return source


def _is_label_file(source: Files) -> bool:
    if not isinstance(source, str | os.PathLike):
        return False
    name = parse_name(source)
    return name is not None and name.role == "labels"


def _pairs_of(
    source: Files | IdxPair,
    labels: PathOrFile | Literal[False] | None,
    storage_options: dict[str, Any] | None,
) -> list[_Pair]:
    """Return image file, label file and split of every pair of files."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        if labels is not None and labels is not False:
            raise SourceError("`labels`: cannot be given for several sources; name folders instead")
        if not source:
            raise SourceError("source: expected one or more files or folders, got an empty list")
        return [pair for part in source for pair in _pairs_of(part, labels, storage_options)]
    if isinstance(source, IdxPair):
        return [(source.images, None if labels is False else source.labels, source.split)]
    if isinstance(source, ZipFiles):
        return _pairs_in(source, labels)
    if not isinstance(source, str | os.PathLike):
        return [(cast(PathOrFile, source), None if labels is False else labels, None)]
    name = parse_name(source)
    if name is None and is_archive(path_or_url(source)):
        return _pairs_in(ZipFiles(open_bytes(source, storage_options=storage_options)), labels)
    may_be_folder = name is None and (labels is None or labels is False)
    if may_be_folder and is_folder(source, storage_options=storage_options):
        pairs = find_pairs(source, storage_options=storage_options)
        return [split for pair in pairs for split in _pairs_of(pair, labels, storage_options)]
    if labels is None:
        labels = find_labels(source, storage_options=storage_options)
    return [(source, None if labels is False else labels, name.split if name else None)]


def _pairs_in(archive: ZipFiles, labels: PathOrFile | Literal[False] | None) -> list[_Pair]:
    if labels is not None and labels is not False:
        raise SourceError("`labels`: an archive has its own; extract it to use others")
    return [
        (
            archive.open(pair.images),
            archive.open(pair.labels) if pair.labels and labels is None else None,
            pair.split,
        )
        for pair in find_pairs_in_archive(archive)
    ]


def _open_pairs(
    pairs: Sequence[_Pair],
    transposed: bool,
    storage_options: dict[str, Any] | None,
) -> tuple[xr.Dataset, list[IdxFile]]:
    images = [IdxFile(image, storage_options=storage_options) for image, _, _ in pairs]
    labels = [
        None if label is None else IdxFile(label, storage_options=storage_options)
        for _, label, _ in pairs
    ]
    splits = [split for _, _, split in pairs]
    ds = dataset_of_files(images, labels, splits, transposed=transposed)
    return ds, images + [label for label in labels if label is not None]


class IdxSource(Source):
    """An IDX image file, a pair of files, or a folder of them."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return True

    def open(self) -> xr.Dataset:
        files = [self.given] if isinstance(self.given, IdxPair) else self.given
        return open_idx(files, labels=self.labels, storage_options=self.options)
