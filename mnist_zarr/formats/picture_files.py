"""The files of pictures: one version of each, decoded by Pillow, on threads.

Modes are those of Pillow: ``L`` is gray, ``RGBA`` colour with transparency, and ``I;16`` gray of
16 bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mnist_zarr.errors import FileFormatError, MnistZarrError, OptionError, SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import MAX_MEMBER_BYTES, FileFolder
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.files.zip_source import SourceFile

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
ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)
# A JPEG file is decoded at a fraction of its size, if that is still so many times the size asked
# for: Pillow's advice for a result that looks like that of the whole picture.
REDUCING_GAP = 3
# Number of pictures handed to threads at a time.
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
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in choices:  # an array has no truth
                listed = ", ".join(repr(choice) for choice in choices if choice)
                raise OptionError(
                    f"`{name}`: expected one of {listed}, got {getattr(self, name)!r}"
                )
        if self.size is not None and not _is_size(self.size):
            raise OptionError(
                f"`size`: expected width and height in pixels, such as (64, 64), got {self.size!r}"
            )


def _is_size(size: object) -> bool:
    return (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(isinstance(side, int | np.integer) and side > 0 for side in size)
    )


AS_THEY_ARE = Form()


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of a folder, as files of one version each.

    Attributes
    ----------
    folder : FileFolder
        The folder or archive that they are in.
    names : tuple of str
        The path of each picture in it, with ``/``.
    identities : tuple of str or None
        What tells the version of each from any other; None of one that cannot be opened.
    """

    folder: FileFolder
    names: tuple[str, ...]
    identities: tuple[str | None, ...]

    @classmethod
    def of(cls, folder: FileFolder, names: Sequence[str]) -> PictureFiles:
        """Take the files as they are now."""
        if folder.archive is not None:  # of which there is one version
            return cls(folder, tuple(names), (None,) * len(names))
        return cls(folder, tuple(names), tuple(_identity(folder, name) for name in names))

    @property
    def name(self) -> str:
        """What messages call the folder."""
        return self.folder.name

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

    def source(self, at: int) -> ByteSource:
        """Return the bytes of one picture.

        Raises
        ------
        SourceError
            If the file was changed, or cannot be opened.
        SourceNotFoundError
            If there is no such file any more.
        FileFormatError
            If it is in an archive and cannot be inflated.
        """
        source = self.folder.open(self.names[at])
        if self.identities[at] not in (None, source.identity):
            raise SourceError("was changed since the folder was opened; open it again")
        return source


def _identity(folder: FileFolder, name: str) -> str | None:
    try:
        return folder.open(name).identity
    except SourceError:  # said when it is read, together with all others that cannot be
        return None


def read_all(
    files: PictureFiles,
    positions: Iterable[int],
    read: Callable[[PictureFiles, int], R],
    check: Callable[[PictureFiles, int], object] | None = None,
) -> Iterator[R]:
    """Read pictures on threads, in order; if one cannot be read, check all, to name all of them.

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

    Raises
    ------
    FileFormatError
        If pictures cannot be decoded.
    SourceError
        If files are absent, or were changed.
    """
    for at, outcome in _attempts(files, positions, read):
        if isinstance(outcome, _Failure):
            everything = _attempts(files, range(len(files.names)), check or read)
            failures = {other: found for other, found in everything if isinstance(found, _Failure)}
            raise _unreadable(files, {at: outcome} | failures)
        yield outcome


@dataclass(frozen=True)
class _Failure:
    """Why a picture could not be read: no exception, which would keep the picture in memory."""

    reason: str
    is_of_file: bool  # which is absent, or was changed

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "is not a picture, or of a format that Pillow lacks"
        return cls(reason, isinstance(error, SourceError))


def _attempts(
    files: PictureFiles, positions: Iterable[int], read: Callable[[PictureFiles, int], R]
) -> Iterator[tuple[int, R | _Failure]]:
    """Yield each position with what was read, or why it could not be."""

    def attempt(at: int) -> R | _Failure:
        try:
            return read(files, at)
        except MemoryError:
            raise
        except Exception as error:  # each format has errors of its own
            return _Failure.of(error)

    remaining = iter(positions)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while batch := list(itertools.islice(remaining, BATCH)):
            yield from zip(batch, threads.map(attempt, batch), strict=True)


def _unreadable(files: PictureFiles, failures: dict[int, _Failure]) -> MnistZarrError:
    are_of_files = all(failure.is_of_file for failure in failures.values())
    kind = SourceError if are_of_files else FileFormatError
    listed = "; ".join(f"{files.names[at]}: {failures[at].reason}" for at in sorted(failures))
    return kind(
        f"{files.name}: {len(failures):,} of {len(files.names):,} pictures cannot be read: {listed}"
    )


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


def read_header(files: PictureFiles, at: int, mode: str | None) -> tuple[tuple[int, int], str]:
    """Return width and height of a picture once it stands upright, and its mode."""
    source = files.source(at)
    is_file = isinstance(source, LocalSource)
    with _open(source.name if is_file else io.BufferedReader(SourceFile(source))) as picture:
        # Not as `picture.getexif()`, which decodes a PNG file to look behind its pixels.
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
        width, height = picture.size
        # Of TIFF, Pillow turns the size by itself.
        if orientation in ORIENTATIONS_ON_THE_SIDE and picture.format != "TIFF":
            width, height = height, width
        return (width, height), mode or _whole_mode(picture)


def decode(files: PictureFiles, at: int, form: Form, mode: str | None) -> npt.NDArray[Any]:
    """Return the pixels of a picture, upright, in a mode or the one that holds it without loss."""
    source = files.source(at)
    size = source.size or 0
    if files.folder.archive is not None and size > MAX_MEMBER_BYTES:
        raise ValueError(f"inflates to {size:,} bytes; expected {MAX_MEMBER_BYTES:,} at most")
    data = source.read(0, size)
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
