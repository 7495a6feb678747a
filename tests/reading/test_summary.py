"""The figures of a store against what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.errors import MnistZarrError, StoreError
from mnist_zarr.reading.summary import StoreSummary, summarize
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.object_server import BUCKET, S3Server


@pytest.fixture
def ds() -> xr.Dataset:
    return make_dataset(
        np.arange(600, dtype=np.uint8).reshape(50, 4, 3),
        label=np.repeat(np.array([1, 0], np.uint8), 25),
        split=np.array(["train"] * 30 + ["test"] * 20, dtype=STRING_DTYPE),
        label_attrs=class_attrs([0, 1], ["Bag", "Ankle boot"]),
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_bytes_and_objects_are_those_on_disk(
    ds: xr.Dataset, tmp_path: Path, zarr_format: int
) -> None:
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=120, zarr_format=3 if zarr_format == 3 else 2)
    summary = summarize(tmp_path / "t.zarr")
    assert summary.zarr_format == zarr_format
    image = next(array for array in summary.arrays if array.name == "image")
    on_disk = [path for path in (tmp_path / "t.zarr" / "image").rglob("*") if path.is_file()]
    metadata = [path for path in on_disk if path.name in ("zarr.json", ".zarray", ".zattrs")]
    assert image.stored_bytes == sum(path.stat().st_size for path in on_disk)
    assert image.n_objects == len(on_disk) - len(metadata) == 5
    assert image.raw_bytes == 600
    assert image.codec == "zstd 9"
    assert image.chunks == (10, 4, 3)


def test_shards_are_counted_as_objects(ds: xr.Dataset, tmp_path: Path) -> None:
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=120, shard_bytes=240)
    summary = summarize(tmp_path / "t.zarr")
    image = next(array for array in summary.arrays if array.name == "image")
    assert (image.chunks, image.shards, image.n_objects) == ((10, 4, 3), (20, 4, 3), 3)
    assert "10x4x3 in 20x4x3" in summary.to_text()


def test_a_store_that_opens_rescaled_is_measured_by_the_type_that_it_holds(
    ds: xr.Dataset, tmp_path: Path
) -> None:
    write_zarr(ds, tmp_path / "t.zarr", rescale=(-1, 1))
    image = next(array for array in summarize(tmp_path / "t.zarr").arrays if array.name == "image")
    assert (image.dtype, image.raw_bytes) == ("uint8", 600)


def test_classes_are_counted_by_name_and_split(ds: xr.Dataset, tmp_path: Path) -> None:
    write_zarr(ds, tmp_path / "t.zarr")
    summary = summarize(tmp_path / "t.zarr")
    assert summary.splits == ("train", "test")
    assert summary.counts == {"Bag": (5, 20), "Ankle boot": (25, 0)}
    lines = [line.split() for line in summary.to_text().splitlines()]
    assert ["total", "30", "20", "50"] in lines


def test_without_splits_or_labels_the_columns_are_left_out(ds: xr.Dataset, tmp_path: Path) -> None:
    def text(written: xr.Dataset) -> str:
        write_zarr(written, tmp_path / "t.zarr", overwrite=True)
        summary: StoreSummary = summarize(tmp_path / "t.zarr")
        return summary.to_text()

    lines = [line.split() for line in text(ds.drop_vars("split")).splitlines()]
    assert ["label", "total"] in lines
    assert ["Bag", "25", "█" * 24] in lines
    assert "Bag" not in text(ds.drop_vars(["split", "label"]))


def test_a_store_in_a_bucket_is_opened_and_listed_once(ds: xr.Dataset, s3: S3Server) -> None:
    write_zarr(ds, f"s3://{BUCKET}/t.zarr", storage_options=s3.options)
    s3.requests.clear()
    summary = summarize(f"s3://{BUCKET}/t.zarr", storage_options=s3.options)
    assert summary.counts == {"Bag": (5, 20), "Ankle boot": (25, 0)}
    keys = ["zarr.json", *(f"{name}/c/0" for name in ("label", "split"))]
    expected = [f"/{BUCKET}", *(f"/{BUCKET}/t.zarr/{key}" for key in keys)]
    assert sorted(s3.asked("GET")) == sorted(expected)
    # Before, and after each array, whether the store is still the same one.
    others = [request for request in s3.requests if request[0] != "GET"]
    assert others == [("HEAD", f"/{BUCKET}/t.zarr/zarr.json")] * 3


def test_of_a_store_on_a_web_server_no_image_is_read(ds: xr.Dataset, s3: S3Server) -> None:
    write_zarr(ds, f"s3://{BUCKET}/t.zarr", chunk_bytes=120, storage_options=s3.options)
    s3.requests.clear()
    summary = summarize(f"{s3.address}/{BUCKET}/t.zarr")
    assert summary.arrays[0].n_objects == len(s3.asked("HEAD", "image/c/")) == 5
    assert s3.asked("GET", "image/") == []


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"x"', b"", b"\xff", b"[" * 100_000])
def test_metadata_of_another_kind_are_an_error_of_ours(
    tmp_path: Path, zarr_format: Any, content: bytes
) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", zarr_format=zarr_format)
    root = tmp_path / "d.zarr" / ("zarr.json" if zarr_format == 3 else ".zmetadata")
    root.write_bytes(content)
    with pytest.raises(StoreError, match=r"d\.zarr"):
        summarize(tmp_path / "d.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_byte_of_the_metadata_is_never_a_traceback(
    tmp_path: Path, zarr_format: Any
) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", zarr_format=zarr_format)
    root = tmp_path / "d.zarr" / ("zarr.json" if zarr_format == 3 else ".zmetadata")
    whole, rng = root.read_bytes(), np.random.default_rng(0)
    n_errors = 0
    for place in rng.integers(0, len(whole), 150).tolist():
        flipped = bytes([whole[place] ^ 1 << place % 7])
        root.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            summarize(tmp_path / "d.zarr").to_text()
        except MnistZarrError:
            n_errors += 1
    assert n_errors > 10


def test_the_hashes_of_the_values_are_shown(ds: xr.Dataset, tmp_path: Path) -> None:
    write_zarr(ds, tmp_path / "t.zarr")
    summary = summarize(tmp_path / "t.zarr")
    lines = summary.to_text().splitlines()
    start = lines.index("values, with their SHA-256:")
    names = [name for name in ("image", "label", "split") if f"{name}_sha256" in summary.attrs]
    assert names == ["image", "label", "split"]
    expected = {f"  {summary.attrs[f'{name}_sha256']}  {name}" for name in names}
    assert set(lines[start + 1 : start + 4]) == expected


def test_a_name_for_every_sample_is_no_column_of_the_table(ds: xr.Dataset, tmp_path: Path) -> None:
    names = np.array([f"sample {number}" for number in range(50)])
    write_zarr(ds.assign_coords(split=("sample", names)), tmp_path / "t.zarr")
    summary = summarize(tmp_path / "t.zarr")
    assert summary.splits == ("",)
    assert summary.counts == {"Bag": (25,), "Ankle boot": (25,)}
    assert max(map(len, summary.to_text().splitlines())) < 120
