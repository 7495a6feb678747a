"""Shuffled batches for training, read chunk by chunk.

The samples of an epoch form one *stream*: the windows of :mod:`mnist_zarr.dataset.windows`, one
after the other, each shuffled. A batch is a number of consecutive samples of it. The stream depends
on the data, the seed and the epoch alone, so that every division of the work is a range of it: the
part of a rank, the share of a worker, and what remains of an epoch that is resumed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mnist_zarr.dataset.options import whole_number
from mnist_zarr.dataset.schema import IMAGE, LABEL, SAMPLE, require, validate
from mnist_zarr.dataset.stream import SampleStream
from mnist_zarr.errors import OptionError, SchemaError
from mnist_zarr.pool import prefetch

WINDOW_BYTES = 64_000_000
# Called with a batch and its own random numbers; what it returns is given instead of the batch.
Transform = Callable[[Any, np.random.Generator], Any]


def batches(
    ds: xr.Dataset,
    size: int = 256,
    *,
    shuffle: bool = True,
    seed: int = 0,
    window: int = WINDOW_BYTES,
    drop_last: bool = False,
    part: tuple[int, int] = (0, 1),
    transform: Transform | None = None,
    coords: Sequence[str] = (),
) -> Batches:
    """Iterate over the samples of a Dataset in shuffled batches of NumPy arrays.

    Each iteration is one epoch and has another order. Every chunk of a store, or
    of a dask array, is read once per epoch, by a thread that reads ahead; at
    most ``window`` bytes are in memory, whatever the size of the data. Data that
    fit into the window are read once, and shuffled as a whole.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image`` and ``label``: an opened store, with or without dask, a
        selection, rescaled, standardized, concatenated, or in memory. In a
        store in label order, ``chunks=None`` gives smaller chunks than dask,
        and so a better shuffle.
    size : int
        Samples in a batch; the last one of an epoch may have fewer.
    shuffle : bool
        False gives the samples in the order of ``ds``.
    seed : int
        The same data, seed and epoch give the same batches.
    window : int
        Bytes in memory: the samples to draw from, what is read ahead, and
        batches that are ready. Rescaled images count as the integers they are
        made of, from which each batch is computed.
    drop_last : bool
        Whether to leave out a last batch of fewer samples. Then all ranks have
        equally many batches.
    part : (rank, world)
        The part of the samples that this process takes, of ``world`` parts of
        the same length, give or take one sample. Neighbouring parts may both
        read the window that is cut between them.
    transform : callable, optional
        ``transform(batch, rng)`` is called with each batch in the thread that
        reads ahead, and its result is given instead. ``rng`` is a
        :class:`numpy.random.Generator` that depends on the seed, the epoch and
        the number of the batch, so that random augmentations can be repeated.
    coords : sequence of str
        Further coordinates along ``sample``, such as ``"writer"``.

    Returns
    -------
    Batches
        Iterable any number of times. Each batch is a named tuple of arrays:
        ``images`` (size, row, col), ``labels`` (size,), and one of each of
        ``coords``. The label of samples without one is -1, as in scikit-learn.

    Raises
    ------
    SchemaError
        If there is no ``image``, ``label`` or sample.
    OptionError
        If an option is outside its range; if the window is too small for the
        chunks and batches, or to shuffle well: the class shares of the batches
        would deviate from those of a global shuffle by more than a factor of
        1.5.
    StoreError, SourceError, FileFormatError
        During the iteration, if the store or the files cannot be read.

    Examples
    --------
    >>> import mnist_zarr
    >>> train = mnist_zarr.select(mnist_zarr.open_dataset("mnist"), split="train")
    >>> training = batches(mnist_zarr.rescale(train), 256)
    >>> len(training)
    235
    >>> for images, labels in training:
    ...     pass  # one step of training
    >>> images.shape, images.dtype, labels.shape
    ((96, 28, 28), dtype('float32'), (96,))
    """
    options = _check_options(size, shuffle, seed, window, drop_last, part)
    if isinstance(coords, str) or not isinstance(coords, Sequence):
        raise OptionError(f"`coords`: expected a list of names, got {coords!r}")
    return Batches(ds, options, transform, tuple(coords))


class _Options(NamedTuple):
    """What decides, with the data, which samples each batch has; see :func:`batches`."""

    size: int
    shuffle: bool
    seed: int
    window: int
    drop_last: bool
    part: tuple[int, int]

    def range_of(self, n_samples: int) -> tuple[int, int]:
        """Return where in the stream of all samples the part begins and ends."""
        rank, world = self.part
        if self.drop_last:
            share = n_samples // world // self.size * self.size
            return rank * (n_samples // world), rank * (n_samples // world) + share
        return rank * n_samples // world, (rank + 1) * n_samples // world


def _check_options(
    size: int, shuffle: bool, seed: int, window: int, drop_last: bool, part: Sequence[int]
) -> _Options:
    if not isinstance(part, Sequence) or len(part) != 2:
        raise OptionError(f"`part`: expected (rank, world), got {part!r}")
    world = whole_number("`part`: world", part[1], 1)
    rank = whole_number("`part`: rank", part[0], 0)
    if rank >= world:
        raise OptionError(f"`part`: expected a rank below world {world}, got {rank}")
    return _Options(
        whole_number("`size`", size, 1),
        bool(shuffle),
        whole_number("`seed`", seed, 0),
        whole_number("`window`", window, 1),
        bool(drop_last),
        (rank, world),
    )


class Batches:
    """The batches of a Dataset, epoch by epoch; made by :func:`batches`.

    Every ``iter()`` begins the next epoch. ``state_dict`` and
    ``load_state_dict`` continue in the middle of one, as torchdata's
    ``StatefulDataLoader`` expects.

    Examples
    --------
    >>> from mnist_zarr.dataset.schema import make_dataset
    >>> ds = make_dataset(np.zeros((10, 2, 2)), label=np.arange(10))
    >>> training = batches(ds, 4)
    >>> begun = iter(training)
    >>> first = next(begun)
    >>> state = training.state_dict()
    >>> expected = [batch.labels.tolist() for batch in begun]
    >>> training.load_state_dict(state)
    >>> [batch.labels.tolist() for batch in training] == expected
    True
    """

    def __init__(
        self,
        ds: xr.Dataset,
        options: _Options,
        transform: Transform | None,
        coords: tuple[str, ...],
    ) -> None:
        _check_variables(ds, coords)
        seed = options.seed if options.shuffle else None
        self._samples = SampleStream(ds, coords, options.size, options.window, seed)
        self._options = options
        self._transform = transform
        self._start, self._stop = options.range_of(self._samples.n_samples)
        if not len(self):
            raise OptionError(
                f"`part` {options.part}: of {self._samples.n_samples:,} samples there is no batch "
                f"of size {options.size}; give a smaller `size`, or `drop_last=False`"
            )
        self._next = self._position = 0, 0  # epoch, batch

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-(self._stop - self._start) // self._options.size)

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch."""
        return self.iter_share(0, 1)

    def iter_share(self, index: int, count: int) -> Iterator[Any]:
        """Begin the next epoch of a worker that takes one of ``count`` shares of the batches.

        Yields
        ------
        Batch
            Those of this share: the shares have each batch of the epoch once.
        """
        epoch, batch = self._next
        first, last = (len(self) * end // count for end in (index, index + 1))
        self._next = epoch + 1, 0
        self._position = epoch, batch
        return self._run(epoch, max(first, batch), last)

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``iter()`` begin this epoch, counted from 0."""
        self._next = self._position = whole_number("`epoch`", epoch, 0), 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the latest iteration is: its epoch, and how many batches it has given."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch, "plan": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next ``iter()`` continue where the iteration of this state was.

        Raises
        ------
        OptionError
            If the state is of other data or options, or no state.
        """
        try:
            epoch, batch, plan = (state[name] for name in ("epoch", "batch", "plan"))
        except (KeyError, TypeError) as error:
            raise OptionError(
                f"`state`: expected a state_dict() of batches, got {state!r}"
            ) from error
        if plan != self._fingerprint:
            raise OptionError(
                "`state`: is of other batches: data, chunks, size, shuffle, seed, window, "
                "drop_last or part differ"
            )
        self._next = self._position = (
            whole_number("`state`: epoch", epoch, 0),
            whole_number("`state`: batch", batch, 0),
        )

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self._options).encode())
        digest.update(self._samples.plan.chunk_samples.tobytes())
        return digest.hexdigest()[:16]

    def _run(self, epoch: int, first: int, last: int) -> Iterator[Any]:
        made = self._make(epoch, first, last)
        with contextlib.closing(prefetch(made, self._samples.ready_bytes, _bytes_of)) as ready:
            for number, batch in enumerate(ready, first + 1):
                self._position = (epoch, number) if number < last else (epoch + 1, 0)
                yield batch

    def _make(self, epoch: int, first: int, last: int) -> Iterator[Any]:
        """Yield the batches ``first`` to ``last`` (not included) of an epoch."""
        size = self._options.size
        start = self._start + first * size
        stop = min(self._start + last * size, self._stop)
        for batch in self._samples.batches(epoch, start, stop):
            if self._transform is None:
                yield batch
            else:
                key = (epoch, 0, start)  # windows have keys of two numbers
                seeds = np.random.SeedSequence(self._options.seed, spawn_key=key)
                yield self._transform(batch, np.random.default_rng(seeds))
            start += size


def _check_variables(ds: xr.Dataset, coords: tuple[str, ...]) -> None:
    validate(ds)
    require(ds, "batches", IMAGE, LABEL)
    if ds[IMAGE].dims[:1] != (SAMPLE,):
        raise SchemaError(f"'image': expected 'sample' first, got {ds[IMAGE].dims}")
    if not ds.sizes[SAMPLE]:
        raise SchemaError("the Dataset has no samples to make batches of")
    along_sample = [str(name) for name, coord in ds.coords.items() if coord.dims == (SAMPLE,)]
    for name in coords:
        if name not in along_sample:
            raise OptionError(
                f"`coords`: no coordinate {name!r} along 'sample'; choose from "
                f"{', '.join(along_sample)}"
            )


def _bytes_of(batch: Any) -> int:
    values = batch if isinstance(batch, tuple | list) else [batch]
    return sum(getattr(value, "nbytes", 0) for value in values)
