"""The metadata of a store: what they say of every array, and when they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.errors import SchemaError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.keys import keys_of
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


def test_real_zeros_do_not_become_missing_values_in_format_2(tmp_path: Path) -> None:
    write_zarr(make_dataset(np.zeros((3, 2, 2), np.uint8)), tmp_path / "z.zarr", zarr_format=2)
    back = xr.open_zarr(tmp_path / "z.zarr")
    assert back.image.dtype == np.uint8
    assert not back.image.values.any()


def test_metadata_is_written_after_all_chunks_and_the_root_last() -> None:
    written: list[str] = []

    class Recording(MemoryStore):
        async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
            written.append(key)
            await super().set(key, value, byte_range)

    for zarr_format, root in ((3, "zarr.json"), (2, ".zgroup")):
        written.clear()
        write_zarr(digits(50), Recording(), zarr_format=zarr_format, chunk_bytes=100)  # type: ignore[arg-type]
        assert written.pop(0) == "zarr.json"  # the lease of the build
        is_metadata = [
            key.endswith((".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"))
            for key in written
        ]
        assert is_metadata == sorted(is_metadata)
        assert written[-1] == root


ODD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "a\nb",
    "\0",
    "zarr.json",
    ".zarray",
    1,
    None,
]


@pytest.mark.parametrize("name", [*ODD_NAMES, "index.html", ("a", "b")], ids=repr)
def test_a_variable_whose_name_no_array_can_have_is_refused(name: Any) -> None:
    store = MemoryStore()
    with pytest.raises(SchemaError, match="is no name for an array of Zarr"):
        write_zarr(digits().assign({name: ("sample", np.arange(60))}), store)
    assert not keys_of(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign_coords({"a b": ("sample", np.arange(60))}), "with a blank"),
        (lambda ds: ds.stack(pair=("row", "col")).transpose("sample", ...), "is a MultiIndex"),
        (lambda ds: ds.rename(row=7), "name of dimension 7 is no string"),
        (lambda ds: ds.assign(x=("sample", np.zeros(60, np.longdouble))), "expected numbers"),
        (lambda ds: ds.assign(x=("sample", np.zeros(60, "M8[ns]"))), "expected numbers"),
        (lambda ds: ds.assign(x=("sample", pd.Categorical(["a"] * 60))), "expected numbers"),
        (lambda ds: ds.assign(x=("sample", pd.array([1] * 60, "Int64"))), "expected numbers"),
        (lambda ds: ds.assign(x=("sample", np.array(["\ud800"] * 60))), "expected strings"),
        (lambda ds: ds.assign(x=((), np.array(None, object))), "expected strings"),
        (lambda ds: ds.assign_coords(label=("sample", np.array([1, "a"] * 30, object))), "label"),
    ],
)
@pytest.mark.parametrize("order", ["source", "label"])
def test_what_would_come_back_as_something_else_is_refused_before_anything_is_written(
    change: Any, message: str, order: Any
) -> None:
    store, ds = MemoryStore(), change(digits())
    with pytest.raises(SchemaError, match=message):
        write_zarr(ds, store, order=order)
    assert not keys_of(store)


@pytest.mark.parametrize("dtype", ["U1", object, STRING_DTYPE])
@pytest.mark.parametrize("layout", [{}, {"zarr_format": 2}, {"order": "label"}], ids=str)
@pytest.mark.parametrize("columns", [1, 2])
def test_tables_of_strings_come_back(dtype: Any, layout: dict[str, Any], columns: int) -> None:
    words = np.resize(np.array(list("abcde")), (60, columns)).astype(dtype)
    ds, store = digits().assign(words=(("sample", "column"), words)), MemoryStore()
    ds["image"] = ds.words.astype(STRING_DTYPE)  # an image of strings opens as well
    write_zarr(ds, store, **layout)
    back = open_store(store).sortby("source_index")
    assert back.words.values.tolist() == back.image.values.tolist() == words.tolist()
    assert verify(store).is_whole
