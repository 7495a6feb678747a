"""Azure and Google storage, as Azurite and fake-gcs-server emulate them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.clouds import (
    GOOGLE_ENVIRONMENT,
    azure_options,
    google_options,
    running_azure,
    running_google,
)
from tests.support.partners import partner

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
# Words that obstore has none for.
WORDS_OF_FSSPEC = {"az": {"max_concurrency": 4}, "gs": {"requests_timeout": 60}}
readers = pytest.mark.parametrize("reader", ["obstore", "fsspec"])


def play(protocol: str, folder: Path, options: dict[str, Any], reader: str) -> None:
    if reader == "obstore":
        partner("obstore")
    else:
        options = {**options, **WORDS_OF_FSSPEC[protocol]}
    command = [sys.executable, "-W", "error", "-m", "tests.promises.cloud_scenario"]
    done = subprocess.run(
        [*command, protocol, str(folder), json.dumps(options), reader],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
        env={**os.environ, **GOOGLE_ENVIRONMENT},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@readers
def test_azure_gives_the_guarantees_of_s3(azurite: Path, tmp_path: Path, reader: str) -> None:
    with running_azure(azurite) as port:
        play("az", tmp_path, azure_options(port), reader)


@readers
def test_google_storage_gives_the_guarantees_of_s3(tmp_path: Path, reader: str) -> None:
    with running_google() as port:
        play("gs", tmp_path, google_options(port), reader)
