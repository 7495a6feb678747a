"""Every pass writes what it should, and shows each block once and in the order of the source."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore

from mnist_zarr.dataset import blocks as blocks_module
from mnist_zarr.pool import Pool
from mnist_zarr.writing import passes
from mnist_zarr.writing.layout import Compression
from mnist_zarr.writing.passes import (
    Pass,
    Transfer,
    by_workers,
    choose_pass,
    gathered,
    in_source_order,
    scattered,
    stored_blocks,
)
from mnist_zarr.writing.plan import Chunking, SourceOrder, plan_label_order
from mnist_zarr.writing.template import Template

N_CLASSES = 4
LABELS = hnp.arrays(
    np.uint8, st.integers(0, 60), elements=st.integers(0, N_CLASSES - 1), fill=st.nothing()
)


def transfer_of(
    labels: npt.NDArray[np.uint8],
    *,
    object_samples: int = 7,
    dask_chunk: int | None = None,
    ndim: int = 2,
    by_label: bool = True,
    seeks_cheaply: bool = False,
    reads_cheaply: bool = True,
) -> Transfer:
    n_samples = len(labels)
    values = np.arange(n_samples * 3, dtype="u2").reshape(n_samples, 3)
    variable = xr.Variable(("sample", "row")[:ndim], values if ndim == 2 else values[:, 0])
    variable.encoding |= {"seeks_cheaply": seeks_cheaply, "reads_cheaply": reads_cheaply}
    pieces = Chunking(n_samples, object_samples)
    template = Template(Compression(level=1), 3)
    template.add("x", variable, pieces, {})
    if dask_chunk is not None:
        variable = variable.chunk(sample=dask_chunk)
    order = plan_label_order(labels, N_CLASSES) if by_label else SourceOrder(n_samples)
    return Transfer(variable, template.bind(MemoryStore())["x"], pieces, order)


class CountingPool(Pool):
    n_submitted = 0

    def submit(self, task: Callable[..., object], *args: Any) -> None:
        self.n_submitted += 1
        super().submit(task, *args)


def run(write: Pass, transfer: Transfer) -> tuple[list[npt.NDArray[Any] | None], list[int], int]:
    """Return the blocks that the pass showed, their numbers of samples, and of objects."""
    blocks, counts = [], []

    def on_block(n_samples: int, block: npt.NDArray[Any] | None) -> None:
        counts.append(n_samples)
        blocks.append(None if block is None else block.copy())

    with ThreadPoolExecutor(2) as executor:
        pool = CountingPool(executor, 4)
        write(transfer, pool, on_block)
        pool.finish()
    return blocks, counts, pool.n_submitted


def stored(transfer: Transfer) -> npt.NDArray[Any]:
    return np.asarray(transfer.array.array[...])


@given(
    labels=LABELS,
    object_samples=st.integers(1, 20),
    dask_chunk=st.none() | st.integers(1, 25),
    ndim=st.sampled_from([1, 2]),
    write=st.sampled_from([in_source_order, gathered, scattered]),
    max_open_bytes=st.sampled_from([1, 200, 1 << 20]),
    block_bytes=st.sampled_from([1, 40, 1 << 20]),
)
def test_a_pass_writes_every_object_once_and_shows_the_source(
    labels: npt.NDArray[np.uint8],
    object_samples: int,
    dask_chunk: int | None,
    ndim: int,
    write: Pass,
    max_open_bytes: int,
    block_bytes: int,
) -> None:
    transfer = transfer_of(
        labels,
        object_samples=object_samples,
        dask_chunk=dask_chunk,
        ndim=ndim,
        by_label=write is not in_source_order,
    )
    source = transfer.variable.values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "OPEN_OBJECTS_BYTES", max_open_bytes)
        patch.setattr(blocks_module, "BLOCK_BYTES", block_bytes)
        blocks, counts, n_written = run(write, transfer)
    assert n_written == transfer.pieces.n_objects
    by_label = np.argsort(labels, kind="stable")
    expected = source if write is in_source_order else source[by_label]
    np.testing.assert_array_equal(stored(transfer), expected)
    shown = np.concatenate([source[:0], *(block for block in blocks if block is not None)])
    np.testing.assert_array_equal(shown, source)
    assert sum(counts) == len(source)
    in_order = [source[:0], *stored_blocks(transfer.array.array, transfer.order.stored_positions)]
    np.testing.assert_array_equal(np.concatenate(in_order), source)


@pytest.mark.parametrize("dask_chunk", [None, 10])
@pytest.mark.parametrize("by_label", [False, True])
def test_what_workers_read_for_themselves_is_shown_if_it_can_be_read_again_cheaply(
    dask_chunk: int | None, by_label: bool
) -> None:
    labels = np.random.default_rng(0).integers(0, N_CLASSES, 50).astype(np.uint8)
    transfer = transfer_of(labels, dask_chunk=dask_chunk, by_label=by_label)
    source = transfer.variable.values
    blocks, counts, _ = run(by_workers, transfer)
    order = np.argsort(labels, kind="stable") if by_label else slice(None)
    np.testing.assert_array_equal(stored(transfer), source[order])
    assert sum(counts) == 50
    if dask_chunk is None:
        np.testing.assert_array_equal(np.concatenate(cast(Any, blocks)), source)
    else:
        assert set(blocks) == {None}


def test_what_takes_long_to_read_is_read_once_whatever_the_order() -> None:
    labels = np.random.default_rng(0).integers(0, N_CLASSES, 50).astype(np.uint8)
    transfer = transfer_of(labels, reads_cheaply=False)
    source = transfer.variable.values
    blocks, counts, n_written = run(gathered, transfer)
    np.testing.assert_array_equal(stored(transfer), source[np.argsort(labels, kind="stable")])
    assert (sum(counts), n_written) == (50, transfer.pieces.n_objects)
    assert set(blocks) == {None}  # else each would be read a second time


class PoolOfWorkers(Pool):
    on_cluster = True


@pytest.mark.parametrize(
    ("options", "local", "on_cluster"),
    [
        ({"by_label": False}, in_source_order, in_source_order),
        ({"by_label": False, "seeks_cheaply": True}, in_source_order, by_workers),
        ({"by_label": False, "dask_chunk": 5}, scattered, by_workers),
        ({}, scattered, scattered),
        ({"seeks_cheaply": True}, scattered, by_workers),
        ({"dask_chunk": 5}, scattered, by_workers),
        ({"seeks_cheaply": True, "reads_cheaply": False}, gathered, by_workers),
        ({"ndim": 1}, gathered, gathered),
        ({"ndim": 1, "dask_chunk": 5}, gathered, gathered),
        ({"ndim": 1, "by_label": False, "dask_chunk": 5}, scattered, scattered),
    ],
)
def test_the_pass_suits_order_source_and_pool(
    options: dict[str, Any], local: Pass, on_cluster: Pass
) -> None:
    transfer = transfer_of(np.zeros(10, np.uint8), **options)
    with ThreadPoolExecutor(1) as executor:
        assert choose_pass(transfer, Pool(executor, 1)) is local
        assert choose_pass(transfer, PoolOfWorkers(executor, 1)) is on_cluster


def test_a_dask_chunk_is_computed_once_although_it_is_in_several_objects() -> None:
    n_computed = 0

    def count(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        nonlocal n_computed
        n_computed += 1
        return block

    labels = np.random.default_rng(0).integers(0, N_CLASSES, 60).astype(np.uint8)
    for by_label in (False, True):
        transfer = transfer_of(labels, dask_chunk=20, by_label=by_label)
        counting = transfer.variable.copy(
            data=transfer.variable.data.map_blocks(count, dtype="u2", meta=np.empty((0, 0), "u2"))
        )
        n_computed = 0
        run(scattered, Transfer(counting, transfer.array, transfer.pieces, transfer.order))
        assert n_computed == 3
