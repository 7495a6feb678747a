"""Rows of words as aligned lines of text."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence


def align_columns(rows: Sequence[tuple[str, ...]], right: Container[int] = ()) -> Iterator[str]:
    """Return a line per row, with columns as wide as their widest cell.

    Parameters
    ----------
    rows : sequence of tuple of str
        All of the same length.
    right : container of int
        The columns that are aligned at the right.

    Examples
    --------
    >>> list(align_columns([("name", "count"), ("mnist", "7")], right=(1,)))
    ['name   count', 'mnist      7']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
