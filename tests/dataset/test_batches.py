"""Batches have every sample once, in an order that is random, repeatable and can be resumed."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.batches import batches
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.transform import rescale, standardize
from mnist_zarr.errors import MnistZarrError, OptionError, SchemaError, StoreError
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.pool import PREFETCH_THREAD
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.snapshot import LocalSnapshot
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.memory import traced_memory

N_SAMPLES = 1000
SAMPLE_BYTES = 12 + 16  # of the pixels and for the index
# A quarter of all samples: a half of this is drawn from, the other half is for ready batches.
SMALL_WINDOW = N_SAMPLES * SAMPLE_BYTES // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores in both orders, in chunks of 10 samples, and IDX files."""
    folder = tmp_path_factory.mktemp("batches")
    ds = digits(N_SAMPLES)
    for order in ("source", "label"):
        write_zarr(ds, folder / f"{order}.zarr", order=order, chunk_bytes=120)
    write_zarr(ds, folder / "rescaled.zarr", chunk_bytes=120, rescale=(0, 1))
    write_zarr(ds, folder / "sharded.zarr", chunk_bytes=120, shard_bytes=600)
    write_idx(ds.image.values, folder / "images-idx3-ubyte")
    write_idx(ds.label.values, folder / "labels-idx1-ubyte")
    return folder


Opener = Callable[[Path], xr.Dataset]


def opened(name: str, chunks: Any = None) -> Opener:
    return lambda folder: open_store(folder / f"{name}.zarr", chunks=chunks)


def concatenated(folder: Path) -> xr.Dataset:
    parts = [open_store(folder / "source.zarr", chunks={"sample": 10}) for _ in range(2)]
    parts[1] = parts[1].assign_coords(source_index=parts[1].source_index + N_SAMPLES)
    return xr.concat(parts, "sample")


FORMS: dict[str, Opener] = {
    "in memory": lambda folder: digits(N_SAMPLES),
    "dask": lambda folder: digits(N_SAMPLES).chunk(sample=70),
    "IDX files": lambda folder: open_idx(folder / "images-idx3-ubyte"),
    "opened": opened("source"),
    "opened, dask": opened("source", "auto"),
    "opened, dask, small chunks": opened("source", {"sample": 10}),
    "opened with xarray": lambda folder: xr.open_zarr(folder / "source.zarr"),
    "opened with xarray, no dask": lambda folder: xr.open_zarr(folder / "source.zarr", chunks=None),
    "label order": opened("label"),
    "label order, dask": opened("label", {"sample": 10}),
    "opens rescaled": opened("rescaled"),
    "shards": opened("sharded"),
    "concatenated": concatenated,
}
SELECTIONS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "all": lambda ds: ds,
    "range": lambda ds: ds.isel(sample=slice(33, 777)),
    "every third, from the end": lambda ds: ds.isel(sample=slice(None, None, -3)),
    "a class": lambda ds: ds.isel(sample=np.flatnonzero(ds.label.values != 1)),
    "permuted": lambda ds: ds.isel(sample=np.random.default_rng(3).permutation(900)),
    "cropped": lambda ds: ds.isel(row=slice(1, 3), col=[2, 0]),
}
CHANGES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "as it is": lambda ds: ds,
    "rescaled": rescale,
    "standardized": lambda ds: standardize(rescale(ds, 0, 1), 0.1307, 0.3081),
}


def n_prefetching() -> int:
    return sum(thread.name == PREFETCH_THREAD for thread in threading.enumerate())


def epoch_of(training: Any) -> list[Any]:
    return list(training)


def labels_of(made: list[Any]) -> list[list[Any]]:
    return [batch.labels.tolist() for batch in made]


def with_numbers(ds: xr.Dataset) -> xr.Dataset:
    """Number the samples, so that it can be told which ones a batch has."""
    return ds.assign_coords(number=("sample", np.arange(ds.sizes["sample"])))


def numbers_of(made: list[Any]) -> list[int]:
    return [int(number) for batch in made for number in batch.number]


SCALED_FORMS = ["in memory", "opened", "opened, dask", "label order", "concatenated"]
CASES = [
    *itertools.product(FORMS, SELECTIONS, ["as it is"]),
    *itertools.product(SCALED_FORMS, ["all", "a class"], ["rescaled", "standardized"]),
]


@pytest.mark.parametrize(("form", "selection", "change"), CASES)
@pytest.mark.filterwarnings("ignore:Slicing with an out-of-order index")
def test_an_epoch_has_every_sample_once_with_its_label(
    form: str, selection: str, change: str, folder: Path
) -> None:
    ds = FORMS[form](folder)
    selected = with_numbers(SELECTIONS[selection](ds))
    expected = CHANGES[change](selected).load()
    changed = with_numbers(SELECTIONS[selection](CHANGES[change](ds)))
    for given_ds in [selected] if change == "as it is" else [CHANGES[change](selected), changed]:
        for window in (SMALL_WINDOW * 3, 1 << 20):
            made = epoch_of(batches(given_ds, 16, window=window, coords=["number"]))
            numbers = numbers_of(made)
            assert sorted(numbers) == list(range(len(expected.sample)))
            assert numbers != sorted(numbers)
            images = np.concatenate([batch.images for batch in made])
            np.testing.assert_array_equal(images, expected.image.values[numbers], strict=True)
            labels = np.concatenate([batch.labels for batch in made])
            np.testing.assert_array_equal(labels, expected.label.values[numbers], strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_without_shuffling_the_order_is_that_of_the_dataset(form: str, folder: Path) -> None:
    ds = with_numbers(FORMS[form](folder))
    made = epoch_of(batches(ds, 16, shuffle=False, window=SMALL_WINDOW * 3, coords=["number"]))
    assert numbers_of(made) == list(range(ds.sizes["sample"]))


@pytest.mark.parametrize(
    ("form", "selection"),
    [
        *itertools.product(["opened", "label order"], ["all", "range", "a class", "permuted"]),
        # What is picked from dask arrays has other chunks than the store.
        *itertools.product(["opened, dask, small chunks"], ["all", "range"]),
    ],
)
def test_each_stored_chunk_is_read_once_per_epoch(
    form: str, selection: str, folder: Path, fetched: Counter[str]
) -> None:
    ds = SELECTIONS[selection](FORMS[form](folder))
    training = batches(ds, 16, window=SMALL_WINDOW)
    for epoch in (1, 2):
        epoch_of(training)
        counts = [count for count in fetched.values() if count]
        assert len(counts) >= 60
        assert set(counts) == {epoch}


def test_what_fits_into_the_window_is_read_once_and_shuffled_as_a_whole(
    folder: Path, fetched: Counter[str]
) -> None:
    ds = with_numbers(FORMS["label order"](folder))
    training = batches(ds, 10, window=N_SAMPLES * SAMPLE_BYTES, coords=["number"])
    first, second = epoch_of(training), epoch_of(training)
    assert set(fetched.values()) - {0} == {1}
    assert numbers_of(first) != numbers_of(second)
    # The same of any form: nothing depends on its chunks.
    for form in ("in memory", "opened, dask"):
        other = with_numbers(FORMS[form](folder).sortby(["label", "source_index"]))
        assert numbers_of(epoch_of(batches(other, 10, coords=["number"]))) == numbers_of(first)


def test_the_same_seed_and_epoch_give_the_same_batches(folder: Path) -> None:
    ds = FORMS["opened"](folder)
    training = batches(ds, 32, seed=5, window=SMALL_WINDOW)
    first, second, third = (labels_of(epoch_of(training)) for _ in range(3))
    assert first != second != third
    again = batches(ds, 32, seed=5, window=SMALL_WINDOW)
    again.set_epoch(2)
    assert labels_of(epoch_of(again)) == third
    again.set_epoch(0)
    assert labels_of(epoch_of(again)) == first
    assert labels_of(epoch_of(batches(ds, 32, seed=6, window=SMALL_WINDOW))) != first


@pytest.mark.parametrize("n_batches", range(0, 64, 9))
@pytest.mark.parametrize("form", ["in memory", "opened", "opened, dask, small chunks"])
def test_an_epoch_is_resumed_where_it_was(form: str, n_batches: int, folder: Path) -> None:
    ds = FORMS[form](folder)
    training = batches(ds, 16, window=SMALL_WINDOW)
    epoch_of(training)
    begun = iter(training)
    for _ in range(n_batches):
        next(begun)
    state = pickle.loads(pickle.dumps(training.state_dict()))
    expected = labels_of(list(begun)) if n_batches < 63 else []
    expected_next = labels_of(epoch_of(training))
    resumed = batches(ds, 16, window=SMALL_WINDOW)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    if expected:
        assert labels_of(epoch_of(resumed)) == expected
    assert labels_of(epoch_of(resumed)) == expected_next


def test_a_whole_epoch_is_resumed_with_the_next_one(folder: Path) -> None:
    training = batches(FORMS["opened"](folder), 16, window=SMALL_WINDOW)
    epoch_of(training)
    state = training.state_dict()
    expected = labels_of(epoch_of(training))
    training.load_state_dict(state)
    assert labels_of(epoch_of(training)) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_shares_of_workers_have_each_batch_once(count: int, folder: Path) -> None:
    ds = FORMS["opened"](folder)
    expected = labels_of(epoch_of(batches(ds, 16, window=SMALL_WINDOW)))
    shares = []
    for index in range(count):
        worker = batches(ds, 16, window=SMALL_WINDOW)
        shares.append(labels_of(list(worker.iter_share(index, count))))
    assert list(itertools.chain(*shares)) == expected
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_worker_is_resumed_within_its_share(folder: Path) -> None:
    ds = FORMS["opened"](folder)
    worker = batches(ds, 16, window=SMALL_WINDOW)
    begun = worker.iter_share(1, 3)
    next(begun)
    state = worker.state_dict()
    expected = labels_of(list(begun))
    resumed = batches(ds, 16, window=SMALL_WINDOW)
    resumed.load_state_dict(state)
    assert labels_of(list(resumed.iter_share(1, 3))) == expected
    assert resumed.state_dict()["epoch"] == 1


@given(st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_the_parts_of_ranks_have_each_sample_once(world: int, size: int, drop_last: bool) -> None:
    ds = with_numbers(digits(N_SAMPLES))
    parts = [
        batches(ds, size, part=(rank, world), drop_last=drop_last, coords=["number"])
        for rank in range(world)
    ]
    made = [epoch_of(part) for part in parts]
    assert [len(batches_of_part) for batches_of_part in made] == list(map(len, parts))
    numbers = [number for part in made for number in numbers_of(part)]
    assert len(set(numbers)) == len(numbers)
    if drop_last:
        assert len(set(map(len, parts))) == 1
        assert all(len(batch.labels) == size for part in made for batch in part)
        assert len(numbers) > N_SAMPLES - world * (size + 1)
    else:
        assert sorted(numbers) == list(range(N_SAMPLES))


@pytest.mark.parametrize("order", ["source", "label"])
def test_batches_are_shuffled_nearly_as_well_as_by_a_global_shuffle(
    order: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 40_000).astype(np.uint8)
    ds = make_dataset(rng.integers(0, 9, (40_000, 2, 2)).astype(np.uint8), label=labels)
    write_zarr(ds, tmp_path / "d.zarr", order=order, chunk_bytes=400)  # type: ignore[arg-type]
    stored = open_store(tmp_path / "d.zarr", chunks=None)
    window = 40_000 * 20 // 4  # of which less than a half is drawn from: a tenth of the samples
    ours = deviation(labels_of_batches(batches(stored, 64, window=window), n_epochs=3), labels)
    permutations = [labels[rng.permutation(40_000)] for _ in range(3)]
    ideal = deviation([row for p in permutations for row in p.reshape(-1, 64)], labels)
    assert ours / ideal < 1.5
    # Without chunks from everywhere it would not be so: those of label order lie together.
    in_order = [batch.labels for batch in batches(stored, 64, window=window, shuffle=False)]
    assert order == "source" or deviation(in_order, labels) / ideal > 3


def labels_of_batches(training: Any, n_epochs: int) -> list[npt.NDArray[Any]]:
    return [batch.labels for _ in range(n_epochs) for batch in training]


def deviation(made: list[npt.NDArray[Any]], labels: npt.NDArray[Any]) -> float:
    """Return the root of the mean square by which class shares of batches deviate from all."""
    expected = np.bincount(labels, minlength=10) / len(labels)
    shares = [np.bincount(batch, minlength=10) / len(batch) for batch in made]
    return float(np.sqrt(np.mean(np.square(np.stack(shares) - expected))))


def test_a_window_that_would_shuffle_badly_is_an_error_that_says_which_one_does(
    folder: Path,
) -> None:
    ds = open_store(folder / "label.zarr", chunks={"sample": 50})
    with pytest.raises(OptionError, match=r"and a good shuffle; give `window=(\d+)") as caught:
        batches(ds, 64, window=N_SAMPLES * SAMPLE_BYTES // 6)
    needed = int(str(caught.value).split("window=")[1].split("`")[0])
    assert len(epoch_of(batches(ds, 64, window=needed))) == 16
    # In the order of the data nothing is shuffled badly.
    batches(ds, 16, window=N_SAMPLES * SAMPLE_BYTES // 6, shuffle=False)


def test_rescaled_images_take_the_window_of_their_integers(folder: Path) -> None:
    plain = FORMS["opened, dask, small chunks"](folder)
    window = N_SAMPLES * SAMPLE_BYTES  # four times as large as floats
    expected = labels_of(epoch_of(batches(plain, 16, window=window)))
    for scaled in (rescale(plain), standardize(rescale(plain, 0, 1), 0.1, 0.3)):
        assert labels_of(epoch_of(batches(scaled, 16, window=window))) == expected


def test_a_transform_gets_whole_batches_in_the_thread_that_reads_ahead() -> None:
    ds = digits(100)
    threads = set()

    def transform(batch: Any, rng: np.random.Generator) -> Any:
        threads.add(threading.current_thread())
        noise = rng.integers(0, 256, len(batch.images)).astype(np.uint8)
        return batch._replace(images=batch.images.astype(np.float32), labels=noise)

    training = batches(ds, 16, transform=transform)
    made = epoch_of(training)
    assert [batch.images.dtype for batch in made] == [np.float32] * 7
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    # The random numbers of a batch are its own, in whatever way it is reached.
    other = batches(ds, 16, transform=transform)
    other.load_state_dict({**training.state_dict(), "epoch": 0, "batch": 3})
    assert labels_of(epoch_of(other)) == labels_of(made[3:])
    assert labels_of(list(batches(ds, 16, transform=transform).iter_share(1, 2))) == (
        labels_of(made[3:])
    )
    assert len({tuple(labels) for labels in labels_of(made)}) == 7


def test_an_error_of_a_transform_or_a_store_is_raised_after_the_batches_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: Any, rng: np.random.Generator) -> Any:
        if 7 in batch.number:
            raise ZeroDivisionError("no seven")
        return batch

    ds = with_numbers(digits(100))
    training = iter(batches(ds, 10, shuffle=False, transform=failing, coords=["number"]))
    with pytest.raises(ZeroDivisionError, match="no seven"):
        next(training)
    training = iter(
        batches(
            ds[{"sample": slice(None, None, -1)}],
            10,
            shuffle=False,
            transform=failing,
            coords=["number"],
        )
    )
    assert len([next(training) for _ in range(9)]) == 9
    with pytest.raises(ZeroDivisionError):
        next(training)

    def damaged(self: LocalSnapshot, key: str, **options: Any) -> Any:
        raise StoreError(f"{key}: this chunk is missing")

    ds = FORMS["opened"](folder)
    monkeypatch.setattr(LocalSnapshot, "get_sync", damaged)
    with pytest.raises(StoreError, match="this chunk is missing"):
        epoch_of(batches(ds, 10, window=SMALL_WINDOW))
    assert n_prefetching() == 0


def test_an_iteration_that_is_left_ends_its_thread(folder: Path) -> None:
    training = batches(FORMS["opened"](folder), 10, window=SMALL_WINDOW)
    for _ in training:
        assert n_prefetching() == 1
        break
    assert n_prefetching() == 0
    two = zip(training, training, strict=True)
    next(two)
    del two
    assert n_prefetching() == 0


def test_batches_and_their_maker_can_be_pickled(folder: Path) -> None:
    for form in ("in memory", "opened", "opened, dask"):
        training = batches(rescale(FORMS[form](folder)), 16, coords=["split", "source_index"])
        expected = epoch_of(training)
        copied = pickle.loads(pickle.dumps(training))
        copied.set_epoch(0)
        for one, other in zip(epoch_of(copied), expected, strict=True):
            assert one._fields == ("images", "labels", "split", "source_index")
            for mine, theirs in zip(pickle.loads(pickle.dumps(one)), other, strict=True):
                np.testing.assert_array_equal(mine, theirs, strict=True)
    assert len(pickle.dumps(batches(FORMS["opened"](folder)))) < 100_000


def test_memory_holds_the_window_and_no_more(tmp_path: Path) -> None:
    ds = digits(100_000, shape=(16, 16))
    write_zarr(ds, tmp_path / "d.zarr", chunk_bytes=100_000, level=1)
    stored = rescale(open_store(tmp_path / "d.zarr", chunks=None))
    del ds
    window = 4_000_000  # a sixth of the integers
    training = batches(stored, 64, window=window)
    with traced_memory() as peak:
        for batch in training:
            assert batch.images.shape[1:] == (16, 16)
        assert peak() < 1.2 * window


BAD: list[tuple[dict[str, Any], str]] = [
    ({"size": 0}, "`size`: expected a whole number of 1 or more, got 0"),
    ({"size": 2.5}, "`size`: expected a whole number of 1 or more, got 2.5"),
    ({"size": True}, "`size`: expected a whole number of 1 or more, got True"),
    ({"seed": -1}, "`seed`: expected a whole number of 0 or more, got -1"),
    ({"window": 0}, "`window`: expected a whole number of 1 or more, got 0"),
    ({"part": (2, 2)}, "`part`: expected a rank below world 2, got 2"),
    ({"part": (-1, 2)}, "`part`: rank: expected a whole number of 0 or more, got -1"),
    ({"part": 3}, r"`part`: expected \(rank, world\), got 3"),
    ({"part": (0, 0)}, "`part`: world: expected a whole number of 1 or more, got 0"),
    ({"coords": ["writer"]}, "`coords`: no coordinate 'writer' along 'sample'; choose from label"),
    ({"size": 2000, "drop_last": True}, "of 1,000 samples there is no batch of size 2000"),
    ({"part": (0, 2000)}, "of 1,000 samples there is no batch"),
    ({"window": 2000}, "hold 31 samples to draw from, fewer than a batch of 256"),
]


@pytest.mark.parametrize(("options", "sentence"), BAD)
def test_a_bad_option_is_named(options: dict[str, Any], sentence: str, folder: Path) -> None:
    with pytest.raises(OptionError, match=sentence) as caught:
        batches(FORMS["opened"](folder), **options)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_makes_no_batches_is_refused() -> None:
    ds = digits(10)
    for bad, sentence in (
        (ds.drop_vars("label"), "batches: needs 'label', which this Dataset lacks"),
        (ds.drop_vars("image"), "batches: needs 'image', which this Dataset lacks"),
        (ds.isel(sample=[]), "the Dataset has no samples"),
        (ds.image, "expected an xarray.Dataset, got a DataArray"),
        (ds.isel(sample=0), "expected a Dataset with dimension 'sample'"),
        (ds.assign(image=ds.image.isel(sample=0)), "'image': expected 'sample' first"),
    ):
        with pytest.raises(SchemaError, match=sentence):
            batches(bad)


def test_numbers_of_numpy_are_numbers() -> None:
    ds = digits(100)
    options: dict[str, Any] = {"seed": np.uint8(3), "part": [np.int64(0), 2]}
    state = batches(ds, cast(int, np.int64(10)), **options).state_dict()
    batches(ds, 10, seed=3, part=(0, 2)).load_state_dict(state)


def test_a_state_of_something_else_is_refused() -> None:
    ds = digits(100)
    training = batches(ds, 10)
    for state, sentence in (
        (None, r"expected a state_dict\(\) of batches, got None"),
        ({"epoch": 1}, r"expected a state_dict\(\) of batches"),
        (batches(ds, 20).state_dict(), "is of other batches"),
        (batches(ds, 10, seed=1).state_dict(), "is of other batches"),
        (batches(ds.isel(sample=slice(90)), 10).state_dict(), "is of other batches"),
        (training.state_dict() | {"batch": -1}, "`state`: batch: expected a whole number"),
    ):
        with pytest.raises(OptionError, match=sentence):
            training.load_state_dict(state)  # type: ignore[arg-type]
    with pytest.raises(MnistZarrError, match="`epoch`: expected a whole number of 0 or more"):
        training.set_epoch(-1)
