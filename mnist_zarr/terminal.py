"""Terminal output: harmless text, in columns, and progress bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

BLOCK = "█"  # of which bars in a table are drawn
MAX_LABEL_CHARACTERS = 40


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


def progress_bar(label: str, total: int, unit: str, progress: bool | None = None) -> tqdm[Any]:
    """Return a progress bar on standard error, a context manager; advance it with ``update``.

    Parameters
    ----------
    label : str
        What is done, to what.
    total : int
        The number of units to process.
    unit : str
        What is counted, such as ``" samples"``.
    progress : bool, optional
        Whether to show the bar; None shows it on a terminal only.
    """
    label = printable(label)
    if len(label) > MAX_LABEL_CHARACTERS:
        label = f"{label[: MAX_LABEL_CHARACTERS // 2]}…{label[-MAX_LABEL_CHARACTERS // 2 + 1 :]}"
    return tqdm(
        desc=label,
        total=total,
        unit=unit,
        unit_scale=unit == "B" or total >= 1000,
        disable=None if progress is None else not progress,
        file=sys.stderr,
    )


@contextlib.contextmanager
def sample_bar(
    label: str, n_samples: int, sample_bytes: Mapping[str, int], progress: bool | None
) -> Iterator[Callable[[str, int], None]]:
    """Show a progress bar that counts samples of several variables, each weighted by its size.

    Parameters
    ----------
    label : str
        What is done, to what.
    n_samples : int
        The number of samples to process.
    sample_bytes : mapping
        From the name of each variable to the bytes of one of its samples.
    progress : bool, optional
        Whether to show the bar; None shows it on a terminal only.

    Yields
    ------
    callable
        ``advance(name, n)``, to be called when ``n`` samples of a variable are done.
    """
    bytes_of_all = max(1, sum(sample_bytes.values()))
    done_bytes = 0
    with progress_bar(label, n_samples, " samples", progress) as bar:

        def advance(name: str, n: int) -> None:
            nonlocal done_bytes
            done_bytes += n * sample_bytes.get(name, 0)
            bar.update(done_bytes // bytes_of_all - bar.n)

        yield advance
