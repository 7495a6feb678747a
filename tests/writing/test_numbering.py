"""The numbers of the samples, and the order in which their content is hashed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mnist_zarr.dataset import blocks
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.writing import numbering as numbering_module
from mnist_zarr.writing.numbering import number_samples


@given(
    st.lists(st.integers(0, 9), max_size=8).flatmap(
        lambda numbers: st.sampled_from([numbers, sorted(numbers), sorted(set(numbers))])
    ),
    st.sampled_from(["u1", "u4", "i8"]),
    st.integers(1, 8),
    st.booleans(),
)
@example([3, 3], "u4", 1, False)
@example([5, 3], "u4", 1, True)
def test_numbers_are_kept_if_unique_and_content_is_in_their_order_where_that_can_be_told(
    numbers: list[int], dtype: str, block: int, recorded: bool
) -> None:
    ds = make_dataset(None, label=numbers, source_index=np.array(numbers, dtype))
    if recorded:
        ds.attrs["sha256_order"] = "source_index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_BLOCK_SAMPLES", block)
        found = number_samples(ds)
    if len(set(numbers)) < len(numbers):
        assert found.source_index.values.tolist() == list(range(len(numbers)))
        assert (found.content_order, found.positions) == ("source_index", None)
    else:
        assert found.source_index.values.tolist() == numbers
        ascends = numbers == sorted(numbers)
        assert found.content_order == ("source_index" if ascends or recorded else "stored")
        if ascends or not recorded:
            assert found.positions is None
        else:
            assert found.positions is not None
            assert np.array(numbers)[found.positions].tolist() == sorted(numbers)


def test_many_samples_in_a_random_order_are_not_read_back() -> None:
    shuffled = np.random.default_rng(0).permutation(5000)
    by_class = np.concatenate([np.arange(first, 5000, 10) for first in range(10)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbering_module, "READ_BACK_BYTES", 1000)
        for numbers, order in ((shuffled, "stored"), (by_class, "source_index")):
            ds = make_dataset(np.zeros((5000, 1, 1), np.uint8), source_index=numbers)
            ds.attrs["sha256_order"] = "source_index"
            assert number_samples(ds).content_order == order
