"""Which objects a store promises, and which are there: the same for every kind of store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.inventory import (
    Inventory,
    arrays_in,
    chunk_keys,
    open_documents,
    read_documents,
    read_root,
    take_inventory,
)
from mnist_zarr.stores.keys import as_buffer, is_document, sync
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.writing.writer import write_zarr
from tests.support.files import file_contents
from tests.support.object_server import BUCKET, S3Server

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"shard_bytes": 40},
    {"zarr_format": 2},
    {"zarr_format": 2, "codec": "gzip"},
]
KINDS = ["folder", "zip", "MemoryStore", "memory", "FsspecStore", "s3", "http"]


def write(target: Any, **options: Any) -> None:
    ds = make_dataset(np.arange(80, dtype=np.uint8).reshape(20, 2, 2), label=np.arange(20) % 3)
    write_zarr(ds, target, chunk_bytes=12, **options)


def bucket_store(s3: S3Server) -> Store:
    return BucketStore.from_url(f"s3://{BUCKET}/t.zarr", s3.options)


def look(store: Store) -> Inventory:
    group = open_documents(read_documents(store, read_root(store)))
    return take_inventory(arrays_in(group), store)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_promised_chunks_are_those_on_disk(tmp_path: Path, layout: dict[str, Any]) -> None:
    write(tmp_path / "t.zarr", **layout)
    inventory = look(LocalStore(tmp_path / "t.zarr"))
    on_disk = file_contents(tmp_path / "t.zarr")
    assert inventory.sizes == {key: len(content) for key, content in on_disk.items()}
    promised = list(chunk_keys(inventory.arrays))
    assert sorted(promised) == sorted(key for key in on_disk if not is_document(key))
    assert inventory.n_promised == len(promised)
    assert inventory.describe_missing() is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_or_empty_is_named_wherever_the_store_is(
    kind: str, tmp_path: Path, memory_url: str, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "t.zarr"
    write(folder)
    whole = file_contents(folder)
    (folder / "image/c/1/0/0").unlink()
    (folder / "label/c/0").write_bytes(b"")
    left = file_contents(folder)
    stores: dict[str, Callable[[], Store]] = {
        "folder": lambda: LocalStore(folder),
        "zip": lambda: ZipStore(tmp_path / "t.zip", mode="a"),
        "MemoryStore": MemoryStore,
        "memory": lambda: BucketStore.from_url(memory_url),
        "FsspecStore": lambda: FsspecStore.from_url(memory_url),
        "s3": lambda: bucket_store(request.getfixturevalue("s3")),
        "http": lambda: BucketStore.from_url(request.getfixturevalue("web_address") + "/t.zarr"),
    }
    store = stores[kind]()
    if kind not in ("folder", "http"):
        for key, content in left.items():
            sync(store.set(key, as_buffer(content)))
    inventory = look(store)
    assert sorted(inventory.missing()) == ["image/c/1/0/0", "label/c/0"]
    n_chunks = sum(not is_document(key) for key in whole)
    expected = f"2 of {n_chunks} chunks, such as 'image/c/1/0/0'"
    assert inventory.describe_missing() == expected
    assert {key: size for key, size in inventory.sizes.items() if size != len(left[key])} == {}


def test_a_bucket_is_listed_once(s3: S3Server) -> None:
    write(f"s3://{BUCKET}/t.zarr", storage_options=s3.options)
    store = parse_target(f"s3://{BUCKET}/t.zarr", s3.options).open()
    s3.requests.clear()
    assert look(store).describe_missing() is None
    root, *others = (path for _, path in s3.requests)
    assert root == f"/{BUCKET}/t.zarr/zarr.json"
    documents = [f"/{BUCKET}/t.zarr/{name}/zarr.json" for name in ("image", "label")]
    assert sorted(others)[:3] == [f"/{BUCKET}", *documents]
    assert {method for method, _ in s3.requests} == {"GET"}


def test_without_consolidated_metadata_the_listing_says_which_documents_there_are() -> None:
    store = MemoryStore()
    group = zarr.create_group(store).create_group("inside")
    group.create_array("numbers", shape=(4,), chunks=(2,), dtype="u1")[:] = 1
    assert read_documents(store, read_root(store)).keys() == {
        "zarr.json",
        "inside/zarr.json",
        "inside/numbers/zarr.json",
    }
    assert look(store).describe_missing() is None
    assert list(chunk_keys(look(store).arrays)) == ["inside/numbers/c/0", "inside/numbers/c/1"]


def test_a_store_that_promises_more_than_fits_into_memory_is_looked_at_lazily() -> None:
    store = MemoryStore()
    zarr.create_group(store).create_array("a", shape=(1 << 40,), chunks=(1,), dtype="u1")
    inventory = look(store)
    assert inventory.n_promised == 1 << 40
    assert list(itertools.islice(inventory.missing(), 2)) == ["a/c/0", "a/c/1"]
    for key in ("a/c/0", "a/c/00", "a/c/x", "a/c/0/0", f"a/c/{1 << 40}"):
        sync(store.set(key, as_buffer(b"there")))
    sync(store.set("a/c/1", as_buffer(b"")))
    n_promised, n_missing = 1 << 40, (1 << 40) - 1
    assert look(store).describe_missing() == (
        f"{n_missing:,} of {n_promised:,} chunks, such as 'a/c/1'"
    )


def test_a_web_server_is_not_asked_for_every_chunk_that_a_lie_promises(
    web_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_zarr.stores.inventory.MAX_MISSING", 20)
    group = zarr.create_group(MemoryStore())
    arrays = [group.create_array("a", shape=(1 << 40,), chunks=(1,), dtype="u1")]
    server = BucketStore.from_url(f"{web_address}/t.zarr", read_only=True)
    inventory = take_inventory(arrays, server)
    assert inventory.n_missing == 1 << 40


def test_folders_may_be_links_even_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "t.zarr")
    (tmp_path / "t.zarr" / "image").rename(tmp_path / "elsewhere")
    (tmp_path / "t.zarr" / "image").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "t.zarr" / "again").symlink_to(tmp_path / "t.zarr")
    (tmp_path / "t.zarr" / "nowhere").symlink_to(tmp_path / "nothing")
    inventory = look(LocalStore(tmp_path / "t.zarr"))
    assert inventory.describe_missing() is None
    assert not [key for key in inventory.sizes if key.startswith(("again/", "nowhere"))]


def test_only_documents_inside_the_store_are_read_whatever_the_metadata_say(tmp_path: Path) -> None:
    write(tmp_path / "t.zarr")
    (tmp_path / "zarr.json").write_text("{}")
    root = tmp_path / "t.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    copies = document["consolidated_metadata"]["metadata"]
    copies[".."] = copies["image/c/0/0"] = {}
    root.write_text(json.dumps(document))
    store = parse_target(tmp_path / "t.zarr").open()
    names = ("image", "label", "source_index")
    documents = read_documents(store, read_root(store))
    assert documents.keys() == {"zarr.json", *(f"{name}/zarr.json" for name in names)}
