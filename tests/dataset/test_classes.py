"""Numbers of samples per class and split."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.classes import count_samples
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset

SAMPLES = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["train", "test", "extra"])))


@given(SAMPLES)
def test_counts_are_those_of_counting_one_by_one(samples: list[tuple[int, str]]) -> None:
    ds = make_dataset(
        None,
        label=np.array([label for label, _ in samples], dtype=np.uint8),
        split=np.array([split for _, split in samples], dtype=STRING_DTYPE),
    )
    counted = count_samples(ds)
    assert counted.splits == tuple(dict.fromkeys(split for _, split in samples))
    assert list(counted.of_label) == sorted({label for label, _ in samples})
    expected = Counter(samples)
    for label, counts in counted.of_label.items():
        assert counts == tuple(expected[label, split] for split in counted.splits)
