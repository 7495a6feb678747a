"""What the catalog says of its data sets, against what is published."""

from __future__ import annotations

import csv
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

import mnist_zarr
from mnist_zarr.catalog.entries import CATALOG, EMNIST_ARCHIVE, MNIST, ArchiveMember, RemoteFile

SHARED = Path(os.environ.get("MNIST_ZARR_TEST_DATA", Path(__file__).parents[3] / "shared/data"))


def test_every_file_on_the_web_has_an_https_mirror_and_a_checksum() -> None:
    files = [file for entry in CATALOG.values() for file in entry.files]
    remote = [file for file in files if isinstance(file, RemoteFile)] + [EMNIST_ARCHIVE]
    assert len(remote) == 17
    assert all(url.startswith("https://") for file in remote for url in file.mirrors)
    assert all(file.mirrors and file.checksum and file.size for file in remote)
    members = [file for file in files if isinstance(file, ArchiveMember)]
    assert len({file.checksum for file in members}) == len(members) == 24


@pytest.mark.skipif(not SHARED.exists(), reason="the list of published checksums is not here")
def test_sizes_and_checksums_are_the_published_ones() -> None:
    with open(SHARED / "checksums.tsv", encoding="utf-8") as listed:
        rows = list(csv.DictReader(listed, delimiter="\t"))
    known = {
        checksum for row in rows for checksum in (f"md5:{row['md5']}", f"sha256:{row['sha256']}")
    }
    sizes = {row["file"]: row["size"] for row in rows if row["dataset"] in ("QMNIST", "K49")}
    for entry in CATALOG.values():
        for file in entry.files:
            if isinstance(file, RemoteFile | ArchiveMember) and entry.name != "emnist-mnist":
                assert file.checksum in known
            if isinstance(file, RemoteFile) and file.name in sizes:
                assert file.size == int(sizes[file.name])


def test_the_hashes_of_mnist_are_those_that_a_store_in_any_order_records(tmp_path: Path) -> None:
    mnist_zarr.build(tmp_path / "m.zarr", "mnist", order="label", level=1)
    attrs = mnist_zarr.open_store(tmp_path / "m.zarr").attrs
    assert MNIST.image_sha256 == attrs["image_sha256"]
    assert MNIST.label_sha256 == attrs["label_sha256"]


def test_hiragana_stand_in_the_order_of_unicode() -> None:
    romaji = CATALOG["k49"].class_names
    of_ten = [romaji.index(name) for name in CATALOG["kmnist"].class_names]
    assert all(a < b for a, b in pairwise(of_ten))
    assert len(set(romaji)) == 49


def test_the_merged_classes_of_emnist_are_47() -> None:
    for name in ("emnist-balanced", "emnist-bymerge"):
        assert len(set(CATALOG[name].class_names)) == 47
    assert len(set(CATALOG["emnist-byclass"].class_names)) == 62


def test_the_documentation_lists_the_same_data_sets_with_the_same_figures() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "build.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \| (\d+) \|", page, re.MULTILINE)
    assert listed == [
        (entry.name, f"{entry.n_samples:,}", str(len(entry.class_names)))
        for entry in CATALOG.values()
    ]
