"""The bar that shows how long work still takes."""

from __future__ import annotations

import sys

from tqdm import tqdm


def sample_bar(n_samples: int, progress: bool | None) -> tqdm[None]:
    """Return a bar of so many samples, as a context manager; see ``update``.

    Parameters
    ----------
    n_samples : int
        How many samples there are to work on.
    progress : bool or None
        Whether to show it; None shows it on a terminal only.
    """
    return tqdm(
        total=n_samples,
        unit=" samples",
        unit_scale=True,
        disable=None if progress is None else not progress,
        file=sys.stderr,
    )
