"""The Dataset that ``open_store`` returns, and what it says when there is none."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from fsspec.core import url_to_fs
from zarr.storage import MemoryStore, WrapperStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.selection import select
from mnist_zarr.errors import StoreError, StoreNotFoundError
from mnist_zarr.reading import reader
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.summary import summarize
from mnist_zarr.stores.keys import is_document
from mnist_zarr.writing.writer import write_zarr
from tests.support.commands import run_command
from tests.support.digits import digits


def load_labels(target: str) -> None:
    open_store(target).label.load()


def plot_to_nowhere(target: str) -> None:
    result = run_command("plot", target, "-o", "x.png")
    raise StoreError(result.stderr)


def small_store() -> MemoryStore:
    store = MemoryStore()
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
    write_zarr(make_dataset(images, label=np.arange(40) % 4), store, chunk_bytes=12)
    return store


def test_open_store_gives_the_dataset_that_xarray_opens() -> None:
    store = small_store()
    xr.testing.assert_identical(open_store(store), xr.open_zarr(store))


class CountingStore(WrapperStore[MemoryStore]):
    """Says which chunks were read."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.read: list[str] = []

    def _with_store(self, store: MemoryStore) -> CountingStore:
        return self

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        if not is_document(key):
            self.read.append(key.partition("/")[0])
        return await super().get(key, *args, **options)


def test_each_coordinate_is_read_once_when_it_is_first_asked_for() -> None:
    store = CountingStore(small_store())
    ds = open_store(store)
    assert store.read == []
    assert ds.image.chunks is not None
    assert select(ds, label=3).sizes["sample"] == 10
    assert store.read == ["label"]
    for label in (1, 2):
        loaded = select(ds, label=label).load()
        assert (loaded.label == label).all()
    assert [name for name in store.read if name != "image"] == ["label", "source_index"]


def test_an_opened_store_can_be_pickled_with_what_it_keeps(tmp_path: Path) -> None:
    write_zarr(make_dataset(np.zeros((4, 2, 2)), label=np.arange(4)), tmp_path / "d.zarr")
    ds = open_store(tmp_path / "d.zarr")
    for opened in (ds, select(ds, label=[1, 3])):
        xr.testing.assert_identical(pickle.loads(pickle.dumps(opened)).load(), opened.load())


def test_groupby_and_where_work() -> None:
    ds = open_store(small_store())
    assert ds.groupby("label").count().image.values[:, 0, 0].tolist() == [10] * 4
    assert ds.where(ds.label == 3, drop=True).sizes["sample"] == 10


def test_dask_chunks_hold_several_whole_zarr_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "DASK_CHUNK_BYTES", 40)
    ds = open_store(small_store())
    assert ds.image.encoding["chunks"] == (3, 2, 2)
    assert ds.image.chunks == ((9, 9, 9, 9, 4), (2,), (2,))


def test_chunks_none_gives_lazy_arrays_without_dask() -> None:
    ds = open_store(small_store(), chunks=None)
    assert ds.image.chunks is None
    assert not ds.image.variable._in_memory


def test_chunks_are_those_asked_for() -> None:
    ds = open_store(small_store(), chunks={"sample": 6})
    assert ds.image.chunks == ((6,) * 6 + (4,), (2,), (2,))


def test_an_absent_store_raises_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"absent\.zarr: there is no Zarr store"):
        open_store(tmp_path / "absent.zarr")
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path)


def test_a_damaged_store_raises_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attri')
    with pytest.raises(StoreError, match="cannot be opened as a Zarr store"):
        open_store(tmp_path)


def test_dask_arrays_are_named_by_store_content_and_chunks(tmp_path: Path) -> None:
    ds = open_dataset("mnist").isel(sample=slice(0, 40)).load()
    write_zarr(ds, tmp_path / "a.zarr", chunk_bytes=8_000)
    write_zarr(ds.isel(sample=slice(None, None, -1)), tmp_path / "b.zarr", chunk_bytes=8_000)

    def name(store: str, **options: Any) -> str:
        return str(open_store(tmp_path / store, **options).image.data.name)

    first = name("a.zarr")
    assert name("a.zarr") == first
    others = [name("b.zarr"), name("a.zarr", chunks={"sample": 20}), name("a.zarr", chunks={})]
    write_zarr(ds + 1, tmp_path / "a.zarr", overwrite=True)
    assert len({first, *others, name("a.zarr")}) == 5


def test_opening_in_many_threads_leaves_the_configuration_of_zarr_as_it_was(
    tmp_path: Path,
) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(make_dataset(np.zeros((4, 2, 2))), target)
    before = zarr.config.get("codec_pipeline.path")
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(open_store, [target] * 100))
    assert zarr.config.get("codec_pipeline.path") == before


@pytest.mark.parametrize("kind", ["d.zarr", "d.zarr.zip", "memory://box/d.zarr"])
@pytest.mark.parametrize("read", [load_labels, summarize, plot_to_nowhere])
def test_a_flipped_bit_in_a_coordinate_is_reported_with_its_store_and_object(
    kind: str, read: Callable[[str], Any], tmp_path: Path, memory_url: str
) -> None:
    assert memory_url == "memory://box"
    target = kind if "::" in kind or "//" in kind else f"{tmp_path}/{kind}"
    write_zarr(digits(200), target)
    flip_a_bit(target, "label/c/0")
    with pytest.raises(StoreError, match=r"d\.zarr(\.zip: |/)label/c/0: ") as caught:
        read(target)
    assert target.removeprefix("memory://box") in str(caught.value)


def flip_a_bit(target: str, key: str) -> None:
    place = target if target.endswith(".zip") else f"{target}/{key}"
    fs, path = url_to_fs(place)
    data = bytearray(fs.cat(path))
    middle = len(data) // 2
    if target.endswith(".zip"):
        with zipfile.ZipFile(target) as archive:
            entry = archive.getinfo(key)
            start = entry.header_offset + len(entry.FileHeader())
            middle = start + entry.file_size // 2
    data[middle] ^= 1
    fs.pipe(path, bytes(data))
