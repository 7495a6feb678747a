"""Writers of MNIST's digits, from a small table made here and from QMNIST's own where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

import mnist_zarr
from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.catalog.qmnist import join_label_tables, join_writers, read_label_table
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import DownloadError, SourceError
from tests.support.files import idx_gz_bytes
from tests.support.partners import partner

SHARED = Path(os.environ.get("MNIST_ZARR_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
TABLES = sorted((SHARED / "qmnist").glob("qmnist-*-labels-idx2-int.gz"))

TRAIN = np.zeros((60, 8), np.int32)
TRAIN[:, 0] = np.arange(60) % 10
TRAIN[:, 1] = np.arange(60) % 2 * 4
TRAIN[:, 2] = np.where(TRAIN[:, 1] == 4, 2150 + np.arange(60) // 6, np.arange(60) // 6)
TEST = TRAIN[:30].copy()
TEST[:, 2] += 100
BOTH = np.concatenate([TRAIN, TEST])


def made_dataset() -> xr.Dataset:
    return make_dataset(
        np.zeros((90, 2, 2), np.uint8),
        label=BOTH[:, 0].astype(np.uint8),
        split=np.repeat(np.array(["train", "test"], np.dtypes.StringDType()), [60, 30]),
        source_index=np.arange(90, dtype=np.uint32),
    )


def test_every_sample_gets_its_writer_and_series() -> None:
    ds = join_label_tables(made_dataset(), [TRAIN, TEST])
    assert (ds.writer.dtype, ds.series.dtype) == (np.dtype("uint16"), np.dtype("uint8"))
    assert (ds.writer.values == BOTH[:, 2]).all()
    assert (ds.series.values == BOTH[:, 1]).all()
    assert class_names(ds, "series")[4] == "hsf 4"
    assert "high-school" in ds.series.attrs["comment"]
    assert ds.drop_vars(["writer", "series"]).identical(made_dataset())


@given(st.lists(st.integers(0, 89)))
def test_any_selection_in_any_order_gets_the_same_writers(samples: list[int]) -> None:
    ds = join_label_tables(made_dataset().isel(sample=samples), [TRAIN, TEST])
    assert ds.writer.values.tolist() == BOTH[samples, 2].tolist()


def test_a_label_ordered_store_gets_the_same_writers_and_is_selected_by_them(
    tmp_path: Path,
) -> None:
    mnist_zarr.write_zarr(made_dataset(), tmp_path / "s.zarr", order="label")
    ds = join_label_tables(xr.open_zarr(tmp_path / "s.zarr"), [TRAIN, TEST])
    assert (ds.writer.values == BOTH[ds.source_index.values, 2]).all()
    of_one = np.flatnonzero(BOTH[:, 2] == 2154)
    assert sorted(ds.sel(writer=2154).source_index.values.tolist()) == of_one.tolist()
    selected = mnist_zarr.select(ds, writer=2154, series="hsf_4")
    assert selected.sizes["sample"] == len(of_one) == 3


def test_writers_survive_being_written(tmp_path: Path) -> None:
    mnist_zarr.write_zarr(join_label_tables(made_dataset(), [TRAIN, TEST]), tmp_path / "s.zarr")
    ds = xr.open_zarr(tmp_path / "s.zarr")
    assert ds.sel(writer=2154).sizes["sample"] == 3
    assert ds.series.attrs["flag_meanings"] == "hsf_0 hsf_1 hsf_2 hsf_3 hsf_4"


def test_labels_that_differ_are_refused_and_the_first_is_named() -> None:
    ds = made_dataset()
    ds.label.values[[7, 70]] = 9
    with pytest.raises(SourceError) as caught:
        join_label_tables(ds, [TRAIN, TEST])
    assert (
        "2 of 90 labels differ; the first is sample 7 with source_index 7: label 9, in MNIST 7"
        in (str(caught.value))
    )


def test_the_test_samples_alone_are_refused_if_they_count_from_0() -> None:
    ds = made_dataset().isel(sample=slice(60, None))
    assert join_label_tables(ds, [TRAIN, TEST]).writer.values.tolist() == TEST[:, 2].tolist()
    shifted = ds.assign_coords(source_index=("sample", np.arange(1, 31, dtype=np.uint32)))
    with pytest.raises(SourceError, match="30 of 30 labels differ"):
        join_label_tables(shifted, [TRAIN, TEST])


@pytest.mark.parametrize("name", ["label", "source_index"])
def test_a_dataset_that_cannot_be_matched_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=f"it has no coordinate '{name}'"):
        join_label_tables(made_dataset().drop_vars(name), [TRAIN, TEST])


def test_a_dataset_with_more_samples_is_refused() -> None:
    with pytest.raises(SourceError, match="source_index goes up to 89, MNIST has 60 samples"):
        join_label_tables(made_dataset(), [TRAIN])


def test_another_data_set_of_the_catalog_is_refused_even_if_its_labels_agree() -> None:
    ds = made_dataset().assign_attrs(title=CATALOG["kmnist"].title)
    with pytest.raises(SourceError, match=r"writers are known only of MNIST.*Kuzushiji-MNIST"):
        join_label_tables(ds, [TRAIN, TEST])


def test_a_made_table_from_a_mirror_is_refused_since_it_is_not_the_published_one(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner("pooch")
    path = "/qmnist/qmnist-train-labels-idx2-int.gz"
    httpserver.expect_request(path).respond_with_data(idx_gz_bytes(TRAIN))
    monkeypatch.setenv("MNIST_ZARR_MIRROR", httpserver.url_for("/"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # keeps the test off the network
    with pytest.raises(DownloadError, match="bytes instead of 463,024"):
        join_writers(open_dataset("mnist"))
    assert [request.path for request, _ in httpserver.log] == [path]


def test_a_label_table_is_checked_for_its_shape(tmp_path: Path) -> None:
    (tmp_path / "table.gz").write_bytes(idx_gz_bytes(TRAIN))
    assert (read_label_table(tmp_path / "table.gz") == TRAIN).all()
    (tmp_path / "table.gz").write_bytes(idx_gz_bytes(TRAIN[:, :7]))
    with pytest.raises(SourceError, match=r"expected a label table .* of shape \(60, 7\)"):
        read_label_table(tmp_path / "table.gz")


@pytest.mark.skipif(len(TABLES) != 2, reason="QMNIST's label tables are not here")
class TestPublishedTables:
    @pytest.fixture
    def joined(self, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> xr.Dataset:
        for path in TABLES:
            httpserver.expect_request(f"/qmnist/{path.name}").respond_with_data(path.read_bytes())
        monkeypatch.setenv("MNIST_ZARR_MIRROR", httpserver.url_for("/"))
        return join_writers(open_dataset("mnist"))

    def test_mnist_has_the_published_numbers_of_writers(self, joined: xr.Dataset) -> None:
        train, test = (mnist_zarr.select(joined, split=split) for split in ("train", "test"))
        assert len(np.unique(train.writer)) == 539
        assert not set(np.unique(train.writer)) & set(np.unique(test.writer))
        employees, students = (mnist_zarr.select(train, series=name) for name in ("hsf_0", "hsf_4"))
        assert (employees.sizes["sample"], students.sizes["sample"]) == (30_950, 29_050)
        assert students.writer.values.min() >= 2100

    def test_one_writer_is_selected_lazily(self, joined: xr.Dataset) -> None:
        assert joined.sel(writer=2154).sizes["sample"] == 115
        assert mnist_zarr.select(joined, writer=2154).sizes["sample"] == 115
        assert not joined.image.variable._in_memory

    def test_kmnist_made_of_mnist_with_shuffled_labels_is_refused(self, joined: xr.Dataset) -> None:
        other = joined.assign_coords(label=("sample", joined.label.values[::-1]))
        with pytest.raises(SourceError, match="labels differ"):
            join_writers(other)
