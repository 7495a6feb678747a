"""Rows a few megabytes at a time: all of them, in order, each chunk read once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset import blocks
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr

ROW_BYTES = 6


def variable_of(n_samples: int, chunk: int | None) -> xr.Variable:
    rows = np.arange(n_samples * ROW_BYTES, dtype=np.uint8).reshape(n_samples, ROW_BYTES)
    if chunk is None:
        return xr.Variable(("sample", "pixel"), rows)
    array = cast(Any, dask.array).from_array(rows, (chunk, ROW_BYTES))
    return xr.Variable(("sample", "pixel"), array)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * ROW_BYTES)
    monkeypatch.setattr(blocks, "READ_BYTES", 5 * ROW_BYTES)
    monkeypatch.setattr(blocks, "SCATTERED_BLOCK_BYTES", 7 * ROW_BYTES)


@given(n_samples=st.integers(0, 40), chunk=st.none() | st.integers(1, 12), data=st.data())
def test_blocks_are_the_rows_in_order_and_small(
    n_samples: int, chunk: int | None, data: st.DataObject
) -> None:
    variable = variable_of(n_samples, chunk)
    positions = np.array(
        data.draw(st.lists(st.integers(0, n_samples - 1)) if n_samples else st.just([])), np.int64
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 5 * ROW_BYTES)
        patch.setattr(blocks, "SCATTERED_BLOCK_BYTES", 7 * ROW_BYTES)
        in_order = list(blocks.iter_blocks(variable))
        taken = list(blocks.iter_blocks_at(variable, positions))
    starts = [start for start, _ in in_order]
    assert starts == np.cumsum([0, *(len(block) for _, block in in_order)])[:-1].tolist()
    assert all(0 < len(block) <= 5 for _, block in in_order)
    assert all(0 < len(block) <= 7 for block in taken)
    empty = np.empty((0, ROW_BYTES), np.uint8)
    np.testing.assert_array_equal(np.concatenate([empty, *(b for _, b in in_order)]), variable)
    np.testing.assert_array_equal(np.concatenate([empty, *taken]), variable.values[positions])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_every_dask_chunk_is_computed_once(chunk: int) -> None:
    computed: Counter[int] = Counter()

    def counted(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        computed[int(rows[0, 0])] += 1
        return rows

    variable = variable_of(40, chunk)
    data = variable.data.map_blocks(counted, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    assert sum(len(block) for _, block in blocks.iter_blocks(variable.copy(data=data))) == 40
    assert set(computed.values()) == {1}
    assert len(computed) == -(-40 // chunk)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("samples", [slice(None), slice(3, 33)])
def test_every_chunk_of_a_store_is_read_once(
    samples: slice, tmp_path: Path, fetched: Counter[str]
) -> None:
    images = np.arange(160, dtype=np.uint8).reshape(40, 2, 2)
    write_zarr(make_dataset(images), tmp_path / "t.zarr", chunk_bytes=7 * 4)
    variable = open_store(tmp_path / "t.zarr", chunks=None).image[samples].variable
    read = np.concatenate([block for _, block in blocks.iter_blocks(variable)])
    np.testing.assert_array_equal(read, images[samples])
    assert {count for count in fetched.values() if count} == {1}
