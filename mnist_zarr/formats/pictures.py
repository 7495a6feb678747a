"""Folders of pictures as lazy xarray Datasets: ``open_pictures``.

Of each picture the header is read when the folder is opened: all must make samples of one
shape. Pixels are decoded when values are asked for, by Pillow, on threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendEntrypoint

from mnist_zarr.dataset.lazy import lazy_array
from mnist_zarr.dataset.schema import IMAGE, STRING_DTYPE, make_dataset, source_index_dtype
from mnist_zarr.errors import OptionError, SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import FileFolder, LocalFiles, ZipFiles, is_archive
from mnist_zarr.files.sources import LocalSource, open_bytes
from mnist_zarr.files.urls import is_url, path_or_url, shown_url
from mnist_zarr.formats.idx_names import parse_name
from mnist_zarr.formats.picture_files import (
    AS_THEY_ARE,
    BANDS_OF_MODE,
    DTYPE_OF_MODE,
    Fit,
    Form,
    Mode,
    PictureFiles,
    decode,
    read_all,
    read_header,
)
from mnist_zarr.formats.picture_folders import PictureList, holds_pictures, list_pictures
from mnist_zarr.formats.source import Source
from mnist_zarr.formats.stacked import (
    SourceFile,
    as_opened,
    refuse_unknown_options,
    suggest_chunks,
)

# Each of these modes holds those before it without loss.
MODES_OF_BYTES = get_args(Mode)


def open_pictures(
    folder: str | os.PathLike[str] | ZipFiles,
    *,
    labels: str | os.PathLike[str] | Literal[False] | None = None,
    size: tuple[int, int] | None = None,
    mode: Mode | None = None,
    fit: Fit = "crop",
    chunks: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Open a folder of pictures as one lazy, labelled Dataset.

    Parameters
    ----------
    folder : str or os.PathLike
        A local folder with a folder for each class, at any depth below which the
        pictures are; or with folders ``train``, ``test`` or ``val`` of these; or with
        pictures and a CSV file. Or the path or URL of a zip archive of such a folder,
        which is read in place. Pictures have an ending such as ``.jpg`` or ``.png``;
        other files and hidden ones do not count.
    labels : str or os.PathLike, optional
        A CSV file with a column of file names, one of labels, and perhaps one called
        ``split``. By default a class is a folder; in a folder of pictures without
        classes, a single CSV file is found by itself. False opens pictures only.
    size : (width, height), optional
        In pixels; all pictures are resized. By default they must be of one size.
    mode : {"L", "RGB", "RGBA"}, optional
        Convert all pictures to gray, colour, or colour with transparency. By default
        the first of these that holds all of them without loss; pictures of more than
        eight bits keep their type.
    fit : {"crop", "pad"}
        Whether what does not have the proportions of ``size`` is cropped on both
        sides, or padded with zeros. It is never squeezed.
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, row, col), or in colour (sample, row, col, band), of uint8;
        of uint16, int32 or float32 if all pictures are. EXIF orientation is applied.
        ``label`` is the number of the class in the sorted names, with CF flags; names
        that are numbers stay these numbers. Samples are sorted by split, class and
        name.

    Raises
    ------
    FileFormatError
        If pictures are damaged, of a format that Pillow lacks, or animated: the
        message names all of them. Also when values are read.
    SourceError
        If there are no pictures, their sizes or types differ, only some are in folders
        of classes, the CSV file does not fit, or a file changes while it is read.
    SourceNotFoundError
        If there is no such folder or CSV file.
    OptionError
        If ``folder`` is the URL of something else than a zip archive, or an option is
        none of the choices.
    MissingExtraError
        If the package that knows the URL is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         os.mkdir(f"{folder}/{name}")
    ...         Image.new("RGB", (30, 20)).save(f"{folder}/{name}/1.png")
    ...     ds = open_pictures(folder, size=(16, 16))
    >>> dict(ds.sizes)
    {'sample': 2, 'row': 16, 'col': 16, 'band': 3}
    >>> ds.label.attrs["flag_meanings"]
    'cat dog'
    """
    return xr.open_dataset(
        cast(Any, folder),
        engine=cast(Any, _PicturesBackendEntrypoint),
        chunks=chunks,
        labels=labels,
        form=Form(size, mode, fit),
        storage_options=storage_options,
    )


class _PicturesBackendEntrypoint(BackendEntrypoint):
    open_dataset_parameters = (
        *("filename_or_obj", "drop_variables", "labels", "form", "storage_options"),
    )

    def open_dataset(  # type: ignore[override]  # each engine names its own options
        self,
        filename_or_obj: str | os.PathLike[str] | ZipFiles,
        *,
        drop_variables: str | Iterable[str] | None = None,
        labels: str | os.PathLike[str] | Literal[False] | None = None,
        form: Form = AS_THEY_ARE,
        storage_options: dict[str, Any] | None = None,
        **decoders: Any,
    ) -> xr.Dataset:
        refuse_unknown_options(decoders, self.open_dataset_parameters)
        folder = _open_folder(filename_or_obj, storage_options)
        table: ByteSource | Literal[False] | None = None
        if labels is not None:
            table = labels is not False and LocalSource(_local_path(labels, "a CSV file"))
        pictures = list_pictures(folder, table)
        files = PictureFiles.of(pictures.folder, pictures.names)
        ds = _dataset_of(pictures, files, form)
        sources: list[SourceFile] = [folder.archive or files]
        if pictures.table and (table or not folder.archive):
            sources.append(pictures.table)
        return as_opened(ds, sources, drop_variables)


def _open_folder(
    given: str | os.PathLike[str] | ZipFiles, storage_options: dict[str, Any] | None
) -> FileFolder:
    if isinstance(given, ZipFiles):
        return given
    path = path_or_url(given, "the path of a folder or zip archive")
    if is_archive(path):
        return ZipFiles(open_bytes(path, storage_options=storage_options))
    return LocalFiles(_local_path(path, "a folder"))


def _local_path(given: object, what: str) -> str:
    path = path_or_url(given, f"the path of {what}")
    if is_url(path):
        raise OptionError(f"{shown_url(path)}: expected {what} of this machine; copy it first")
    return path


def _dataset_of(pictures: PictureList, files: PictureFiles, form: Form) -> xr.Dataset:
    n_samples = len(pictures.names)
    size, mode = form.size, cast("str | None", form.mode)
    if size is None or mode is None:
        read = functools.partial(read_header, mode=mode)
        check = functools.partial(decode, form=form, mode=mode)
        headers = list(read_all(files, range(n_samples), read, check))
        size = size or _common_size(files, headers)
        mode = mode or _common_mode(files, headers)
    shape = (size[1], size[0], *BANDS_OF_MODE.get(mode, ()))
    reader = DecodedPictures(files, form, mode, shape)
    dtype = source_index_dtype(n_samples)
    ds = make_dataset(
        lazy_array((n_samples, *shape), reader.dtype, reader),
        label=pictures.labels,
        label_attrs=pictures.label_attrs,
        split=pictures.splits and np.array(pictures.splits, STRING_DTYPE),
        source_index=np.arange(n_samples, dtype=dtype),
    )
    suggest_chunks(ds)
    # Any picture can be decoded by itself, but that takes longer than to read samples of a store.
    ds[IMAGE].encoding |= {"seeks_cheaply": True, "reads_cheaply": False}
    return ds


class DecodedPictures:
    """Pictures as samples of one shape, which are decoded on threads.

    Memory holds the samples that are asked for, and a whole picture for each thread.
    """

    def __init__(self, files: PictureFiles, form: Form, mode: str, shape: tuple[int, ...]) -> None:
        self.dtype: np.dtype[Any] = np.dtype(DTYPE_OF_MODE.get(mode, np.uint8))
        self._files, self._form, self._mode, self._shape = files, form, mode, shape

    def read_samples(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the samples ``start`` to ``stop`` (not included)."""
        return self.take_samples(np.arange(start, stop))

    def take_samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the samples at these positions, in any order and with repeats."""
        samples = np.empty((len(positions), *self._shape), self.dtype)
        decoded = read_all(self._files, positions.tolist(), self._decode)
        for sample, picture in zip(samples, decoded, strict=True):
            sample[...] = picture
        return samples

    def _decode(self, files: PictureFiles, at: int) -> npt.NDArray[Any]:
        picture = decode(files, at, self._form, self._mode)
        if picture.shape != self._shape:  # an orientation that comes after the pixels
            raise ValueError(f"is of shape {picture.shape}, but its header said {self._shape}")
        return picture


def _common_size(
    files: PictureFiles, headers: Sequence[tuple[tuple[int, int], str]]
) -> tuple[int, int]:
    first = headers[0][0]
    for name, (size, _) in zip(files.names, headers, strict=True):
        if size != first:
            raise SourceError(
                f"{files.name}: the sizes of pictures differ: {files.names[0]!r} has "
                f"{first[0]} x {first[1]} pixels, {name!r} has {size[0]} x {size[1]}; resize all, "
                f"such as with `size={first}`"
            )
    return first


def _common_mode(files: PictureFiles, headers: Sequence[tuple[tuple[int, int], str]]) -> str:
    modes = [mode for _, mode in headers]
    if all(mode in MODES_OF_BYTES for mode in modes):
        return max(set(modes), key=MODES_OF_BYTES.index)
    for name, mode in zip(files.names, modes, strict=True):
        if mode != modes[0]:
            one, other = (np.dtype(DTYPE_OF_MODE.get(m, np.uint8)) for m in (modes[0], mode))
            raise SourceError(
                f"{files.name}: the types of pictures differ: {files.names[0]!r} is of {one}, "
                f"{name!r} of {other}; convert them to one type first"
            )
    return modes[0]


class PicturesSource(Source):
    """A folder of pictures that holds no IDX files."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        if not isinstance(given, str | os.PathLike):
            return False
        path = path_or_url(given)
        if is_url(path) or not os.path.isdir(path):
            return False
        with contextlib.suppress(OSError):  # of which whoever reads the folder has more to say
            names = os.listdir(path)
            return not any(map(parse_name, names)) and holds_pictures(LocalFiles(path))
        return False

    def holds_pictures(self) -> bool:
        return True

    def open(self) -> xr.Dataset:
        self._refuse_options("a local folder")
        size, mode, fit = self.form.size, self.form.mode, self.form.fit
        return open_pictures(self.given, labels=self.labels, size=size, mode=mode, fit=fit)
