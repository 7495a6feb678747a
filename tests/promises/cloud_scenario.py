"""What a cloud other than S3 must do, as a program.

``cloud_scenario PROTOCOL FOLDER OPTIONS READER``

A program of its own since adlfs complains of zarr-python's event loop when Python exits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

import mnist_zarr
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import (
    SourceError,
    StoreError,
    StoreNotFoundError,
    StoreReplacedError,
    TargetExistsError,
)
from mnist_zarr.files.urls import identity_of
from mnist_zarr.formats.idx import IdxFile
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.inventory import list_sizes
from mnist_zarr.stores.keys import copy_objects, keys_of, sync
from mnist_zarr.stores.object_reader import ObjectReader
from mnist_zarr.stores.objects import ObjectChangedError, objects_of
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.stores.upload import Upload
from tests.support.clouds import CONTAINER
from tests.support.files import idx_bytes


def play(protocol: str, folder: str, options: dict[str, Any], reader: str) -> None:
    """Upload, resume, overwrite, publish, and ask for what is not there."""
    url, nowhere = f"{protocol}://{CONTAINER}/t.zarr", f"{protocol}://nowhere/t.zarr"

    def expect(error: type[Exception], call: Callable[..., Any], *args: Any) -> None:
        with pytest.raises(error, match=f"{protocol}|abfs") as raised:
            call(*args, storage_options=options)
        assert "\n" not in str(raised.value)

    ds = make_dataset(np.arange(180, dtype=np.uint8).reshape(20, 3, 3), label=np.arange(20))
    mnist_zarr.write_zarr(ds, f"{folder}/t.zarr", chunk_bytes=18)
    local = mnist_zarr.open_store(f"{folder}/t.zarr").load()

    # An object is written only in the version that the writer knows.
    objects = objects_of(BucketStore.from_url(f"{protocol}://{CONTAINER}/versions", options))
    assert objects.compares
    first = sync(objects.put("a", b"one", None))
    second = sync(objects.put("a", b"two", first))
    assert sync(objects.list()) == {"a": sync(objects.look("a"))}
    for data, known in ((b"late", None), (b"late", first)):
        with pytest.raises(ObjectChangedError):
            sync(objects.put("a", data, known))
    assert sync(objects.read("a")) == b"two"
    if protocol != "gs":  # fake-gcs-server, unlike Google's, removes whatever is there
        with pytest.raises(ObjectChangedError):
            sync(objects.remove("a", first))
    sync(objects.remove("a", second))
    with pytest.raises(ObjectChangedError):
        sync(objects.put("a", b"late", second))

    # An upload that ended half-way is not there, and is resumed.
    upload = Upload(BucketStore.from_url(url, options), url)
    upload.begin(overwrite=False)
    source = parse_target(f"{folder}/t.zarr").open()
    copy_objects(source, upload, [key for key in keys_of(source) if "/c/1" in key])
    upload.give_up()
    expect(StoreNotFoundError, mnist_zarr.open_store, url)
    mnist_zarr.write_zarr(ds, url, chunk_bytes=18, storage_options=options)
    xr.testing.assert_identical(mnist_zarr.open_store(url, storage_options=options).load(), local)
    xr.testing.assert_equal(xr.open_zarr(url, storage_options=options).load(), local)

    # obstore says the same as fsspec, of whole objects and of their parts.
    store, of_fsspec = parse_target(url, options).open(), BucketStore.from_url(url, options)
    assert isinstance(store, ObjectReader) == (reader == "obstore")
    assert list_sizes(store) == list_sizes(of_fsspec)
    assert read_parts(store) == read_parts(of_fsspec)
    assert "through_fsspec" not in vars(store)

    expect(TargetExistsError, mnist_zarr.write_zarr, ds, url)
    # It is never its own sink, and what was opened is of one version.
    old = mnist_zarr.open_store(url, chunks=None, storage_options=options)
    with pytest.raises(StoreError, match="the Dataset is read from this very store"):
        mnist_zarr.write_zarr(old, url, storage_options=options, overwrite=True)
    half = ds.isel(sample=slice(10))
    before = parse_target(url, options).identity()
    assert before is not None
    assert before == parse_target(url, options).identity()
    mnist_zarr.write_zarr(half, url, chunk_bytes=18, storage_options=options, overwrite=True)
    assert mnist_zarr.open_store(url, storage_options=options).sizes["sample"] == 10
    assert before != parse_target(url, options).identity()
    with pytest.raises(StoreReplacedError):
        old.image.load()
    assert parse_target(f"{url}.nothing", options).identity() is None
    assert "image/c/7/0/0" not in keys_of(BucketStore.from_url(url, options))
    published = mnist_zarr.publish(
        f"{folder}/t.zarr", f"{protocol}://{CONTAINER}/published.zarr", storage_options=options
    )
    assert len(published.objects) == 18
    chunk = fsspec.filesystem(protocol, **options).info(f"{CONTAINER}/t.zarr/image/c/0/0/0")
    assert "public, no-cache" in str(chunk.values()), chunk

    # A source is one version of a file, and a listing tells the same one.
    fs, name = fsspec.filesystem(protocol, **options), f"{CONTAINER}/x-images-idx3-ubyte"
    fs.pipe(name, idx_bytes(np.full((2, 3, 3), 1, np.uint8)))
    file = IdxFile(f"{protocol}://{name}", storage_options=options)
    assert file.read().tolist() == np.full((2, 3, 3), 1).tolist()
    listing = fs.ls(CONTAINER, detail=True, refresh=True)
    (listed,) = (entry for entry in listing if entry["name"].endswith("ubyte"))
    assert identity_of(listed) == file.bytes.identity
    fs.pipe(name, idx_bytes(np.full((2, 3, 3), 2, np.uint8)))
    with pytest.raises(SourceError, match="the file was changed while it was being read"):
        file.read()

    expect(StoreNotFoundError, mnist_zarr.open_store, nowhere)
    expect(StoreError, mnist_zarr.write_zarr, ds, nowhere)


def read_parts(store: Any) -> list[Any]:
    """Return what the store says of a chunk, of parts of it, and of what is not there."""
    parts = (None, RangeByteRequest(2, 5), OffsetByteRequest(9), SuffixByteRequest(3))
    said = [
        sync(store.get("image/c/0/0/0", default_buffer_prototype(), part)).to_bytes()
        for part in parts
    ]
    assert [len(part) for part in said[1:]] == [3, len(said[0]) - 9, 3]
    return [*said, identity_of(sync(store.info("zarr.json"))), sync(store.info("nothing"))]


if __name__ == "__main__":
    play(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])
