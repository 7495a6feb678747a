"""Stores read by implementations of Zarr other than zarr-python: pixels are compared.

What each of them cannot read is in README, section "Other readers".
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.writing.writer import write_zarr
from tests.support.partners import partner

ZARRITA = "zarrita@0.7"
DS = open_dataset("mnist").isel(sample=slice(59_800, 60_200)).load()
NUMBERS = ("label", "source_index")
pytestmark = pytest.mark.xdist_group("npm")


LAYOUTS: dict[str, dict[str, Any]] = {
    "format 3, zstd": {},
    "format 3, gzip": {"codec": "gzip"},
    "format 3, shards": {"shard_bytes": 160_000},
    "format 2, zstd": {"zarr_format": 2},
    "format 2, gzip": {"zarr_format": 2, "codec": "gzip"},
}


def build(tmp_path: Path, layout: str) -> Path:
    options = {"chunk_bytes": 40_000, "level": 1, **LAYOUTS[layout]}
    write_zarr(DS, tmp_path / "t.zarr", **options)
    return tmp_path / "t.zarr"


def all_but(*names: str) -> list[str]:
    return [name for name in LAYOUTS if name not in names]


@pytest.mark.parametrize("layout", all_but("format 2, zstd"))
def test_tensorstore_reads_pixels_and_numbers(tmp_path: Path, layout: str) -> None:
    tensorstore = partner("tensorstore")
    store = build(tmp_path, layout)
    driver = "zarr" if layout.startswith("format 2") else "zarr3"
    for name in ("image", *NUMBERS):
        place = {"driver": "file", "path": f"{store}/{name}/"}
        values = tensorstore.open({"driver": driver, "kvstore": place}).result().read().result()
        np.testing.assert_array_equal(values, DS[name].values)
        assert values.dtype == DS[name].dtype


@pytest.mark.parametrize("layout", all_but("format 2, zstd"))
def test_zarrs_reads_everything_without_falling_back(tmp_path: Path, layout: str) -> None:
    partner("zarrs")
    store = build(tmp_path, layout)
    # Where zarrs cannot decode an array it warns, which is an error here.
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        xr.testing.assert_equal(xr.open_zarr(store, chunks=None).load(), DS)


@pytest.fixture(scope="session")
def zarrita(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zarrita")
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), ZARRITA]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        pytest.skip(f"npm cannot install {ZARRITA}: {done.stderr[-200:]}")
    shutil.copy(Path(__file__).parent / "other_readers.mjs", folder)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zarrita_reads_everything(tmp_path: Path, zarrita: Path, layout: str) -> None:
    store = build(tmp_path, layout)
    command = ["node", "other_readers.mjs", str(store), str(tmp_path / "pixels")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=zarrita)
    assert (done.returncode, done.stderr) == (0, "")
    pixels = np.fromfile(tmp_path / "pixels", np.uint8).reshape(DS.image.shape)
    np.testing.assert_array_equal(pixels, DS.image.values)
    for name, values in json.loads(done.stdout).items():
        np.testing.assert_array_equal(values, DS[name].values.astype(object))


@pytest.mark.parametrize("layout", all_but("format 3, shards"))
def test_gdal_reads_pixels_and_numbers(tmp_path: Path, layout: str) -> None:
    if shutil.which("gdalmdiminfo") is None:
        pytest.skip("GDAL is not installed (Debian: apt-get install gdal-bin)")
    shown = subprocess.run(["gdalinfo", "--version"], capture_output=True, text=True, check=True)
    version = re.findall(r"\d+", shown.stdout)[:2]
    if layout.startswith("format 3") and (int(version[0]), int(version[1])) < (3, 8):
        pytest.skip(f"GDAL reads Zarr format 3 since 3.8; this is {'.'.join(version)}")
    store = build(tmp_path, layout)
    for name in ("image", *NUMBERS):
        command = ["gdalmdiminfo", "-detailed", "-array", name, str(store)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        np.testing.assert_array_equal(json.loads(done.stdout)["values"], DS[name].values)
