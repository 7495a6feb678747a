"""What texts say of a default is what it is."""

from __future__ import annotations

import re
import subprocess
import sys

from click.testing import CliRunner

from mnist_zarr.cli import ByteSize, main
from mnist_zarr.writing.defaults import (
    CHUNK_BYTES_OF_ORDER,
    MOST_CHUNK_OBJECTS,
    SHARD_BYTES,
)
from mnist_zarr.writing.writer import write_zarr


def test_the_docstring_names_the_sizes_of_chunks() -> None:
    text = " ".join(str(write_zarr.__doc__).split())
    source, label = CHUNK_BYTES_OF_ORDER["source"], CHUNK_BYTES_OF_ORDER["label"]
    assert f"By default {source:,}, and {label:,} in label order." in text
    assert f"By default {SHARD_BYTES:,} if there would be more than {MOST_CHUNK_OBJECTS:,}" in text
    assert CHUNK_BYTES_OF_ORDER["shuffled"] == source


def test_the_help_names_the_sizes_of_chunks() -> None:
    text = " ".join(CliRunner().invoke(main, ["build", "--help"]).output.split())
    sizes = re.search(r"\[default: (\S+), in label order (\S+)\]", text)
    assert sizes is not None
    told = [ByteSize().convert(size, None, None) for size in sizes.groups()]
    assert told == [CHUNK_BYTES_OF_ORDER["source"], CHUNK_BYTES_OF_ORDER["label"]]
    shards = re.search(r"\[default: (\S+) for more than (\S+) chunks, else no shards\]", text)
    assert shards is not None
    assert ByteSize().convert(shards[1], None, None) == SHARD_BYTES
    assert int(shards[2].replace(",", "")) == MOST_CHUNK_OBJECTS


def test_the_defaults_are_known_without_importing_the_writer() -> None:
    code = "import sys, mnist_zarr.cli; print({'numpy', 'xarray', 'zarr'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
