"""Which pictures are in a folder, and of which class and split each one is.

The class is the name of a folder, as in torchvision's ``ImageFolder`` and Keras'
``image_dataset_from_directory``; or a column of a CSV file. Folders for training and
testing may stand above::

    photos/cat/001.jpg         photos/train/cat/001.jpg     photos/001.jpg
    photos/dog/002.jpg         photos/test/dog/002.jpg      photos/labels.csv

Hidden files do not count (``.DS_Store``, ``._001.jpg``), nor what other programs keep beside
pictures (``__MACOSX``, ``@eaDir``), nor files without an ending of pictures (``Thumbs.db``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import SPLIT_OF_WORD, split_order
from mnist_zarr.errors import SchemaError, SourceError, SourceNotFoundError
from mnist_zarr.formats.label_tables import read_label_table

# HEIC is one, so that a picture that Pillow cannot decode is named, not left out.
ENDINGS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
TABLE_ENDINGS = (".csv", ".tsv")
# Of Mac's zip files, and of Synology's thumbnails.
FOREIGN_FOLDERS = ("__MACOSX", "@eaDir")


@dataclass(frozen=True)
class PictureList:
    """The pictures of a folder, in the order of their splits, classes and names.

    Attributes
    ----------
    folder : str
        Its path.
    names : tuple of str
        The path of each picture in it, with ``/``.
    labels : numpy.ndarray or None
        The number of the class of each picture, if known; of the smallest unsigned type.
    label_attrs : dict
        The CF flags that name the classes; none if their names are just the numbers.
    splits : tuple of str or None
        Of each picture, if known.
    table : str or None
        The path of the CSV file that the labels come from.
    """

    folder: str
    names: tuple[str, ...]
    labels: npt.NDArray[Any] | None
    label_attrs: dict[str, Any]
    splits: tuple[str, ...] | None
    table: str | None


def holds_pictures(folder: str) -> bool:
    """Whether a picture is in the folder or in one inside it."""
    return next(_walk(folder), None) is not None


def list_pictures(folder: str, table: str | Literal[False] | None = None) -> PictureList:
    """List the pictures in a folder with their classes and splits.

    Parameters
    ----------
    folder : str
        Path of the folder.
    table : str or False, optional
        Path of a CSV file with a column of file names and one of labels, and
        perhaps one named ``split``. By default the classes are the names of folders;
        where there are none, a single CSV file in ``folder`` is taken. False lists
        pictures without classes.

    Raises
    ------
    SourceError
        If there are no pictures; if only some of them are in folders of classes or
        splits; if the CSV file does not give each picture one label.
    SourceNotFoundError
        If there is no such CSV file.
    """
    parts = [PurePosixPath(name).parts for name in sorted(_walk(folder))]
    if not parts:
        raise SourceError(f"{folder}: expected pictures, such as .png or .jpg files, got none")
    depth = int(_has_splits(folder, parts))
    splits: list[str] | None = None
    if depth:
        splits = [SPLIT_OF_WORD[part[0].lower()] for part in parts]
    words: list[str] | None = None
    if table is None and any(len(part) > depth + 1 for part in parts):
        words = _names_of_class_folders(folder, parts, depth)
    elif table or (table is None and (table := _find_table(folder))):
        rows = read_label_table(table, folder, ["/".join(part) for part in parts])
        words = [label for label, _ in rows]
        splits = splits if rows[0][1] is None else [split or "unknown" for _, split in rows]
    labels, label_attrs = _number_classes(folder, words) if words else (None, {})
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


def _walk(folder: str, inside: str = "", above: tuple[Any, ...] = ()) -> Iterator[str]:
    """Yield the path of each picture in the folder, with ``/``; links are followed."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that it is in
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{folder}: there is no such folder") from error
    except NotADirectoryError as error:
        raise SourceError(f"{folder}: expected a folder, got a file") from error
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in found:
        if entry.name.startswith(".") or entry.name in FOREIGN_FOLDERS:
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{inside}{entry.name}/", (*above, here))
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
            yield inside + entry.name


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


def _names_of_class_folders(folder: str, parts: Sequence[tuple[str, ...]], depth: int) -> list[str]:
    for part in parts:
        if len(part) == depth + 1:
            example = next("/".join(other) for other in parts if len(other) > depth + 1)
            raise SourceError(
                f"{folder}: {'/'.join(part)!r} is in no folder of a class, unlike {example!r}; "
                "move it into one, or give a CSV file of all labels as `labels`"
            )
    return [part[depth] for part in parts]


def _number_classes(folder: str, words: Sequence[str]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Give each class a number: its place among the sorted names, or the number that it is."""
    names = sorted(set(words))
    numbers = [int(name) if name.isascii() and name.isdecimal() else -1 for name in names]
    are_numbers = min(numbers) >= 0 and max(numbers) < 2**63 and len(set(numbers)) == len(names)
    if not are_numbers:
        numbers = list(range(len(names)))
    number_of = dict(zip(names, numbers, strict=True))
    dtype = np.min_scalar_type(max(numbers))
    try:
        "".join(names).encode()
        attrs = {} if are_numbers else class_attrs(numbers, names)
    except UnicodeEncodeError as error:
        raise SourceError(f"{folder}: a class whose name is not UTF-8: {error.object!r}") from error
    except SchemaError as error:
        raise SourceError(f"{folder}: names of classes: {error}") from error
    return np.array([number_of[word] for word in words], dtype), attrs


def _find_table(folder: str) -> str | None:
    names = sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(TABLE_ENDINGS) and not name.startswith(".")
    )
    if len(names) > 1:
        raise SourceError(
            f"{folder}: which file has the labels: {', '.join(map(repr, names))}? Name one of "
            f"them: `labels={os.path.join(folder, names[0])!r}`"
        )
    return os.path.join(folder, names[0]) if names else None
