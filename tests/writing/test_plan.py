"""The write plan against a dumber one: a stable argsort of all labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.errors import OptionError
from mnist_zarr.writing import plan
from mnist_zarr.writing.plan import (
    Chunking,
    LabelOrder,
    SourceOrder,
    factorize_labels,
    plan_chunks,
    plan_label_order,
    plan_shuffled_order,
    scatter_passes,
)

N_CLASSES = 6
# Without a fill: most arrays would have few changes of label.
label_arrays = hnp.arrays(
    np.uint8, st.integers(0, 300), elements=st.integers(0, N_CLASSES - 1), fill=st.nothing()
)


@pytest.fixture(params=[7, 1 << 16], ids=["many blocks of counts", "one block of counts"])
def count_spacing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    spacing = int(request.param)
    monkeypatch.setattr(plan, "COUNT_SPACING_SAMPLES", spacing)
    return spacing


def spans(n_samples: int) -> list[tuple[int, int]]:
    edges = sorted({0, 1, n_samples // 3, n_samples // 2, n_samples - 1, n_samples})
    return [(a, b) for a in edges for b in edges if 0 <= a <= b <= n_samples]


@pytest.mark.usefixtures("count_spacing")
@given(labels=label_arrays)
def test_label_order_is_the_stable_sort_by_label(labels: npt.NDArray[np.uint8]) -> None:
    order = plan_label_order(labels, N_CLASSES)
    sources = np.argsort(labels, kind="stable")
    stored = np.argsort(sources)
    for start, stop in spans(len(labels)):
        np.testing.assert_array_equal(order.source_positions(start, stop), sources[start:stop])
        np.testing.assert_array_equal(order.stored_positions(start, stop), stored[start:stop])
        if start < stop:
            assert order.classes_between(start, stop) == len(set(labels[sources[start:stop]]))


def test_source_order_changes_nothing() -> None:
    order = SourceOrder(9)
    np.testing.assert_array_equal(order.source_positions(2, 5), [2, 3, 4])
    np.testing.assert_array_equal(order.stored_positions(2, 5), [2, 3, 4])


@given(n_samples=st.integers(0, 300), seed=st.integers(0, 9), max_open=st.integers(1, 20))
def test_shuffled_order_is_a_permutation_of_which_a_part_is_open_at_a_time(
    n_samples: int, seed: int, max_open: int
) -> None:
    order = plan_shuffled_order(n_samples, seed)
    stored = order.stored_positions(0, n_samples)
    assert sorted(stored.tolist()) == list(range(n_samples))
    assert order.source_positions(0, n_samples)[stored].tolist() == list(range(n_samples))
    for start, stop in spans(n_samples):
        np.testing.assert_array_equal(order.stored_positions(start, stop), stored[start:stop])
    groups = list(scatter_passes(order, Chunking(n_samples, 7), max_open))
    assert [i for group in groups for i in group] == list(range(-(-n_samples // 7)))
    assert all(len(group) <= max_open for group in groups)


@given(
    n_samples=st.integers(0, 10_000),
    sample_bytes=st.integers(0, 3_000),
    chunk_bytes=st.integers(1, 100_000),
    shard_bytes=st.none() | st.integers(0, 1_000_000),
)
def test_chunks_cover_the_samples_and_stay_below_their_bytes(
    n_samples: int, sample_bytes: int, chunk_bytes: int, shard_bytes: int | None
) -> None:
    if shard_bytes and shard_bytes < chunk_bytes:
        with pytest.raises(OptionError, match="a shard holds whole chunks"):
            plan_chunks(n_samples, sample_bytes, chunk_bytes, shard_bytes)
        return
    chunking = plan_chunks(n_samples, sample_bytes, chunk_bytes, shard_bytes)
    assert chunking.chunk_samples >= 1
    assert chunking.chunk_samples * sample_bytes <= chunk_bytes or chunking.chunk_samples == 1
    if chunking.shard_samples is not None and shard_bytes is not None:
        assert chunking.shard_samples % chunking.chunk_samples == 0
        single_chunk = chunking.shard_samples == chunking.chunk_samples
        assert chunking.shard_samples * sample_bytes <= shard_bytes or single_chunk
    covered = [i for n in range(chunking.n_objects) for i in range(*chunking.bounds(n))]
    assert covered == list(range(n_samples))


@pytest.mark.parametrize(
    ("n_samples", "chunk_bytes", "chunk_samples"),
    [
        (70_000, 2_000_000, 2_500),  # 28 equal chunks instead of 27 and a short one
        (70_000, 1, 1),  # a sample is never cut
        (3, 2_000_000, 3),  # no chunk is longer than the data
        (0, 2_000_000, 1),  # Zarr knows no chunk of length zero
    ],
)
def test_chunks_are_of_nearly_equal_length(
    n_samples: int, chunk_bytes: int, chunk_samples: int
) -> None:
    assert plan_chunks(n_samples, 784, chunk_bytes).chunk_samples == chunk_samples


@given(
    labels=label_arrays,
    object_samples=st.integers(1, 40),
    max_open=st.integers(1, 8),
)
def test_groups_partition_the_objects_and_bound_how_many_are_open(
    labels: npt.NDArray[np.uint8], object_samples: int, max_open: int
) -> None:
    chunking = Chunking(len(labels), object_samples)
    order = plan_label_order(labels, N_CLASSES)
    groups = list(scatter_passes(order, chunking, max_open))
    assert [i for group in groups for i in group] == list(range(chunking.n_objects))
    for group in groups:
        assert most_open_at_once(order, chunking, group) <= max_open


def most_open_at_once(order: LabelOrder, chunking: Chunking, group: range) -> int:
    """Scatter sample by sample and count the objects that are begun but not full."""
    missing = {i: chunking.bounds(i)[1] - chunking.bounds(i)[0] for i in group}
    begun: set[int] = set()
    most = 0
    for position in order.stored_positions(0, order.n_samples).tolist():
        index = position // chunking.object_samples
        if index in missing:
            begun.add(index)
            most = max(most, len(begun))
            missing[index] -= 1
            if not missing[index]:
                begun.remove(index)
    return most


def test_ten_digits_need_one_pass() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 70_000).astype(np.uint8)
    chunking = plan_chunks(70_000, 784, 450_000)
    order = plan_label_order(labels, 10)
    assert list(scatter_passes(order, chunking, max_open_objects=19)) == [range(chunking.n_objects)]


@given(
    labels=st.sampled_from(["u1", "i8", "f4", "U2", "?"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(0, 40), fill=st.nothing())
    ),
    cuts=st.lists(st.integers(0, 40)),
)
def test_codes_are_ranks_among_all_labels_however_these_are_cut(
    labels: npt.NDArray[np.generic], cuts: list[int]
) -> None:
    blocks = [block for block in np.split(labels, sorted(cuts)) if len(block)]
    distinct, codes = factorize_labels(blocks)
    expected, expected_codes = np.unique(labels, return_inverse=True)
    np.testing.assert_array_equal(distinct, expected)
    np.testing.assert_array_equal(codes, expected_codes)
    assert codes.dtype == np.uint8


def test_codes_of_very_many_labels_have_room() -> None:
    labels = np.random.default_rng(0).permutation(70_000)
    distinct, codes = factorize_labels(np.split(labels, 7))
    assert len(distinct) == 70_000
    np.testing.assert_array_equal(codes, labels)
