"""Terminal output: harmless text, in columns, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator, Sequence

from tqdm import tqdm

BLOCK = "█"  # of which bars in a table are drawn


def printable(text: str) -> str:
    r"""Return a text on one line, with escapes for what is not to be seen.

    What a store or a server says may hold newlines, which forge lines of ours, and sequences
    that control a terminal.

    Examples
    --------
    >>> print(printable("sevens\x1b[2J\nmine.zarr: whole"))
    sevens\x1b[2J\nmine.zarr: whole
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def align_columns(rows: Sequence[tuple[str, ...]], right: Container[int] = ()) -> Iterator[str]:
    """Yield a line per row, with columns as wide as their widest cell.

    Parameters
    ----------
    rows : sequence of tuple of str
        All of the same length.
    right : container of int
        Indices of the columns to align right.

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


def sample_bar(n_samples: int, progress: bool | None) -> tqdm[None]:
    """Return a progress bar, a context manager; advance it with ``update``.

    Parameters
    ----------
    n_samples : int
        Number of samples to process.
    progress : bool or None
        Whether to show the bar; None shows it on a terminal only.
    """
    return tqdm(
        total=n_samples,
        unit=" samples",
        unit_scale=True,
        disable=None if progress is None else not progress,
        file=sys.stderr,
    )
