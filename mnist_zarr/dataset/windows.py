"""The shuffle plan: which chunks of the samples are in memory together, and in what order.

Pure: sizes and labels in, integers out. The chunks are dealt into *windows*, of which one is held
at a time. So that a window has chunks from all over the data, even if they are sorted, as many
neighbouring chunks as there are windows make a *stratum*, and each window gets one chunk of every
stratum::

    stratum    0 0 0  1 1 1  2 2 2
    chunk      0 1 2  3 4 5  6 7 8
    window     1 0 2  0 2 1  2 1 0      another permutation in each stratum and epoch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.blocks import Positions

# The class shares of a batch deviate from those of a global shuffle by at most this factor.
MAX_DEVIATION = 1.5
# Labels with more values than this count as so many classes of neighbouring values.
MAX_CLASSES = 256


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """How chunks are dealt into windows, the same for every epoch.

    Attributes
    ----------
    chunk_samples : numpy.ndarray
        Shape (chunk,): samples in each chunk.
    strata : numpy.ndarray
        Shape (stratum, window): the chunks of each stratum; -1 where there is none.
    seed : int or None
        None keeps the order of the data.
    """

    chunk_samples: npt.NDArray[np.int64]
    strata: npt.NDArray[np.int64]
    seed: int | None

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return int(self.strata.shape[1])

    def samples_of_strata(self) -> npt.NDArray[np.int64]:
        """Return the samples in each chunk of the strata; 0 where there is none."""
        return np.where(self.strata >= 0, self.chunk_samples[self.strata], 0)

    def windows(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the chunks of each window of an epoch, in the order of the data."""
        dealt = self.strata
        if self.seed is not None:
            # Windows have the numbers 0, 1, ...: see sample_order.
            dealt = self._rng(epoch, self.n_windows).permuted(dealt, axis=1)
        for window in dealt.T:
            yield window[window >= 0]

    def sample_order(self, epoch: int, window: int, n_samples: int) -> npt.NDArray[np.int64]:
        """Return the order of the samples within a window."""
        if self.seed is None:
            return np.arange(n_samples)
        return self._rng(epoch, window).permutation(n_samples)

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=numbers))


def plan_windows(chunk_samples: Sequence[int], max_samples: int, seed: int | None) -> WindowPlan:
    """Deal chunks into as few windows of at most ``max_samples`` samples as hold in any epoch.

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
    >>> plan_windows([10] * 7, 40, seed=0).strata.tolist()
    [[0, 1], [2, 3], [4, 5], [6, -1]]
    >>> plan_windows([10] * 7, 40, seed=None).strata.T.tolist()
    [[0, 1, 2, 3], [4, 5, 6, -1]]
    """
    samples = np.asarray(chunk_samples, dtype=np.int64)
    n_windows = max(1, -(-int(samples.sum()) // max_samples))
    while True:
        shape = (-(-len(samples) // n_windows), n_windows)
        strata = np.full(shape[0] * shape[1], -1)
        strata[: len(samples)] = np.arange(len(samples))
        strata = strata.reshape(shape) if seed is not None else strata.reshape(shape[::-1]).T
        plan = WindowPlan(samples, strata, seed)
        held = plan.samples_of_strata()
        # A shuffled window may get the largest chunk of every stratum.
        largest = held.max(axis=1).sum() if seed is not None else held.sum(axis=0).max()
        if largest <= max_samples:
            return plan
        n_windows += 1


def count_classes(labels: npt.NDArray[Any], chunks: Sequence[Positions]) -> npt.NDArray[np.float64]:
    """Return how many samples of each class every chunk has: shape (chunk, class)."""
    classes = np.unique(labels)
    n_groups = min(len(classes), MAX_CLASSES)
    counts = np.empty((len(chunks), n_groups))
    for number, chunk in enumerate(chunks):
        codes = np.searchsorted(classes, labels[chunk]) * n_groups // len(classes)
        counts[number] = np.bincount(codes, minlength=n_groups)
    return counts


def class_deviation(plan: WindowPlan, counts: npt.NDArray[np.float64], batch_samples: int) -> float:
    """Return how much more the class shares of batches deviate than in a global shuffle.

    The root of the mean square over windows and classes, to be expected of the
    random permutations of the strata. A batch that is drawn from a window of
    other class shares than all samples have has the variance of the draw, that
    of a multinomial distribution, and that of the shares of the windows.

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
    >>> [round(class_deviation(plan, sorted_labels, 20), 2) for plan in (few, many)]
    [2.77, 1.0]
    """
    if plan.n_windows == 1:
        return 1.0
    shares = counts.sum(axis=0) / counts.sum()
    # By how many samples each chunk has more of a class than its share; none for no chunk.
    surplus = np.pad(counts - shares * counts.sum(axis=1, keepdims=True), ((0, 1), (0, 0)))
    between = sum(surplus[stratum].var(axis=0) for stratum in plan.strata)
    window_samples = plan.samples_of_strata().min(axis=1).sum()  # at least
    drawn = (shares * (1 - shares)).sum() / batch_samples
    if not drawn:  # a single class
        return 1.0
    return float(np.sqrt(1 + np.sum(between) / window_samples**2 / drawn))
