"""Every data set of the catalog but MNIST, with small files in the published layout."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import pickle
import re
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

import mnist_zarr
from mnist_zarr.catalog.download import ArchiveMember, CachedFile, RemoteFile
from mnist_zarr.catalog.entries import CATALOG, EMNIST_ARCHIVE, CatalogEntry, DataFile, Split
from mnist_zarr.catalog.opening import describe_catalog, open_dataset, open_entry
from mnist_zarr.cli import main
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import validate
from mnist_zarr.errors import DownloadError, SourceError
from mnist_zarr.formats.idx import write_idx

OTHERS = [name for name in CATALOG if name != "mnist"]
EMNIST = [name for name in OTHERS if name.startswith("emnist")]
SHARED = Path(os.environ.get("MNIST_ZARR_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
N_SAMPLES = {"train": 70, "test": 40}


class SmallCopy:
    """A data set of the catalog with small files instead of the published ones.

    The files lie in a folder that can serve as a mirror. The entry differs from
    the published one in sizes and checksums alone.

    Attributes
    ----------
    entry : CatalogEntry
        What to open.
    images, tables : dict
        What is in the files, for each split: the pixels upright, and a label
        table of QMNIST, of which the other data sets have column 0.
    """

    def __init__(self, entry: CatalogEntry, mirror: Path) -> None:
        self._kind = entry.kind
        self._mirror = mirror
        rng = np.random.default_rng(7)
        labels = entry.first_label + np.arange(max(N_SAMPLES.values())) % len(entry.class_names)
        self.images = {
            split: rng.integers(0, 256, (n, 3, 5), dtype=np.uint8) for split, n in N_SAMPLES.items()
        }
        self.tables = {split: make_label_table(labels[:n]) for split, n in N_SAMPLES.items()}
        contents = {
            part.split: (self._image_bytes(part.split), self._label_bytes(part.split))
            for part in entry.parts
        }
        archive = self._make_archive(entry, contents)
        self.entry = replace(
            entry,
            parts=tuple(
                Split(
                    part.split,
                    self._publish(part.images, contents[part.split][0], archive),
                    self._publish(part.labels, contents[part.split][1], archive),
                )
                for part in entry.parts
            ),
        )

    def _image_bytes(self, split: str) -> bytes:
        images = self.images[split]
        if self._kind == "npz":
            return npz_bytes(images)
        return idx_gz_bytes(images.swapaxes(1, 2) if self._kind == "idx transposed" else images)

    def _label_bytes(self, split: str) -> bytes:
        table = self.tables[split]
        if self._kind == "qmnist":
            return idx_gz_bytes(table)
        labels = table[:, 0].astype(np.uint8)
        return npz_bytes(labels) if self._kind == "npz" else idx_gz_bytes(labels)

    def _make_archive(
        self, entry: CatalogEntry, contents: dict[str, tuple[bytes, bytes]]
    ) -> RemoteFile | None:
        file = entry.parts[0].images
        if not isinstance(file, ArchiveMember):
            return None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for part in entry.parts:
                for member, data in zip(
                    (part.images, part.labels), contents[part.split], strict=True
                ):
                    assert isinstance(member, ArchiveMember)
                    archive.writestr(member.member, data)
        return self._offer(file.archive, buffer.getvalue())

    def _publish(self, file: DataFile, data: bytes, archive: RemoteFile | None) -> DataFile:
        if isinstance(file, RemoteFile):
            return self._offer(file, data)
        assert isinstance(file, ArchiveMember)
        assert archive is not None
        md5 = f"md5:{hashlib.md5(data).hexdigest()}" if file.checksum else None
        return replace(file, archive=archive, checksum=md5)

    def _offer(self, file: RemoteFile, data: bytes) -> RemoteFile:
        place = self._mirror / file.dataset / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        return replace(file, mirrors=(), checksum=f"sha256:{digest}", size=len(data))


def make_label_table(labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a label table of QMNIST: series 0 and 4, writers 0, 1 and 2154, 2155."""
    table = np.zeros((len(labels), 8), np.int32)
    table[:, 0] = labels
    table[:, 1] = np.arange(len(labels)) % 2 * 4
    table[:, 2] = np.arange(len(labels)) // 30 + 2154 * (table[:, 1] == 4)
    return table


def idx_gz_bytes(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    write_idx(array, buffer)
    return gzip.compress(buffer.getvalue(), mtime=0)


def npz_bytes(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MNIST_ZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MNIST_ZARR_MIRROR", (tmp_path / "mirror").as_uri())
    return tmp_path / "cache"


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: Path) -> SmallCopy:
    return SmallCopy(CATALOG[request.param], tmp_path / "mirror")


every_data_set = pytest.mark.parametrize("small", OTHERS, indirect=True)


@every_data_set
def test_images_labels_and_splits_are_those_of_the_files(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    validate(ds)
    assert {str(name): var.dtype for name, var in ds.variables.items()}.items() >= {
        "image": np.dtype("uint8"),
        "label": np.dtype("uint8"),
        "split": np.dtypes.StringDType(),
        "source_index": np.dtype("uint32"),
    }.items()
    images = np.concatenate([small.images["train"], small.images["test"]])
    tables = np.concatenate([small.tables["train"], small.tables["test"]])
    assert (ds.image.values == images).all()
    assert (ds.label.values == tables[:, 0]).all()
    assert ds.split.values.tolist() == [s for s, n in N_SAMPLES.items() for _ in range(n)]
    assert ds.source_index.values.tolist() == list(range(sum(N_SAMPLES.values())))


@every_data_set
def test_dask_arrays_have_the_same_values_and_attributes(small: SmallCopy) -> None:
    ds, lazy = open_entry(small.entry), open_entry(small.entry, chunks={})
    assert lazy.image.chunks is not None
    assert lazy.identical(ds)


@every_data_set
def test_a_store_opens_in_plain_xarray_with_the_same_values(
    small: SmallCopy, tmp_path: Path
) -> None:
    mnist_zarr.build(tmp_path / "s.zarr", open_entry(small.entry), order="label", level=1)
    store, ds = xr.open_zarr(tmp_path / "s.zarr"), open_entry(small.entry)
    assert len(store.attrs["source_sha256"]) == 4
    assert set(store.variables) == set(ds.variables)
    by_source = store.isel(sample=np.argsort(store.source_index.values))
    for name in ds.variables:
        assert (by_source[name].values == ds[name].values).all(), name
    assert store.label.attrs["flag_meanings"] == ds.label.attrs["flag_meanings"]


@every_data_set
def test_every_class_is_named_and_selectable_by_its_name(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    names = class_names(ds)
    assert tuple(names.values()) == small.entry.class_names
    assert set(ds.label.values.tolist()) == set(names)
    for value, name in names.items():
        assert set(mnist_zarr.select(ds, label=name).label.values.tolist()) == {value}


@every_data_set
def test_the_attributes_say_what_the_data_are_and_who_made_them(small: SmallCopy) -> None:
    attrs = open_entry(small.entry).attrs
    assert attrs["title"] == small.entry.title
    assert attrs["license"]
    assert "arXiv:" in attrs["references"]
    assert len(attrs["source"].split(", ")) == 4


@pytest.mark.parametrize("small", EMNIST, indirect=True)
def test_emnist_is_served_upright_lazily_and_says_so(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert ds.image.attrs["source_dims"] == "sample col row"
    assert not ds.image.variable._in_memory
    assert (ds.image[70].values == small.images["test"][0]).all()
    scattered = ds.image.isel(sample=[109, 3, 71], row=slice(1, None), col=[4, 0])
    upright = np.concatenate([small.images["train"], small.images["test"]])
    assert (scattered.values == upright[[109, 3, 71]][:, 1:][:, :, [4, 0]]).all()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_copy_of_ones_own_is_opened_upright_too(tmp_path: Path, suffix: str) -> None:
    upright = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
    data = idx_gz_bytes(upright.swapaxes(1, 2))
    path = tmp_path / f"own-images-idx3-ubyte{suffix}"
    path.write_bytes(data if suffix else gzip.decompress(data))
    ds = xr.open_dataset(path, transposed=True)
    assert ds.image.dims == ("sample", "row", "col")
    assert (ds.image.values == upright).all()
    sent = pickle.loads(pickle.dumps(mnist_zarr.open_idx(path, transposed=True, chunks={})))
    assert (sent.image[2].values == upright[2]).all()
    assert "source_dims" not in xr.open_dataset(path).image.attrs


def test_only_images_can_be_transposed(tmp_path: Path) -> None:
    write_idx(np.zeros((4, 6), np.uint8), tmp_path / "rows.idx")
    with pytest.raises(SourceError, match=r"expected images of shape .* got \(4, 6\)"):
        mnist_zarr.open_idx(tmp_path / "rows.idx", transposed=True)


@pytest.mark.parametrize("small", ["k49"], indirect=True)
def test_archives_of_numpy_are_read_lazily(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert not ds.image.variable._in_memory
    assert (ds.image[70].values == small.images["test"][0]).all()


@pytest.mark.parametrize("small", ["emnist-letters"], indirect=True)
def test_letters_keep_their_numbers_from_1_on(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert ds.label.attrs["flag_values"] == list(range(1, 27))
    assert (ds.label.values.min(), ds.label.values.max()) == (1, 26)
    assert set(mnist_zarr.select(ds, label="Z").label.values.tolist()) == {26}


@pytest.mark.parametrize("small", ["emnist-byclass"], indirect=True)
def test_small_and_capital_letters_are_told_apart(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    assert set(mnist_zarr.select(ds, label=["a", "B"]).label.values.tolist()) == {36, 11}


@pytest.mark.parametrize("small", ["qmnist"], indirect=True)
def test_qmnist_has_writers_and_series(small: SmallCopy) -> None:
    ds = open_entry(small.entry)
    table = np.concatenate([small.tables["train"], small.tables["test"]])
    assert (ds.writer.dtype, ds.series.dtype) == (np.dtype("uint16"), np.dtype("uint8"))
    assert (ds.series.values == table[:, 1]).all()
    assert (ds.writer.values == table[:, 2]).all()
    assert ds.sel(writer=2154).sizes["sample"] == np.count_nonzero(table[:, 2] == 2154) > 0
    students = mnist_zarr.select(ds, series="hsf_4")
    assert students.sizes["sample"] == np.count_nonzero(table[:, 1] == 4)


def test_the_variants_of_emnist_share_one_download_of_the_archive(
    tmp_path: Path, cache: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallCopy(CATALOG["emnist-mnist"], tmp_path / "mirror")
    archive = (tmp_path / "mirror" / "emnist" / "gzip.zip").read_bytes()
    httpserver.expect_request("/emnist/gzip.zip").respond_with_data(archive)
    monkeypatch.setenv("MNIST_ZARR_MIRROR", httpserver.url_for("/"))
    for _ in range(2):
        open_entry(small.entry)
    assert len(httpserver.log) == 1
    pinned = [path.name for path in (cache / "emnist").glob("*.sha256")]
    assert len(pinned) == 4  # nobody published checksums of these members
    archives = {
        file.archive
        for name in EMNIST
        for file in CATALOG[name].files
        if isinstance(file, ArchiveMember)
    }
    assert archives == {EMNIST_ARCHIVE}


@every_data_set
def test_files_that_are_not_the_published_ones_are_refused(small: SmallCopy, cache: Path) -> None:
    file = _offline(CATALOG[small.entry.name]).parts[0].images
    assert isinstance(file, CachedFile)
    with pytest.raises(DownloadError, match=r"mirror.* bytes instead of ") as caught:
        file.fetch()
    assert f"file://{cache.parent}/mirror/{file.dataset}/" in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name[0] != "."]


def _offline(entry: CatalogEntry) -> CatalogEntry:
    """Return the published entry without its mirrors on the web."""
    return replace(
        entry,
        parts=tuple(
            Split(part.split, _without_mirrors(part.images), _without_mirrors(part.labels))
            for part in entry.parts
        ),
    )


def _without_mirrors(file: DataFile) -> DataFile:
    if isinstance(file, ArchiveMember):
        return replace(file, archive=replace(file.archive, mirrors=()))
    assert isinstance(file, RemoteFile)
    return replace(file, mirrors=())


def test_every_file_on_the_web_has_an_https_mirror_and_a_checksum() -> None:
    files = [file for entry in CATALOG.values() for file in entry.files]
    remote = [file for file in files if isinstance(file, RemoteFile)] + [EMNIST_ARCHIVE]
    assert len(remote) == 17
    assert all(url.startswith("https://") for file in remote for url in file.mirrors)
    assert all(file.mirrors and file.checksum and file.size for file in remote)
    unchecked = {
        file.name for file in files if isinstance(file, ArchiveMember) and file.checksum is None
    }
    assert len(unchecked) == 4
    assert all(name.startswith("emnist-mnist-") for name in unchecked)


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
            if isinstance(file, RemoteFile | ArchiveMember) and file.checksum:
                assert file.checksum in known
            if isinstance(file, RemoteFile) and file.name in sizes:
                assert file.size == int(sizes[file.name])


def test_hiragana_stand_in_the_order_of_unicode() -> None:
    romaji = CATALOG["k49"].class_names
    of_ten = [romaji.index(name) for name in CATALOG["kmnist"].class_names]
    assert all(a < b for a, b in pairwise(of_ten))
    assert len(set(romaji)) == 49


def test_the_merged_classes_of_emnist_are_47() -> None:
    for name in ("emnist-balanced", "emnist-bymerge"):
        assert len(set(CATALOG[name].class_names)) == 47
    assert len(set(CATALOG["emnist-byclass"].class_names)) == 62


@pytest.mark.parametrize("small", ["fashion-mnist"], indirect=True)
def test_build_takes_the_name_and_sources_shows_what_is_here(
    small: SmallCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "fashion-mnist", small.entry)
    assert state_of("fashion-mnist") == "to download"
    mnist_zarr.build(tmp_path / "f.zarr", "fashion-mnist", level=1)
    boots = mnist_zarr.select(mnist_zarr.open_store(tmp_path / "f.zarr"), label="ankle boot")
    assert set(boots.label.values.tolist()) == {9}
    assert state_of("fashion-mnist") == "cached"


def state_of(name: str) -> str:
    result = CliRunner().invoke(main, ["sources"])
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if line.split()[0] == name]
    return line.split("  ")[-1].strip()


def test_sources_lists_every_data_set_with_its_figures() -> None:
    assert state_of("mnist") == "bundled"
    lines = describe_catalog().splitlines()
    assert len(lines) == 12
    byclass = next(line for line in lines if line.startswith("emnist-byclass"))
    assert "814,255" in byclass
    assert " 62 " in byclass
    assert max(map(len, lines)) <= 130


def test_sources_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_ZARR_CACHE")
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert state_of("kmnist") == "to download"


def test_an_archive_that_is_here_counts_as_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallCopy(CATALOG["emnist-digits"], tmp_path / "mirror")
    monkeypatch.setitem(CATALOG, "emnist-digits", small.entry)
    assert state_of("emnist-digits") == "to download"
    own = small.entry.parts[0].images
    assert isinstance(own, ArchiveMember)
    own.archive.fetch()
    assert state_of("emnist-digits") == "cached"


def test_a_data_set_that_cannot_be_had_is_one_sentence_per_mirror_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "kmnist", _offline(CATALOG["kmnist"]))
    result = CliRunner().invoke(main, ["build", str(tmp_path / "k.zarr"), "--source", "kmnist"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: kmnist/train-images-idx3-ubyte.gz: no mirror gives")
    assert not (tmp_path / "k.zarr").exists()


def test_one_opens_a_data_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SmallCopy(CATALOG["k49"], tmp_path / "mirror")
    monkeypatch.setitem(CATALOG, "k49", small.entry)
    assert open_dataset("k49").sizes["sample"] == sum(N_SAMPLES.values())


def test_readme_lists_the_same_data_sets_with_the_same_figures() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \| (\d+) \|", readme, re.MULTILINE)
    assert listed == [
        (entry.name, f"{entry.n_samples:,}", str(len(entry.class_names)))
        for entry in CATALOG.values()
    ]
