"""Building on a real dask cluster of separate processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from mnist_zarr.builder import build
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.formats import pictures
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import CHUNK_BYTES, N_CHUNKS, URL
from tests.support.clusters import cluster_of_processes
from tests.support.digits import square_digits
from tests.support.files import file_contents
from tests.support.marks import needs_proc
from tests.support.object_server import S3Server
from tests.support.partners import partner
from tests.support.pictures import folder_of

psutil = partner("psutil")  # which distributed needs
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster_of_processes() as (_, client):
        yield client


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs whose lengths are not multiples of any chunk, raw and gzip."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(5)
    for suffix in ("", ".gz"):
        for name, n_samples in (("a", 3001), ("b", 1999)):
            images = rng.integers(0, 256, (n_samples, 10, 10)).astype(np.uint8)
            labels = rng.integers(0, 10, n_samples).astype(np.uint8)
            place = folder / (suffix.strip(".") or "raw")
            place.mkdir(exist_ok=True)
            write_idx(images, place / f"{name}-images-idx3-ubyte{suffix}")
            write_idx(labels, place / f"{name}-labels-idx1-ubyte{suffix}")
    return folder


def pairs(folder: Path) -> list[str | os.PathLike[str]]:
    return [*sorted(folder.glob("*images*"))]


@pytest.mark.parametrize("kind", ["raw", "gz"])
@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("shard_bytes", [0, 60_000])
def test_a_build_on_workers_gives_the_same_bytes_as_a_local_one(
    client: Any, sources: Path, tmp_path: Path, kind: str, order: Order, shard_bytes: int
) -> None:
    source = pairs(sources / kind)
    layout: dict[str, Any] = {"chunk_bytes": 20_000, "shard_bytes": shard_bytes}
    build(tmp_path / "local.zarr", source, order=order, **layout)
    build(tmp_path / "remote.zarr", source, order=order, client=client, **layout)
    local, remote = file_contents(tmp_path / "local.zarr"), file_contents(tmp_path / "remote.zarr")
    assert len(local) > (10 if shard_bytes else 25)
    assert local == remote


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("order", ["source", "label"])
def test_rescaling_and_rewriting_on_workers_gives_the_same_bytes(
    client: Any, sources: Path, tmp_path: Path, order: Order, chunks: Any
) -> None:
    build(tmp_path / "raw.zarr", pairs(sources / "raw"), chunk_bytes=30_000)
    scaled = rescale(open_store(tmp_path / "raw.zarr", chunks=chunks))
    write_zarr(scaled, tmp_path / "local.zarr", order=order, chunk_bytes=50_000)
    write_zarr(scaled, tmp_path / "remote.zarr", order=order, chunk_bytes=50_000, client=client)
    assert file_contents(tmp_path / "local.zarr") == file_contents(tmp_path / "remote.zarr")


def read_by_workers(client: Any) -> int:
    """Return how many bytes the workers have read from files, which sockets do not count as."""
    pids = client.run(os.getpid).values()
    return sum(psutil.Process(pid).io_counters().read_chars for pid in pids)


@needs_proc
@pytest.mark.parametrize("order", ["source", "label"])
def test_workers_read_raw_files_themselves_and_gzip_is_decoded_once_and_sent_to_them(
    client: Any, sources: Path, tmp_path: Path, order: Order, decoded: list[int]
) -> None:
    image_bytes = 5000 * 100
    client.run(build, MemoryStore(), pairs(sources / "raw"))  # so that imports do not count
    read = {}
    for kind in ("raw", "gz"):
        before = read_by_workers(client)
        target = tmp_path / f"{kind}.zarr"
        build(target, pairs(sources / kind), order=order, chunk_bytes=20_000, client=client)
        read[kind] = read_by_workers(client) - before
    assert read["raw"] > image_bytes > read["gz"]
    headers = 2 * 16
    assert sum(decoded) == image_bytes + headers


@needs_proc
@pytest.mark.parametrize("order", ["source", "label"])
def test_workers_decode_pictures_and_the_client_decodes_none(
    client: Any, tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "p", *(f"{n % 3}/{n}.png" for n in range(60)))
    build(tmp_path / "local.zarr", folder, order=order, chunk_bytes=500)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded by the client")

    monkeypatch.setattr(pictures, "decode", refuse)
    build(tmp_path / "remote.zarr", folder, order=order, chunk_bytes=500, client=client)
    local, remote = file_contents(tmp_path / "local.zarr"), file_contents(tmp_path / "remote.zarr")
    assert local == remote


def test_the_active_client_is_used(client: Any, sources: Path, tmp_path: Path) -> None:
    before = client.run(lambda dask_worker: dask_worker.state.transition_counter)
    with client.as_current():
        build(tmp_path / "t.zarr", pairs(sources / "raw"), chunk_bytes=20_000)
    # as_current is for the present thread: what it finds must be what default_client finds
    after = client.run(lambda dask_worker: dask_worker.state.transition_counter)
    assert sum(after.values()) > sum(before.values())
    assert xr.open_zarr(tmp_path / "t.zarr").sizes["sample"] == 5000


def test_a_store_in_memory_is_written_by_this_process(client: Any, sources: Path) -> None:
    store = MemoryStore()
    write_zarr(open_idx(pairs(sources / "raw")), store, client=client)
    assert xr.open_zarr(store).image.values.any()


@pytest.mark.parametrize("kind", ["raw", "gz"])
def test_a_worker_killed_in_the_middle_does_no_harm(
    sources: Path, tmp_path: Path, kind: str
) -> None:
    source = pairs(sources / kind)
    options: dict[str, Any] = {"order": "label", "chunk_bytes": 4_000, "level": 19}
    build(tmp_path / "local.zarr", source, **options)
    with cluster_of_processes() as (cluster, client):
        victim = next(iter(cluster.workers.values())).pid
        killer = threading.Thread(target=kill_when_some_are_written, args=(victim, tmp_path))
        killer.start()
        build(tmp_path / "remote.zarr", source, client=client, **options)
        killer.join()
    assert file_contents(tmp_path / "local.zarr") == file_contents(tmp_path / "remote.zarr")


def kill_when_some_are_written(pid: int, folder: Path) -> None:
    while len(list(folder.glob(".remote.zarr.building-*/new/image/c/*"))) < 5:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("target", [URL, URL + ".zip"])
def test_workers_of_a_cluster_write_into_a_bucket(
    client: Any, s3: S3Server, tmp_path: Path, target: str
) -> None:
    ds = square_digits()
    write_idx(ds.image.values, tmp_path / "a-images-idx3-ubyte")
    write_idx(ds.label.values, tmp_path / "a-labels-idx1-ubyte")
    source = tmp_path / "a-images-idx3-ubyte"
    for overwrite in (False, True):
        build(
            target,
            source,
            chunk_bytes=CHUNK_BYTES,
            storage_options=s3.options,
            client=client,
            overwrite=overwrite,
        )
        assert len(s3.asked("PUT", "image/c/")) == (N_CHUNKS if target == URL else 0)
    back = open_store(target, storage_options=s3.options).load()
    np.testing.assert_array_equal(back.image.values, ds.image.values)
    np.testing.assert_array_equal(back.label.values, ds.label.values)
