"""Folders of pictures as lazy xarray Datasets: ``open_pictures``.

Of each picture the header is read when the folder is opened: all must make samples of one
shape. Pixels are decoded when values are asked for, by Pillow, on threads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from xarray.backends import BackendEntrypoint

from mnist_zarr.dataset.lazy import LazySamples, lazy_array
from mnist_zarr.dataset.schema import IMAGE, STRING_DTYPE, make_dataset, source_index_dtype
from mnist_zarr.errors import FileFormatError, MnistZarrError, OptionError, SourceError
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.files.urls import is_url, path_or_url, shown_url
from mnist_zarr.formats.idx_names import parse_name
from mnist_zarr.formats.picture_folders import PictureList, holds_pictures, list_pictures
from mnist_zarr.formats.source import Source
from mnist_zarr.formats.stacked import SourceFile, as_opened, refuse_unknown_options, suggest_chunks

Mode = Literal["L", "RGB", "RGBA"]
Fit = Literal["crop", "pad"]
# From each mode of Pillow to the one that holds its pixels without loss.
WHOLE_MODE = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("P", "RGB", "CMYK", "YCbCr"), "RGB"),
    **dict.fromkeys(("LA", "PA", "RGBA"), "RGBA"),
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), "I;16"),
    **{mode: mode for mode in ("I", "F")},
}
DTYPE_OF_MODE = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
BANDS_OF_MODE: dict[str, tuple[int, ...]] = {"RGB": (3,), "RGBA": (4,)}
# Each of these modes holds those before it without loss.
MODES_OF_BYTES = get_args(Mode)
ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)
# A JPEG file is decoded at a fraction of its size, if that is still so many times the size asked
# for: Pillow's advice for a result that looks like that of the whole picture.
REDUCING_GAP = 3
# So many pictures are handed to threads at a time.
BATCH = 256

R = TypeVar("R")


@dataclass(frozen=True)
class Form:
    """How pictures become samples of one shape; see :func:`open_pictures`.

    Raises
    ------
    OptionError
        If one is none of the choices.
    """

    size: tuple[int, int] | None = None
    mode: Mode | None = None
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        for name, choices in (("mode", (None, *get_args(Mode))), ("fit", get_args(Fit))):
            if getattr(self, name) not in choices:
                listed = ", ".join(repr(choice) for choice in choices if choice)
                raise OptionError(
                    f"`{name}`: expected one of {listed}, got {getattr(self, name)!r}"
                )
        sides: Any = () if self.size is None else self.size
        is_pair = isinstance(sides, Sequence) and len(sides) == 2
        if self.size is not None and not (
            is_pair and all(isinstance(side, int) and side > 0 for side in sides)
        ):
            raise OptionError(
                f"`size`: expected width and height in pixels, such as (64, 64), got {self.size!r}"
            )


AS_THEY_ARE = Form()


def open_pictures(
    folder: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    mode: Mode | None = None,
    fit: Fit = "crop",
    chunks: Any = None,
) -> xr.Dataset:
    """Open a folder of pictures as one lazy, labelled Dataset.

    Parameters
    ----------
    folder : str or os.PathLike
        A local folder with a folder for each class, at any depth below which the
        pictures are; or with folders ``train``, ``test`` or ``val`` of these; or with
        pictures and a CSV file. Pictures have an ending such as ``.jpg`` or ``.png``;
        other files and hidden ones do not count.
    labels : str or os.PathLike, optional
        A CSV file with a column of file names, one of labels, and perhaps one called
        ``split``. By default a class is a folder; in a folder of pictures without
        classes, a single CSV file is found by itself.
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
        If ``folder`` is a URL, or an option is none of the choices.

    Examples
    --------
    >>> import tempfile
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
    )


class _PicturesBackendEntrypoint(BackendEntrypoint):
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "labels", "form")

    def open_dataset(  # type: ignore[override]  # each engine names its own options
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        labels: str | os.PathLike[str] | None = None,
        form: Form = AS_THEY_ARE,
        **decoders: Any,
    ) -> xr.Dataset:
        refuse_unknown_options(decoders, self.open_dataset_parameters)
        folder = _local_path(filename_or_obj, "a folder")
        table = None if labels is None else _local_path(labels, "a CSV file")
        pictures = list_pictures(folder, table)
        files = PictureFiles.of(folder, pictures.names)
        ds = _dataset_of(pictures, files, form)
        sources: list[SourceFile] = [files]
        if pictures.table:
            sources.append(LocalSource(pictures.table))
        return as_opened(ds, sources, drop_variables)


def _local_path(given: object, what: str) -> str:
    path = path_or_url(given, f"the path of {what}")
    if is_url(path):
        raise OptionError(f"{shown_url(path)}: expected {what} of this machine; copy it first")
    return path


def _dataset_of(pictures: PictureList, files: PictureFiles, form: Form) -> xr.Dataset:
    n_samples = len(pictures.names)
    size, mode = form.size, cast("str | None", form.mode)
    if size is None or mode is None:
        read = functools.partial(_read_header, mode=mode)
        check = functools.partial(_decode, form=form, mode=mode)
        headers = list(_read_all(files, range(n_samples), read, check))
        size = size or _common_size(files, headers)
        mode = mode or _common_mode(files, headers)
    shape = (size[1], size[0], *BANDS_OF_MODE.get(mode, ()))
    reader = DecodedPictures(files, form, mode, shape)
    dtype = source_index_dtype(n_samples)
    ds = make_dataset(
        lazy_array(LazySamples((n_samples, *shape), reader.dtype, reader)),
        label=pictures.labels,
        label_attrs=pictures.label_attrs,
        split=pictures.splits and np.array(pictures.splits, STRING_DTYPE),
        source_index=np.arange(n_samples, dtype=dtype),
    )
    suggest_chunks(ds)
    # Any picture can be decoded by itself, but that takes longer than to read samples of a store.
    ds[IMAGE].encoding |= {"seeks_cheaply": True, "reads_cheaply": False}
    return ds


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of a folder, as files of one version each.

    Attributes
    ----------
    folder : str
        The absolute path of the folder.
    names : tuple of str
        The path of each picture in it, with ``/``.
    identities : tuple of str or None
        What tells the version of each from any other; None of one that cannot be opened.
    """

    folder: str
    names: tuple[str, ...]
    identities: tuple[str | None, ...]

    @classmethod
    def of(cls, folder: str, names: Sequence[str]) -> PictureFiles:
        """Take the files as they are now."""
        place = os.path.abspath(folder)
        return cls(place, tuple(names), tuple(_identity(place, name) for name in names))

    @property
    def name(self) -> str:
        """What messages call the folder."""
        return self.folder

    @property
    def identity(self) -> str:
        """What tells this version of all pictures from any other."""
        versions = zip(self.names, self.identities, strict=True)
        return hashlib.sha256(repr(list(versions)).encode("utf-8", "surrogatepass")).hexdigest()

    def sha256(self) -> str:
        """Return one hash of all pictures, in hexadecimal digits.

        A line for each picture would make the metadata, which every reader of a store
        fetches first, as large as small pictures themselves: 70,000 lines are 6 MB. So this
        is the hash of these lines: what ``sha256sum`` prints for the pictures, sorted by
        their paths in the folder. ::

            cd photos && LC_ALL=C sha256sum */* | sha256sum
        """
        digest = hashlib.sha256()
        for name, at in sorted((os.fsencode(name), at) for at, name in enumerate(self.names)):
            digest.update(b"%s  %s\n" % (self.source(at).sha256().encode(), name))
        return digest.hexdigest()

    def source(self, at: int) -> LocalSource:
        """Return the bytes of one picture.

        Raises
        ------
        SourceError
            If the file was changed, or cannot be opened.
        SourceNotFoundError
            If there is no such file any more.
        """
        source = LocalSource(os.path.join(self.folder, self.names[at]))
        if self.identities[at] not in (None, source.identity):
            raise SourceError("was changed since the folder was opened; open it again")
        return source


def _identity(folder: str, name: str) -> str | None:
    try:
        return LocalSource(os.path.join(folder, name)).identity
    except SourceError:  # said when it is read, together with all others that cannot be
        return None


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
        decoded = _read_all(self._files, positions.tolist(), self._decode)
        for sample, picture in zip(samples, decoded, strict=True):
            sample[...] = picture
        return samples

    def _decode(self, files: PictureFiles, at: int) -> npt.NDArray[Any]:
        picture = _decode(files, at, self._form, self._mode)
        if picture.shape != self._shape:  # an orientation that comes after the pixels
            raise ValueError(f"is of shape {picture.shape}, but its header said {self._shape}")
        return picture


def _read_all(
    files: PictureFiles,
    positions: Iterable[int],
    read: Callable[[PictureFiles, int], R],
    check: Callable[[PictureFiles, int], object] | None = None,
) -> Iterator[R]:
    """Read pictures on threads; if one cannot be read, check all, and raise an error that says so.

    Parameters
    ----------
    files : PictureFiles
        The pictures.
    positions : iterable of int
        Those to read.
    read : callable
        Reads one.
    check : callable, optional
        Reads one as far as ``read`` does, or further.
    """
    for at, outcome in _attempts(files, positions, read):
        if isinstance(outcome, Exception):
            everything = _attempts(files, range(len(files.names)), check or read)
            errors = {other: error for other, error in everything if isinstance(error, Exception)}
            raise _unreadable(files, {at: outcome} | errors)
        yield outcome


def _attempts(
    files: PictureFiles, positions: Iterable[int], read: Callable[[PictureFiles, int], R]
) -> Iterator[tuple[int, R | Exception]]:
    """Yield each position with what was read, or why it could not be."""

    def attempt(at: int) -> R | Exception:
        try:
            return read(files, at)
        except MemoryError:
            raise
        except Exception as error:  # each format has errors of its own
            return error

    remaining = iter(positions)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while batch := list(itertools.islice(remaining, BATCH)):
            yield from zip(batch, threads.map(attempt, batch), strict=True)


def _unreadable(files: PictureFiles, error_of: dict[int, Exception]) -> MnistZarrError:
    listed = "; ".join(f"{files.names[at]}: {_reason(error_of[at])}" for at in sorted(error_of))
    are_absent = all(isinstance(error, SourceError) for error in error_of.values())
    kind = SourceError if are_absent else FileFormatError
    return kind(
        f"{files.name}: {len(error_of):,} of {len(files.names):,} pictures cannot be read: {listed}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture, or of a format that Pillow lacks"
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _open(source: Any) -> Iterator[Image.Image]:
    """Open a picture, of which nothing but the header is read so far."""
    with Image.open(source) as picture:
        # Cameras put a preview or a view for the other eye into an MPO file, behind the picture.
        if getattr(picture, "is_animated", False) and picture.format != "MPO":
            raise ValueError(f"has {getattr(picture, 'n_frames', 'several')} frames; expected one")
        if picture.mode not in WHOLE_MODE:
            raise ValueError(f"is of mode {picture.mode}; expected one of {', '.join(WHOLE_MODE)}")
        yield picture


def _whole_mode(picture: Image.Image) -> str:
    """Return the mode that holds the picture without loss."""
    mode = WHOLE_MODE[picture.mode]
    if mode in DTYPE_OF_MODE:
        return mode
    if any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ())):
        raise ValueError(
            f"has 16 bits per band, of which Pillow keeps 8; accept that with `mode={mode!r}`"
        )
    return "RGBA" if picture.has_transparency_data else mode


def _read_header(files: PictureFiles, at: int, mode: str | None) -> tuple[tuple[int, int], str]:
    """Return width and height of a picture once it stands upright, and its mode."""
    with _open(files.source(at).name) as picture:
        # Not as `picture.getexif()`, which decodes a PNG file to look behind its pixels.
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
        width, height = picture.size
        # Of TIFF, Pillow turns the size by itself.
        if orientation in ORIENTATIONS_ON_THE_SIDE and picture.format != "TIFF":
            width, height = height, width
        return (width, height), mode or _whole_mode(picture)


def _decode(files: PictureFiles, at: int, form: Form, mode: str | None) -> npt.NDArray[Any]:
    source = files.source(at)
    data = source.read(0, source.size or 0)
    with _open(io.BytesIO(data)) as picture:
        mode = mode or _whole_mode(picture)
        if form.size is not None:
            side = REDUCING_GAP * max(form.size)
            picture.draft(None, (side, side))
        ImageOps.exif_transpose(picture, in_place=True)
        converted = _convert(picture, mode)
        if form.size is not None and converted.size != form.size:
            reshape = ImageOps.fit if form.fit == "crop" else ImageOps.pad
            converted = reshape(converted, form.size)
        return np.asarray(converted)


def _convert(picture: Image.Image, mode: str) -> Image.Image:
    whole = WHOLE_MODE[picture.mode]
    if whole in DTYPE_OF_MODE:
        if whole != mode:
            raise ValueError(f"has more than the 8 bits of mode {mode}")
        return picture
    if picture.has_transparency_data and picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # else Pillow warns, and advises just that
    return picture.convert(mode)


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


@dataclass(frozen=True)
class PicturesSource(Source):
    """A folder of pictures that holds no IDX files."""

    form: Form = AS_THEY_ARE

    @classmethod
    def recognizes(cls, given: object) -> bool:
        if not isinstance(given, str | os.PathLike):
            return False
        path = path_or_url(given)
        if is_url(path) or not os.path.isdir(path):
            return False
        return not any(map(parse_name, os.listdir(path))) and holds_pictures(path)

    def open(self) -> xr.Dataset:
        self._refuse_options("a local folder")
        size, mode, fit = self.form.size, self.form.mode, self.form.fit
        return open_pictures(self.given, labels=self.labels, size=size, mode=mode, fit=fit)
