"""CSV files with the labels of pictures: a column of file names, and one of labels.

A header is optional. The columns are told by what is in them: that of file names has the
names of the pictures, with or without folders and endings. The other one has the labels;
of several, the one that is called ``label``, ``class``, ``category`` or ``target``. A column
called ``split`` is that of the splits.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnist_zarr.dataset.schema import SPLIT, split_of
from mnist_zarr.errors import SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import MAX_MEMBER_BYTES

DELIMITERS = ",;\t"
LABEL_COLUMNS = ("label", "class", "category", "target")


def read_label_table(
    table: ByteSource, folder: str, pictures: Sequence[str], may_lack: Sequence[bool] = ()
) -> list[tuple[str | None, str | None]]:
    """Return the label of each picture, and its split if there is a column of splits.

    Parameters
    ----------
    table : ByteSource
        The CSV file, in UTF-8; with commas, semicolons or tabs.
    folder : str
        What messages call the folder of the pictures.
    pictures : sequence of str
        The path of each picture in the folder, with ``/``.
    may_lack : sequence of bool, optional
        The pictures that may have no lines, if none of them has one.

    Raises
    ------
    SourceError
        If it cannot be read, or does not have one line with a label for each picture.
    """
    path, rows = table.name, _parse(table)
    finder = _Finder(pictures)
    columns = _Columns.of(path, rows, finder, folder)
    found: dict[int, tuple[str | None, str | None]] = {}
    line_of: dict[int, int] = {}
    for line, cells in rows[int(columns.has_header) :]:
        where = f"{path}: line {line}"
        name, label, split = columns.cells_of(cells)
        at = finder.find(name)
        if at is None:
            raise SourceError(f"{where}: no picture {name!r} in {folder}, or more than one")
        if at in line_of:
            raise SourceError(f"{where}: {pictures[at]!r} is in line {line_of[at]} already")
        if not label:
            raise SourceError(f"{where}: {pictures[at]!r} has no label")
        found[at], line_of[at] = (label, split), line
    optional = {at for at, may in enumerate(may_lack) if may}
    if not optional & found.keys():
        found |= dict.fromkeys(optional, (None, None))
    missing = [name for at, name in enumerate(pictures) if at not in found]
    if missing:
        raise SourceError(
            f"{path}: expected a line for each of {len(pictures):,} pictures in {folder}, got none "
            f"for {len(missing):,} of them, such as {missing[0]!r}"
        )
    return [found[at] for at in range(len(pictures))]


def _parse(table: ByteSource) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, all of one length, with the numbers of their lines."""
    path, size = table.name, table.size or 0
    if size > MAX_MEMBER_BYTES:
        raise SourceError(f"{path}: {size:,} bytes; expected {MAX_MEMBER_BYTES:,} at most")
    try:
        text = bytes(table.read(0, size)).decode("utf-8-sig")
        delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(reader.line_num, [*map(str.strip, cells)]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: expected a CSV file in UTF-8: {error}") from error
    n_columns = max((len(cells) for _, cells in rows), default=0)
    return [(line, cells + [""] * (n_columns - len(cells))) for line, cells in rows if any(cells)]


@dataclass(frozen=True)
class _Columns:
    """Which column is which."""

    has_header: bool
    name: int
    label: int
    split: int | None

    @classmethod
    def of(
        cls, path: str, rows: Sequence[tuple[int, list[str]]], finder: _Finder, folder: str
    ) -> _Columns:
        first = rows[0][1] if rows else []
        hits = [
            sum(finder.find(cells[column]) is not None for _, cells in rows)
            for column in range(len(first))
        ]
        if not any(hits):
            raise SourceError(
                f"{path}: expected a column with the file names of the pictures in {folder}, got "
                "none"
            )
        name = hits.index(max(hits))
        # A first line with the name of a file is no header, even if that picture is missing.
        ending = os.path.splitext(first[name])[1].lower()
        is_name = bool(ending) and ending in finder.endings
        has_header = finder.find(first[name]) is None and not is_name
        header = [cell.lower() if has_header else "" for cell in first]
        split = header.index(SPLIT) if SPLIT in header else None
        others = [column for column in range(len(first)) if column not in (name, split)]
        called = [column for column in others if header[column] in LABEL_COLUMNS]
        labels = others if len(others) == 1 else called
        if len(labels) != 1:
            listed = ", ".join(repr(first[column]) for column in others) or "none"
            raise SourceError(
                f"{path}: expected one column of labels beside that of file names, got {listed}; "
                f"call it {LABEL_COLUMNS[0]!r} in the first line"
            )
        return cls(has_header, name, labels[0], split)

    def cells_of(self, cells: Sequence[str]) -> tuple[str, str, str | None]:
        """Return file name, label and split of a row."""
        split = None if self.split is None else cells[self.split]
        return cells[self.name], cells[self.label], split and split_of(split)


class _Finder:
    """Finds the picture that a cell names: by its path or its name, with ending or without."""

    def __init__(self, pictures: Sequence[str]) -> None:
        without_ending = [os.path.splitext(name) for name in pictures]
        self.endings = {ending.lower() for _, ending in without_ending}
        self._found: list[Mapping[str, int | None]] = [
            _positions(pictures),
            _positions(name for name, _ in without_ending),
            _positions(name.rpartition("/")[2] for name in pictures),
            _positions(name.rpartition("/")[2] for name, _ in without_ending),
        ]

    def find(self, cell: str) -> int | None:
        """Return the position of the picture; None if there is none, or more than one."""
        name = cell.replace("\\", "/").removeprefix("./")
        return next((found[name] for found in self._found if name in found), None)


def _positions(keys: Iterable[str]) -> dict[str, int | None]:
    """Return the position of each key; None of those that are there more than once."""
    found: dict[str, int | None] = {}
    for position, key in enumerate(keys):
        found[key] = None if key in found else position
    return found
