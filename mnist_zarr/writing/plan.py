"""The write plan: how samples are cut into chunks, and where each is stored.

Pure: integers and label arrays in, frozen values out, no files.

*Stored* positions number the samples of the store, *source* positions those of
the source. In source order they are the same. In label order the samples of
one class lie together, each class in source order::

    source position    0 1 2 3 4 5 6      label  5 0 4 5 0 5 4
    stored position    4 0 2 5 1 6 3      label  0 0 4 4 5 5 5   (as stored)

In shuffled order they are a random permutation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mnist_zarr.errors import OptionError

Order = Literal["source", "label", "shuffled"]
# Shape (sample,): where samples are along the dimension ``sample``, of the store or of the source.
Positions = npt.NDArray[np.int64]
# Label order remembers the class counts every so many samples.
COUNT_SPACING_SAMPLES = 1 << 16


@dataclass(frozen=True)
class Chunking:
    """How the dimension ``sample`` is cut.

    Attributes
    ----------
    n_samples : int
        Length of the dimension.
    chunk_samples : int
        Samples in one Zarr chunk, the unit that is compressed.
    shard_samples : int or None
        Samples in one shard, a multiple of ``chunk_samples``; None without
        shards.
    """

    n_samples: int
    chunk_samples: int
    shard_samples: int | None = None

    @property
    def object_samples(self) -> int:
        """Samples in one stored object, the unit that is written."""
        return self.shard_samples or self.chunk_samples

    @property
    def n_objects(self) -> int:
        """Number of stored objects."""
        return -(-self.n_samples // self.object_samples)

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first sample of object ``index`` and the one after its last."""
        start = index * self.object_samples
        return start, min(start + self.object_samples, self.n_samples)

    def objects(self) -> Iterator[tuple[int, int]]:
        """Yield the bounds of one object after the other."""
        return map(self.bounds, range(self.n_objects))

    @property
    def without_shards(self) -> Chunking:
        """The same chunks, each by itself."""
        return Chunking(self.n_samples, self.chunk_samples)


def plan_chunks(
    n_samples: int, sample_bytes: int, chunk_bytes: int, shard_bytes: int | None = None
) -> Chunking:
    """Cut samples into chunks of at most ``chunk_bytes`` and nearly equal length.

    Parameters
    ----------
    n_samples : int
        Number of samples.
    sample_bytes : int
        Uncompressed bytes of one sample.
    chunk_bytes : int
        Upper bound of the uncompressed bytes in a chunk; a single sample may
        exceed it.
    shard_bytes : int, optional
        Upper bound of the uncompressed bytes in a shard; a single chunk may
        exceed it. By default, or with 0, no shards.

    Raises
    ------
    OptionError
        If a shard would be smaller than a chunk.

    Examples
    --------
    >>> plan_chunks(70_000, 784, 2_000_000)
    Chunking(n_samples=70000, chunk_samples=2500, shard_samples=None)
    """
    if shard_bytes and shard_bytes < chunk_bytes:
        raise OptionError(
            f"`shard_bytes`: a shard holds whole chunks, but {shard_bytes} is less than "
            f"`chunk_bytes`, {chunk_bytes}"
        )
    most = max(1, chunk_bytes // max(1, sample_bytes))
    n_chunks = max(1, -(-n_samples // most))
    chunk_samples = max(1, -(-n_samples // n_chunks))
    if not shard_bytes:
        return Chunking(n_samples, chunk_samples)
    chunks_per_shard = shard_bytes // max(1, chunk_samples * sample_bytes)
    chunks_per_shard = max(1, min(chunks_per_shard, n_chunks))
    return Chunking(n_samples, chunk_samples, chunk_samples * chunks_per_shard)


@dataclass(frozen=True)
class SourceOrder:
    """Samples are stored as they come."""

    n_samples: int

    def stored_positions(self, start: int, stop: int) -> Positions:
        """Return where the source samples ``start`` to ``stop`` are stored."""
        return np.arange(start, stop)

    def source_positions(self, start: int, stop: int) -> Positions:
        """Return which source samples are stored at ``start`` to ``stop``."""
        return np.arange(start, stop)


@dataclass(frozen=True, eq=False)
class LabelOrder:
    """Samples are stored class by class, each class in source order.

    Memory: the code of each sample's class, one byte up to 256 classes.

    Attributes
    ----------
    codes : numpy.ndarray
        Shape (sample,), unsigned: the rank of each sample's label.
    starts : numpy.ndarray
        Shape (class + 1,): where each class begins in the store.
    counts_before : numpy.ndarray
        Shape (block, class): how many samples of each class come before each
        block of ``COUNT_SPACING_SAMPLES`` source samples.
    """

    codes: npt.NDArray[Any]
    starts: Positions
    counts_before: npt.NDArray[np.int64]

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.codes)

    def stored_positions(self, start: int, stop: int) -> Positions:
        """Return where the source samples ``start`` to ``stop`` are stored."""
        block = min(start // COUNT_SPACING_SAMPLES, len(self.counts_before) - 1)
        n_classes = len(self.starts) - 1
        skipped = self.codes[block * COUNT_SPACING_SAMPLES : start]
        before = self.counts_before[block] + np.bincount(skipped, minlength=n_classes)
        codes = self.codes[start:stop]
        by_class = np.argsort(codes, kind="stable")
        counts = np.bincount(codes, minlength=n_classes)
        first_in_part = np.cumsum(counts) - counts
        ordered = codes[by_class]
        positions = np.empty(len(codes), dtype=np.int64)
        positions[by_class] = (
            self.starts[ordered] + before[ordered] + np.arange(len(codes)) - first_in_part[ordered]
        )
        return positions

    def source_positions(self, start: int, stop: int) -> Positions:
        """Return which source samples are stored at ``start`` to ``stop``."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        parts = [
            self._members(
                code,
                max(start, int(self.starts[code])) - int(self.starts[code]),
                min(stop, int(self.starts[code + 1])) - int(self.starts[code]),
            )
            for code in range(max(first, 0), last)
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def classes_between(self, start: int, stop: int) -> int:
        """Return how many classes have samples stored at ``start`` to ``stop``."""
        first = np.searchsorted(self.starts, start, side="right") - 1
        last = np.searchsorted(self.starts, stop, side="left")
        return int(np.count_nonzero(np.diff(self.starts[first : last + 1])))

    def _members(self, code: int, first: int, last: int) -> Positions:
        """Return the source positions of members ``first`` to ``last`` of a class."""
        if first >= last:
            return np.empty(0, dtype=np.int64)
        before = self.counts_before[:, code]
        block = int(np.searchsorted(before, first, side="right")) - 1
        end_block = int(np.searchsorted(before, last, side="left"))
        begin = block * COUNT_SPACING_SAMPLES
        window = self.codes[begin : end_block * COUNT_SPACING_SAMPLES]
        members = np.flatnonzero(window == code) + begin
        return members[first - before[block] : last - before[block]]


@dataclass(frozen=True, eq=False)
class ShuffledOrder:
    """Samples are stored in a random order.

    Memory: two times four bytes a sample, up to 2**32 samples.

    Attributes
    ----------
    stored, sources : numpy.ndarray
        Shape (sample,), unsigned: where each source sample is stored, and which
        source sample is stored at each position.
    """

    stored: npt.NDArray[Any]
    sources: npt.NDArray[Any]

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.stored)

    def stored_positions(self, start: int, stop: int) -> Positions:
        """Return where the source samples ``start`` to ``stop`` are stored."""
        return self.stored[start:stop].astype(np.int64)

    def source_positions(self, start: int, stop: int) -> Positions:
        """Return which source samples are stored at ``start`` to ``stop``."""
        return self.sources[start:stop].astype(np.int64)


SampleOrder = SourceOrder | LabelOrder | ShuffledOrder


def plan_shuffled_order(n_samples: int, seed: int) -> ShuffledOrder:
    """Plan a random order.

    Examples
    --------
    >>> order = plan_shuffled_order(5, seed=0)
    >>> order.sources[order.stored]
    array([0, 1, 2, 3, 4], dtype=uint32)
    """
    dtype = np.uint32 if n_samples <= 2**32 else np.uint64
    sources = np.random.default_rng(seed).permutation(n_samples).astype(dtype)
    stored = np.empty_like(sources)
    stored[sources] = np.arange(n_samples, dtype=dtype)
    return ShuffledOrder(stored, sources)


def factorize_labels(
    blocks: Iterable[npt.NDArray[Any]],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the distinct labels, ascending, and the code of each sample: the rank of its label.

    Memory: two times one byte a sample up to 256 classes.

    Examples
    --------
    >>> factorize_labels([np.array([7, 3]), np.array([7, 5])])
    (array([3, 5, 7]), array([2, 0, 2, 1], dtype=uint8))
    """
    parts = []  # of each block its distinct labels, and codes of these
    for block in blocks:
        distinct, codes = np.unique(block, return_inverse=True)
        parts.append((distinct, codes.astype(np.min_scalar_type(len(distinct) - 1))))
    if not parts:
        return np.empty(0), np.empty(0, np.uint8)
    labels = np.unique(np.concatenate([distinct for distinct, _ in parts]))
    dtype = np.min_scalar_type(len(labels) - 1)
    ranks = (np.searchsorted(labels, distinct).astype(dtype) for distinct, _ in parts)
    return labels, np.concatenate([r[codes] for r, (_, codes) in zip(ranks, parts, strict=True)])


def plan_label_order(codes: npt.NDArray[Any], n_classes: int) -> LabelOrder:
    """Plan the label order.

    Parameters
    ----------
    codes : numpy.ndarray
        Shape (sample,), unsigned integers below ``n_classes``.
    n_classes : int
        Number of classes.
    """
    blocks = range(0, max(len(codes), 1), COUNT_SPACING_SAMPLES)
    counts = np.array(
        [
            np.bincount(codes[begin : begin + COUNT_SPACING_SAMPLES], minlength=n_classes)
            for begin in blocks
        ],
        dtype=np.int64,
    )
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int64)
    return LabelOrder(codes, starts, np.cumsum(counts, axis=0) - counts)


def scatter_passes(
    order: SampleOrder, chunking: Chunking, max_open_objects: int
) -> Iterator[range]:
    """Group stored objects so that one pass over the source fills each group.

    While samples of ``k`` classes are being scattered, at most ``2 k - 1``
    objects are open at a time: the one that each class is filling, and those
    that two neighbouring classes share. As a rule one pass is enough; only very
    many classes of large objects need more. In shuffled order all objects of a
    group are open at a time.

    Yields
    ------
    range
        Indices of stored objects.
    """
    if isinstance(order, SourceOrder):
        if chunking.n_objects:
            yield range(chunking.n_objects)
        return
    first = 0
    for index in range(chunking.n_objects):
        n_open = index + 1 - first
        if isinstance(order, LabelOrder):
            start, stop = chunking.bounds(first)[0], chunking.bounds(index)[1]
            n_open = min(n_open, 2 * order.classes_between(start, stop) - 1)
        if n_open > max_open_objects and index > first:
            yield range(first, index)
            first = index
    if first < chunking.n_objects:
        yield range(first, chunking.n_objects)
