"""Chunks are dealt into windows that hold them, and that have chunks from everywhere."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.windows import class_deviation, count_classes, plan_windows

lengths_of_chunks = st.lists(st.integers(1, 30), min_size=1, max_size=60)


@given(lengths_of_chunks, st.integers(30, 200), st.none() | st.integers(0, 9), st.integers(0, 3))
def test_every_chunk_is_in_one_window_and_no_window_is_too_large(
    lengths: list[int], max_samples: int, seed: int | None, epoch: int
) -> None:
    windows = list(plan_windows(lengths, max_samples, seed).windows(epoch))
    assert sorted(np.concatenate(windows).tolist()) == list(range(len(lengths)))
    for window in windows:
        assert np.sum(np.asarray(lengths)[window], initial=0) <= max_samples
        assert (np.diff(window) > 0).all()


@given(lengths_of_chunks, st.integers(30, 200))
def test_without_a_seed_the_order_of_the_data_is_kept(lengths: list[int], max_samples: int) -> None:
    plan = plan_windows(lengths, max_samples, None)
    assert np.concatenate(list(plan.windows(0))).tolist() == list(range(len(lengths)))
    assert plan.sample_order(0, 0, 5).tolist() == [0, 1, 2, 3, 4]


def test_a_window_has_chunks_from_everywhere_and_other_ones_in_each_epoch() -> None:
    plan = plan_windows([10] * 100, 200, seed=0)
    epochs = [[window.tolist() for window in plan.windows(epoch)] for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [5, 5, 5]
    for window in epochs[0]:
        assert len(window) == 20
        assert set(np.diff(window)) <= set(range(3, 8))  # 5, and neighbours may change places
    assert sorted(epochs[0]) != sorted(epochs[1]) != sorted(epochs[2])
    assert epochs == [[window.tolist() for window in plan.windows(epoch)] for epoch in range(3)]


def test_the_deviation_that_is_foretold_is_the_one_that_is_measured() -> None:
    rng = np.random.default_rng(1)
    labels = np.sort(rng.integers(0, 5, 4000))
    chunks = [slice(start, start + 50) for start in range(0, 4000, 50)]
    for window_samples in (250, 1000):
        plan = plan_windows([50] * 80, window_samples, seed=0)
        shares = []
        for epoch in range(20):
            for number, window in enumerate(plan.windows(epoch)):
                samples = np.concatenate([labels[chunks[chunk]] for chunk in window])
                order = plan.sample_order(epoch, number, len(samples))[:20]
                shares.append(np.bincount(samples[order], minlength=5) / 20)
        all_shares = np.bincount(labels) / len(labels)
        measured = np.sqrt(
            np.square(shares - all_shares).sum(axis=1).mean()
            / ((all_shares * (1 - all_shares)).sum() / 20)
        )
        foretold = class_deviation(plan, count_classes(labels, chunks), 20)
        assert abs(measured - foretold) < 0.15


def test_many_values_of_labels_count_as_groups_of_neighbours() -> None:
    labels = np.linspace(0, 1, 1000)
    counts = count_classes(labels, [slice(0, 500), slice(500, 1000)])
    assert counts.shape == (2, 256)
    assert counts.sum() == 1000
    assert not (counts[0] * counts[1])[:100].any()


def test_a_single_class_cannot_be_shuffled_badly() -> None:
    plan = plan_windows([10] * 10, 20, seed=0)
    assert class_deviation(plan, np.full((10, 1), 10.0), 5) == 1
