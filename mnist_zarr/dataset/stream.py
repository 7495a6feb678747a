"""The stream of samples of an epoch: read window by window, shuffled, and cut into batches."""

from __future__ import annotations

import functools
import itertools
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.blocks import Positions, bytes_per_sample, chunks_of_samples
from mnist_zarr.dataset.formulas import without_formulas
from mnist_zarr.dataset.lazy import is_lazy, without_selection
from mnist_zarr.dataset.schema import IMAGE, LABEL
from mnist_zarr.dataset.windows import (
    MAX_DEVIATION,
    WindowPlan,
    class_deviation,
    count_classes,
    plan_windows,
)
from mnist_zarr.errors import OptionError

# The share of the window for what is being read. The rest is for samples to draw from, and for
# batches that are ready while the next samples are read.
READING_SHARE = 1 / 8
MAX_READING_THREADS = 8
# Bytes of batches that are made ahead, if all data are in memory: there is nothing to wait for.
READY_BYTES = 1 << 20
# A sample has a position and a place in the shuffled order, in addition to its pixels.
INDEX_BYTES = 16


class SampleStream:
    """The samples of a Dataset in the shuffled order of each epoch.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` and ``label``.
    coords : tuple of str
        Coordinates that batches have in addition.
    size : int
        Samples in a batch.
    window : int
        Bytes in memory.
    seed : int or None
        None keeps the order of the Dataset.

    Attributes
    ----------
    n_samples : int
        Samples in an epoch.
    plan : WindowPlan
        How they are dealt into windows.
    ready_bytes : int
        How many bytes of batches should be made ahead.

    Raises
    ------
    OptionError
        If the window is too small for a batch, a chunk, or a good shuffle.
    """

    def __init__(
        self, ds: xr.Dataset, coords: tuple[str, ...], size: int, window: int, seed: int | None
    ) -> None:
        images, self._formulas = without_formulas(ds[IMAGE].variable)
        self._labels = ds[LABEL].values
        self._others = [ds[name].values for name in coords]
        self._batch = functools.partial(_make_batch, coords)
        self._size = size
        self.n_samples = len(images)
        sample_bytes = bytes_per_sample(images) + INDEX_BYTES
        at_once = max(1, int(window * READING_SHARE) // sample_bytes)
        self._reader = _ChunkReader(images, at_once)
        if self._reader.is_in_memory or self.n_samples * sample_bytes <= window:
            self._reader.keep_all()
            self.ready_bytes = READY_BYTES
            self.plan = plan_windows([self.n_samples], self.n_samples, seed)
        else:
            window_samples = (window // sample_bytes - at_once) // 2
            self.ready_bytes = window_samples * sample_bytes
            self.plan = self._plan(window, window_samples, seed)

    def _plan(self, window: int, window_samples: int, seed: int | None) -> WindowPlan:
        hold = f"`window`: {window:,} bytes hold {window_samples:,} samples to draw from"
        if window_samples < self._size:
            raise OptionError(
                f"{hold}, fewer than a batch of {self._size:,}; give a larger `window` or a "
                "smaller `size`"
            )
        lengths = [_length(chunk) for chunk in self._reader.chunks]
        counts = None if seed is None else count_classes(self._labels, self._reader.chunks)
        needed = max(window_samples, *lengths)
        plan = plan_windows(lengths, needed, seed)
        while counts is not None and class_deviation(plan, counts, self._size) > MAX_DEVIATION:
            needed *= 2
            plan = plan_windows(lengths, needed, seed)
        if needed == window_samples:
            return plan
        purpose = f"chunks of {max(lengths):,}" + ("" if seed is None else " and a good shuffle")
        enough = -(-needed * window // window_samples)
        raise OptionError(
            f"{hold}, too few for {purpose}; give `window={enough}`, open the "
            "store with `chunks=None`, or build it with `order='shuffled'`"
        )

    def batches(self, epoch: int, start: int, stop: int) -> Iterator[Any]:
        """Yield the samples ``start`` to ``stop`` (not included) of the stream in batches."""
        parts: list[list[npt.NDArray[Any]]] = []
        missing = self._size
        for images, positions, order in self._windows(epoch, start, stop):
            bounds = [0, *range(missing, len(order), self._size), len(order)]
            for first, last in itertools.pairwise(bounds):
                drawn = order[first:last]
                places = drawn if positions is None else positions[drawn]
                others = [values[places] for values in self._others]
                parts.append([images[drawn], self._labels[places], *others])
                missing -= last - first
                if not missing:
                    yield self._join(parts)
                    parts, missing = [], self._size
            del images  # before the next window is read
        if parts:
            yield self._join(parts)

    def _windows(self, epoch: int, start: int, stop: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the images of each window, their positions, and the order to draw them in."""
        begin = 0
        for window, chunks in enumerate(self.plan.windows(epoch)):
            n_samples = int(self.plan.chunk_samples[chunks].sum())
            first, last = max(start - begin, 0), min(stop - begin, n_samples)
            if first < last:
                order = self.plan.sample_order(epoch, window, n_samples)[first:last]
                yield *self._reader.read(chunks), order
            begin += n_samples

    def _join(self, parts: list[list[npt.NDArray[Any]]]) -> Any:
        fields = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        images, *others = fields
        for formula in self._formulas:
            images = formula(images)
        return self._batch(images, *others)


class _ChunkReader:
    """The samples of some chunks of a variable, or of all, which are kept."""

    def __init__(self, variable: xr.Variable, at_once: int) -> None:
        self.chunks = chunks_of_samples(variable)
        self.is_in_memory = variable.chunks is None and not is_lazy(variable)
        self._variable = variable
        self._source, self._selected = without_selection(variable)
        self._at_once = at_once
        self._keeps_all = False
        self._all: npt.NDArray[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_all": None}  # another process reads them again

    def keep_all(self) -> None:
        """Let the first :meth:`read` read all chunks, and each return them."""
        self._keeps_all = True

    def read(self, numbers: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64] | None]:
        """Return the samples of these chunks, and their positions unless they are all in order."""
        if self._keeps_all:
            if self._all is None:
                self._all = self._read_all()
            return self._all, None
        runs = list(self._runs(self.chunks[number] for number in numbers))
        ends = np.cumsum([_length(run) for run in runs]).tolist()
        places = [slice(*bounds) for bounds in itertools.pairwise([0, *ends])]
        return self._fill(runs, places, ends[-1]), np.concatenate([_as_array(run) for run in runs])

    def _read_all(self) -> npt.NDArray[Any]:
        if self.is_in_memory:
            return np.asarray(self._variable.values)
        runs = list(self._runs(self.chunks))
        return self._fill(runs, runs, len(self._variable))

    def _runs(self, chunks: Iterable[Positions]) -> Iterator[Positions]:
        """Join neighbouring chunks, as far as they may be read at once."""
        chunks = iter(chunks)
        run = next(chunks)
        for chunk in chunks:
            joined = _join_neighbours(run, chunk)
            # Half of what may be read at once: one run is copied while the next one is decoded.
            if joined is not None and self._read_length(joined) <= self._at_once // 2:
                run = joined
            else:
                yield run
                run = chunk
        yield run

    def _fill(
        self, runs: Sequence[Positions], places: Sequence[Positions], n_samples: int
    ) -> npt.NDArray[Any]:
        """Return an array with the samples of each run in its place."""
        samples = np.empty((n_samples, *self._variable.shape[1:]), self._variable.dtype)

        def fill(run: Positions, place: Positions) -> None:
            samples[place] = self._load(run)

        n_threads = self._at_once // max(map(self._read_length, runs))
        with ThreadPoolExecutor(min(max(n_threads, 1), MAX_READING_THREADS)) as threads:
            for _ in threads.map(fill, runs, places):
                pass
        return samples

    def _read_length(self, run: Positions) -> int:
        """Return how many samples are read for those of a run."""
        if self._selected is None:
            return _length(run)
        return int(np.ptp(self._selected[run])) + 1

    def _load(self, run: Positions) -> npt.NDArray[Any]:
        if self._selected is not None:
            # Zarr takes five times as long to pick scattered samples.
            selected = self._selected[run]
            first = int(selected.min())
            samples = self._source[first : int(selected.max()) + 1].values
            is_range = len(selected) == len(samples) and (np.diff(selected) == 1).all()
            return samples if is_range else samples[selected - first]
        variable = self._variable[run]
        if variable.chunks is None:
            return np.asarray(variable.values)
        # The threads of dask would be missing after a fork; and the name of the array may be that
        # of another one: see without_formulas.
        return np.asarray(variable.data.compute(scheduler="synchronous"))


@functools.cache
def _batch_type(coords: tuple[str, ...]) -> Any:
    make_type: Any = namedtuple
    batch = make_type("Batch", ["images", "labels", *coords], rename=True)
    # It is made on demand, so that pickle would not find it by its name.
    batch.__reduce__ = lambda self: (_make_batch, (coords, *self))
    return batch


def _make_batch(coords: tuple[str, ...], *values: Any) -> Any:
    return _batch_type(coords)(*values)


def _length(positions: Positions) -> int:
    return positions.stop - positions.start if isinstance(positions, slice) else len(positions)


def _as_array(positions: Positions) -> npt.NDArray[np.int64]:
    if isinstance(positions, slice):
        return np.arange(positions.start, positions.stop)
    return positions


def _join_neighbours(one: Positions, other: Positions) -> slice | None:
    if isinstance(one, slice) and isinstance(other, slice) and one.stop == other.start:
        return slice(one.start, other.stop)
    return None
