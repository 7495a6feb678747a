"""OpenML through scikit-learn's real fetch_openml, which talks to a server on loopback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

import mnist_zarr
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.catalog.openml import open_openml
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import validate
from mnist_zarr.errors import DownloadError, MissingExtraError, SourceError
from tests.support.openml_server import API, DATA_ID, OpenmlServer, point_to
from tests.support.servers import free_port


@pytest.fixture(autouse=True)
def openml(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> OpenmlServer:
    def unknown(_: Request) -> Response:
        # OpenML's answer to a question without a result.
        return Response('{"error": {"code": "372", "message": "No results"}}', status=412)

    httpserver.expect_request(
        f"{API}/list/data_name/nosuch/limit/2/data_version/1"
    ).respond_with_handler(unknown)
    httpserver.expect_request(
        f"{API}/list/data_name/nosuch/limit/2/data_version/1/status/deactivated"
    ).respond_with_handler(unknown)
    point_to(httpserver.url_for("/"), monkeypatch)
    return OpenmlServer(httpserver)


@pytest.fixture(scope="module")
def digits() -> xr.Dataset:
    return open_dataset("mnist").isel(sample=slice(0, 300)).load()


def flat(ds: xr.Dataset) -> npt.NDArray[np.uint8]:
    table: npt.NDArray[np.uint8] = ds.image.values.reshape(ds.sizes["sample"], -1)
    return table


def test_real_digits_come_back_as_images_and_labels(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path
) -> None:
    openml.offer(flat(digits), digits.label.values)
    ds = open_openml("mnist_784", version=1, data_home=tmp_path)
    validate(ds)
    assert {str(name): var.dtype for name, var in ds.variables.items()} == {
        "image": np.dtype("uint8"),
        "label": np.dtype("uint8"),
        "source_index": np.dtype("uint32"),
    }
    assert (ds.image.values == digits.image.values).all()
    assert (ds.label.values == digits.label.values).all()
    assert class_names(ds) == {digit: str(digit) for digit in range(10)}
    assert ds.image.attrs["valid_range"] == [0, 255]


def test_the_attributes_are_those_that_openml_states(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path
) -> None:
    few = digits.isel(sample=slice(20))
    stated = {
        "creator": ["Yann LeCun", "Corinna Cortes"],
        "licence": "Public",
        "citation": "The MNIST database",
    }
    openml.offer(flat(few), few.label.values, details=stated)
    attrs = open_openml(data_home=tmp_path).attrs
    assert attrs["title"] == "mnist_784"
    assert attrs["creator"] == "Yann LeCun, Corinna Cortes"
    assert attrs["license"] == "Public"
    assert attrs["references"] == "The MNIST database"
    assert attrs["source"].endswith(f"openml.org/d/{DATA_ID}")


def test_a_store_built_from_openml_has_the_pixels_of_the_idx_files(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path
) -> None:
    few = digits.isel(sample=slice(50))
    openml.offer(flat(few), few.label.values)
    mnist_zarr.build(tmp_path / "o.zarr", open_openml(data_home=tmp_path), order="label")
    store = xr.open_zarr(tmp_path / "o.zarr")
    assert (store.image.values == digits.image.values[store.source_index.values]).all()


def test_the_download_is_kept_in_the_folder_given(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path, httpserver: HTTPServer
) -> None:
    few = digits.isel(sample=slice(5))
    openml.offer(flat(few), few.label.values)
    open_openml(data_home=tmp_path)
    asked = len(httpserver.log)
    open_openml(data_home=str(tmp_path))
    assert len(httpserver.log) == asked > 0


def test_features_that_are_no_square_keep_rank_2(openml: OpenmlServer, tmp_path: Path) -> None:
    table = np.arange(24).reshape(4, 6)
    openml.offer(table, [3, 1, 1, 2], name="Strips")
    ds = open_openml("Strips", data_home=tmp_path)
    assert ds.image.dims == ("sample", "dim_1")
    assert (ds.image.values == table).all()


def test_words_as_labels_are_numbered_in_alphabetical_order(
    openml: OpenmlServer, tmp_path: Path
) -> None:
    openml.offer(np.zeros((3, 4), int), ["dog", "'a cat'", "dog"], label_type="{dog,'a cat'}")
    ds = open_openml(data_home=tmp_path)
    assert ds.label.values.tolist() == [1, 0, 1]
    assert class_names(ds) == {0: "a cat", 1: "dog"}


def test_numeric_labels_keep_their_values(openml: OpenmlServer, tmp_path: Path) -> None:
    openml.offer(np.zeros((3, 4), int), [10, -2, 9], label_type="NUMERIC")
    ds = open_openml(data_home=tmp_path)
    assert ds.label.values.tolist() == [10, -2, 9]
    assert ds.label.attrs["flag_values"] == [-2, 9, 10]
    assert ds.label.dtype.kind == "i"


@pytest.mark.parametrize("bad", [0.5, 256, -1, "?"])
def test_values_that_are_no_bytes_are_refused_with_their_place(
    bad: Any, openml: OpenmlServer, tmp_path: Path
) -> None:
    table = np.zeros((3, 4), object)
    table[2, 1] = bad
    openml.offer(table, [0, 1, 2])
    shown = "nan" if bad == "?" else str(bad)
    with pytest.raises(SourceError, match=rf"got {shown}\S* at sample 2, feature 1"):
        open_openml(data_home=tmp_path)


def test_an_unknown_name_raises_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"OpenML 'nosuch', version 1: .*not found"):
        open_openml("nosuch", data_home=tmp_path)


def test_a_table_with_wrong_bytes_is_refused(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path
) -> None:
    few = digits.isel(sample=slice(5))
    openml.offer(flat(few), few.label.values, details={"md5_checksum": "0" * 32})
    with pytest.raises(SourceError, match="md5 checksum"):
        open_openml(data_home=tmp_path)


def test_no_network_raises_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn.datasets._openml.time.sleep", lambda _: None)
    point_to(f"http://127.0.0.1:{free_port()}/", monkeypatch)
    with pytest.raises(DownloadError, match=r"refused.*open_dataset\('mnist'\)"):
        open_openml(data_home=tmp_path)


def test_without_scikit_learn_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[sklearn\]'"):
        open_openml(data_home=tmp_path)
