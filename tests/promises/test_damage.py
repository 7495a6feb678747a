"""Damage is never silent: thousands of changed bytes, cut and removed objects."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.records import DATASET_ID
from mnist_zarr.errors import StoreNotFoundError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import is_document
from mnist_zarr.writing.writer import write_zarr

N_SAMPLES = 300
N_CHANGES = 600
LAYOUTS: dict[str, dict[str, Any]] = {
    "format 3": {},
    "format 3, label order, shards": {"order": "label", "shard_bytes": 120_000},
    "format 3, gzip, rescaled": {"codec": "gzip", "level": 5, "rescale": (-1, 1)},
    "format 2, label order": {"zarr_format": 2, "order": "label"},
}

Change = Callable[[Path, np.random.Generator], None]


def change_a_byte(path: Path, random: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[random.integers(len(data))] ^= int(random.integers(1, 256))
    path.write_bytes(data)


def cut_off_the_end(path: Path, random: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.integers(len(data))])


def remove(path: Path, random: np.random.Generator) -> None:
    path.unlink()


def read_plainly(store: Path) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(store, chunks=None)
    return ds.load()


def read_with_open_store(store: Path) -> xr.Dataset:
    return open_store(store, chunks=None).load()


def outcome(read: Callable[[Path], xr.Dataset], store: Path, whole: xr.Dataset) -> str:
    """Return what somebody gets who looks at errors and values, but at no warning.

    Variables of another name, type or length are not called wrong: they show their change.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = read(store)
    except Exception:  # whatever it is, the reader knows
        return "an error"
    if got.identical(whole):
        return "all as it was"
    comparable = [
        name
        for name in got.variables.keys() & whole.variables.keys()
        if got[name].shape == whole[name].shape and got[name].dtype == whole[name].dtype
    ]
    if all(np.array_equal(got[name], whole[name]) for name in comparable):
        return "another name, length, type or attribute"
    return "wrong values"


def is_caught(store: Path) -> bool:
    try:
        return not verify(store).is_whole
    except StoreNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_change_of_an_object_is_silent(tmp_path: Path, layout: str) -> None:
    """``verify`` catches all that readers could notice; ``open_store`` gives no wrong value.

    Nor does plain xarray, but where Zarr takes a missing chunk for one of fill values. Of what
    the metadata say, the scale of a store that opens rescaled is believed by both.
    """
    ds = open_dataset("mnist").isel(sample=slice(59_850, 59_850 + N_SAMPLES)).load()
    del ds.attrs[DATASET_ID]  # to compare with all of MNIST each time takes longer
    pristine, store = tmp_path / "pristine.zarr", tmp_path / "d.zarr"
    write_zarr(ds, pristine, chunk_bytes=40_000, **LAYOUTS[layout])
    shutil.copytree(pristine, store)
    whole = read_plainly(pristine)
    assert is_caught(pristine) is False
    keys = sorted(path.relative_to(pristine) for path in pristine.rglob("*") if path.is_file())
    # The root's documents are the ones that readers read, and that have no checksum.
    keys += [key for key in keys if len(key.parts) == 1] * (len(keys) // 4)
    random = np.random.default_rng(list(layout.encode()))
    changes: list[Change] = [*[change_a_byte] * 8, cut_off_the_end, remove]
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(N_CHANGES):
        key = keys[number % len(keys)]
        change = changes[random.integers(len(changes))]
        change(store / key, random)
        case = f"change {number}: {change.__name__} of {key}"
        kind = "metadata" if is_document(str(key)) else "chunk"
        plain = outcome(read_plainly, store, whole)
        if outcome(read_with_open_store, store, whole) == "wrong values":
            assert kind == "metadata", case
            assert "rescale" in LAYOUTS[layout], case
        assert plain == "all as it was" or is_caught(store), case
        if plain == "wrong values":
            assert change is remove or kind == "metadata", case
        outcomes[kind, plain] += 1
        shutil.copyfile(pristine / key, store / key)
    assert is_caught(store) is False
    assert outcomes["chunk", "an error"] > N_CHANGES / 5
    assert outcomes["chunk", "wrong values"] > 0  # chunks that were removed
    assert outcomes["chunk", "another name, length, type or attribute"] == 0
    assert outcomes["metadata", "another name, length, type or attribute"] > 0
