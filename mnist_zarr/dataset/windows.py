"""The shuffle plan: which chunks of the samples are in memory together, and in what order.

Pure: sizes and labels in, integers out. The chunks are dealt into *windows*, of which one is held
at a time, as cards are dealt to players: so each window has chunks from all over the data, even if
they are sorted. Before that, neighbouring chunks change places at random, so that in each epoch
other ones come together::

    chunk      0 1 2 3 4 5 6 7 8
    shuffled   1 0 3 2 4 5 7 6 8
    window     0 1 2 0 1 2 0 1 2
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.blocks import Positions
from mnist_zarr.dataset.classes import MAX_CLASSES

# The class shares of a batch deviate from those of a global shuffle by at most this factor.
MAX_DEVIATION = 1.5
# Number of epochs that are looked at to tell.
TRIED_EPOCHS = 4


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """How chunks are dealt into windows.

    Attributes
    ----------
    chunk_samples : numpy.ndarray
        Shape (chunk,): samples in each chunk.
    n_windows : int
        Number of windows, at most that of chunks.
    seed : int or None
        None keeps the order of the data.
    """

    chunk_samples: npt.NDArray[np.int64]
    n_windows: int
    seed: int | None

    def windows(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the chunks of each window of an epoch, in the order of the data."""
        chunks = np.arange(len(self.chunk_samples))
        if self.seed is None:
            yield from np.array_split(chunks, self.n_windows)
            return
        # Windows have the numbers 0, 1, ...: see sample_order.
        rng = self._rng(epoch, self.n_windows)
        # Chunks that are further apart may not change places: the more evenly a class is dealt,
        # the nearer are its shares to those of all samples.
        n_neighbours = max(2, self.n_windows // 8)
        keys = chunks // n_neighbours + rng.random(len(chunks))
        first = rng.integers(self.n_windows)
        window_of_chunk = np.empty_like(chunks)
        window_of_chunk[np.argsort(keys)] = (chunks + first) % self.n_windows
        for window in rng.permutation(self.n_windows):
            yield np.flatnonzero(window_of_chunk == window)

    def sample_order(self, epoch: int, window: int, n_samples: int) -> npt.NDArray[np.int64]:
        """Return the order of the samples within a window."""
        if self.seed is None:
            return np.arange(n_samples)
        return self._rng(epoch, window).permutation(n_samples)

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=numbers))


def plan_windows(chunk_samples: Sequence[int], max_samples: int, seed: int | None) -> WindowPlan:
    """Deal chunks into windows of at most ``max_samples`` samples in any epoch.

    Parameters
    ----------
    chunk_samples : sequence of int
        Samples in each chunk.
    max_samples : int
        Samples in a window; at least those of the largest chunk.
    seed : int or None
        None keeps the order of the data.

    Examples
    --------
    >>> plan_windows([10] * 7, 40, seed=0).n_windows
    2
    >>> [window.tolist() for window in plan_windows([10] * 7, 40, seed=None).windows(epoch=0)]
    [[0, 1, 2, 3], [4, 5, 6]]
    """
    samples = np.asarray(chunk_samples, dtype=np.int64)
    # A window may get the largest of all chunks.
    of_largest = np.cumsum(np.sort(samples)[::-1])
    chunks_per_window = int(np.searchsorted(of_largest, max_samples, side="right"))
    return WindowPlan(samples, -(-len(samples) // chunks_per_window), seed)


def count_classes(labels: npt.NDArray[Any], chunks: Sequence[Positions]) -> npt.NDArray[np.float64]:
    """Return how many samples of each class every chunk has: shape (chunk, class).

    More labels than there can be classes are taken for so many classes of neighbouring values.
    """
    classes = np.unique(labels)
    n_groups = min(len(classes), MAX_CLASSES)
    counts = np.empty((len(chunks), n_groups))
    for number, chunk in enumerate(chunks):
        codes = np.searchsorted(classes, labels[chunk]) * n_groups // len(classes)
        counts[number] = np.bincount(codes, minlength=n_groups)
    return counts


def class_deviation(plan: WindowPlan, counts: npt.NDArray[np.float64], batch_samples: int) -> float:
    """Return how much more the class shares of batches deviate than in a global shuffle.

    The root of the mean square over windows and classes, to be expected of
    batches that are drawn from the windows of a few epochs. A batch has the
    variance of the draw, that of a multinomial distribution, and that of the
    shares of the windows.

    Parameters
    ----------
    plan : WindowPlan
        Of shuffled windows.
    counts : numpy.ndarray
        Shape (chunk, class): see :func:`count_classes`.
    batch_samples : int
        Samples in a batch.

    Examples
    --------
    >>> sorted_labels = np.repeat(np.eye(4), 8, axis=0) * 10  # 4 classes, 8 chunks of each
    >>> few, many = (plan_windows([10] * 32, n, seed=0) for n in (20, 160))
    >>> class_deviation(few, sorted_labels, 20) > 2 > class_deviation(many, sorted_labels, 20)
    True
    """
    shares = counts.sum(axis=0) / counts.sum()
    drawn = (shares * (1 - shares)).sum() / batch_samples
    if plan.n_windows == 1 or not drawn:  # all samples, or a single class
        return 1.0
    windows = [window for epoch in range(TRIED_EPOCHS) for window in plan.windows(epoch)]
    in_windows = np.stack([counts[window].sum(axis=0) for window in windows])
    surplus = in_windows / in_windows.sum(axis=1, keepdims=True) - shares
    between = np.square(surplus).sum(axis=1).mean()
    return float(np.sqrt(1 + between / drawn))
