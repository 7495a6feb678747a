"""Which pictures are in a folder, and of which class and split each one is.

The class is the name of a folder, as in torchvision's ``ImageFolder`` and Keras'
``image_dataset_from_directory``; or a column of a CSV file. Folders for training and
testing may stand above::

    photos/cat/001.jpg         photos/train/cat/001.jpg     photos/001.jpg
    photos/dog/002.jpg         photos/test/dog/002.jpg      photos/labels.csv

Files without an ending of pictures do not count (``Thumbs.db``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import SPLIT_OF_WORD, split_order
from mnist_zarr.dataset.unlabelled import MARK, UNLABELLED, marked_dtype
from mnist_zarr.errors import SchemaError, SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import FileFolder, ZipFiles
from mnist_zarr.formats.label_tables import read_label_table

# HEIC is one, so that a picture that Pillow cannot decode is named, not left out.
ENDINGS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
TABLE_ENDINGS = (".csv", ".tsv")


@dataclass(frozen=True)
class PictureList:
    """The pictures of a folder, in the order of their splits, classes and names.

    Attributes
    ----------
    folder : FileFolder
        The folder, or the one in an archive that has all of them.
    names : tuple of str
        The path of each picture in it, with ``/``.
    labels : numpy.ndarray or None
        The number of the class of each picture, if known; of the smallest unsigned type.
        -1, of a signed type, for the pictures of a test part without labels.
    label_attrs : dict
        The CF flags that name the classes; none if their names are just the numbers.
    splits : tuple of str or None
        Of each picture, if known.
    table : ByteSource or None
        The CSV file that the labels come from.
    """

    folder: FileFolder
    names: tuple[str, ...]
    labels: npt.NDArray[Any] | None
    label_attrs: dict[str, Any]
    splits: tuple[str, ...] | None
    table: ByteSource | None


def holds_pictures(folder: FileFolder) -> bool:
    """Whether a picture is in the folder or in one inside it."""
    return next(_pictures_in(folder), None) is not None


def list_pictures(
    folder: FileFolder, table: ByteSource | Literal[False] | None = None
) -> PictureList:
    """List the pictures in a folder with their classes and splits.

    Parameters
    ----------
    folder : FileFolder
        The folder.
    table : ByteSource or False, optional
        A CSV file with a column of file names and one of labels, and
        perhaps one named ``split``. By default the classes are the names of folders;
        where there are none, a single CSV file in ``folder`` is taken. False lists
        pictures without classes.

    Raises
    ------
    SourceError
        If there are no pictures; if only some of them are in folders of classes or
        splits; if the CSV file does not give each picture one label.
    SourceNotFoundError
        If there is no such folder.
    """
    place = folder.name
    parts = _parts_of_pictures(folder)
    if not parts:
        raise SourceError(f"{place}: expected pictures, such as .png or .jpg files, got none")
    while isinstance(folder, ZipFiles) and (top := _common_folder(parts)):
        folder = folder.below(f"{top}/")
        parts = _parts_of_pictures(folder)
    depth = int(_has_splits(place, parts))
    splits: list[str] | None = None
    if depth:
        splits = [SPLIT_OF_WORD[part[0].lower()] for part in parts]
    # Competitions keep the labels of the test part.
    may_lack_labels = [split == "test" for split in splits or ()]
    words: Sequence[str | None] | None = None
    if table is None and any(len(part) > depth + 1 for part in parts):
        words = _names_of_class_folders(place, parts, depth, may_lack_labels)
    elif table or (table is None and (table := _find_table(folder))):
        names = ["/".join(part) for part in parts]
        rows = read_label_table(table, place, names, may_lack_labels)
        words = [label for label, _ in rows]
        splits = splits if rows[0][1] is None else [split or "unknown" for _, split in rows]
    labels, label_attrs = _number_classes(place, words) if words else (None, {})
    numbers = labels.tolist() if labels is not None and not table else [0] * len(parts)
    ranks = [split_order(split) for split in splits] if splits else [()] * len(parts)
    keys = list(zip(ranks, numbers, parts, strict=True))
    order = sorted(range(len(parts)), key=keys.__getitem__)
    return PictureList(
        folder,
        tuple("/".join(parts[at]) for at in order),
        None if labels is None else labels[order],
        label_attrs,
        tuple(splits[at] for at in order) if splits else None,
        table or None,
    )


def _pictures_in(folder: FileFolder) -> Iterator[str]:
    return (path for path in folder.paths() if os.path.splitext(path)[1].lower() in ENDINGS)


def _parts_of_pictures(folder: FileFolder) -> list[tuple[str, ...]]:
    return [tuple(path.split("/")) for path in sorted(_pictures_in(folder))]


def _common_folder(parts: Sequence[tuple[str, ...]]) -> str | None:
    """Return the folder that all pictures of an archive are in, if it is not that of a split."""
    tops = {part[0] if len(part) > 1 else None for part in parts}
    top = tops.pop()
    return None if tops or top is None or top.lower() in SPLIT_OF_WORD else top


def _has_splits(folder: str, parts: Sequence[tuple[str, ...]]) -> bool:
    """Whether the folders on top are splits; ``train`` may also be a class, beside ``plane``."""
    tops = {part[0] for part in parts if len(part) > 1}
    splits = sorted(top for top in tops if top.lower() in SPLIT_OF_WORD)
    if tops and len(splits) == len(tops) and all(len(part) > 1 for part in parts):
        return True
    if any(part[0] in splits and len(part) > 2 for part in parts):
        other = next("/".join(part) for part in parts if part[0] not in splits)
        raise SourceError(
            f"{folder}: {splits[0]!r} is the folder of a split, but {other!r} is in none; move it "
            f"into one, or name the folder of a split: {os.path.join(folder, splits[0])!r}"
        )
    return False


def _names_of_class_folders(
    folder: str, parts: Sequence[tuple[str, ...]], depth: int, may_lack: Sequence[bool]
) -> list[str | None]:
    are_inside = [len(part) > depth + 1 for part in parts]
    if any(may_lack) and not any(itertools.compress(are_inside, may_lack)):
        are_inside = [inside or may for inside, may in zip(are_inside, may_lack, strict=True)]
    for part, is_inside in zip(parts, are_inside, strict=True):
        if not is_inside:
            example = next("/".join(other) for other in parts if len(other) > depth + 1)
            raise SourceError(
                f"{folder}: {'/'.join(part)!r} is in no folder of a class, unlike {example!r}; "
                "move it into one, or give a CSV file of all labels as `labels`"
            )
    return [part[depth] if len(part) > depth + 1 else None for part in parts]


def _number_classes(
    folder: str, words: Sequence[str | None]
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Give each class a number: its place among the sorted names, or the number that it is."""
    names = sorted({word for word in words if word is not None})
    numbers = [int(name) if name.isascii() and name.isdecimal() else -1 for name in names]
    are_numbers = min(numbers) >= 0 and max(numbers) < 2**63 and len(set(numbers)) == len(names)
    if not are_numbers:
        numbers = list(range(len(names)))
    number_of: dict[str | None, int] = dict(zip(names, numbers, strict=True))
    dtype = np.min_scalar_type(max(numbers))
    try:
        "".join(names).encode()
        attrs = {} if are_numbers else class_attrs(numbers, names)
    except UnicodeEncodeError as error:
        raise SourceError(f"{folder}: a class whose name is not UTF-8: {error.object!r}") from error
    except SchemaError as error:
        raise SourceError(f"{folder}: names of classes: {error}") from error
    if None in words:
        number_of[None] = UNLABELLED
        dtype = marked_dtype(dtype, folder)
        attrs |= MARK
    return np.array([number_of[word] for word in words], dtype), attrs


def _find_table(folder: FileFolder) -> ByteSource | None:
    names = sorted(
        path for path in folder.paths() if "/" not in path and path.lower().endswith(TABLE_ENDINGS)
    )
    if len(names) > 1:
        raise SourceError(
            f"{folder.name}: which file has the labels: {', '.join(map(repr, names))}? Name one of "
            f"them: `labels={os.path.join(folder.name, names[0])!r}`"
        )
    return folder.open(names[0]) if names else None
