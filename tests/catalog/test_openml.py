"""OpenML through scikit-learn's real fetch_openml, which talks to a server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from pytest_httpserver import HTTPServer
from sklearn.datasets import _openml
from werkzeug import Request, Response

import mnist_zarr
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.catalog.openml import open_openml
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import validate
from mnist_zarr.errors import DownloadError, MissingExtraError, SourceError

DATA_ID = 554
API = "/api/v1/json/data"

# Addresses in scikit-learn without the host; which ones there are depends on its version.
OFFICIAL_PATHS = {
    key: value.partition("openml.org")[2]
    for key, value in vars(_openml).items()
    if isinstance(value, str) and value.startswith(("https://www.openml", "https://api.openml"))
}


class OpenmlServer:
    """What OpenML answers about one data set: JSON, and its table as gzipped ARFF."""

    def __init__(self, server: HTTPServer) -> None:
        self._server = server

    def offer(
        self,
        table: npt.NDArray[Any],
        labels: Sequence[Any],
        *,
        name: str = "mnist_784",
        label_type: str = "{0,1,2,3,4,5,6,7,8,9}",
        details: dict[str, Any] | None = None,
    ) -> None:
        arff = gzip.compress(arff_bytes(name, table, labels, label_type))
        pixels = [f"pixel{number}" for number in range(1, table.shape[1] + 1)]
        features = [feature(index, name, "numeric") for index, name in enumerate(pixels)]
        kind = "numeric" if label_type == "NUMERIC" else "nominal"
        features.append(feature(len(pixels), "class", kind, is_target=True))
        listed = {"did": DATA_ID, "name": name, "version": 1, "status": "active", "format": "ARFF"}
        described = {
            "id": str(DATA_ID),
            "name": name,
            "version": "1",
            "status": "active",
            "format": "ARFF",
            "description": "Digits.",
            "url": self._server.url_for("/data/v1/download/52667/digits.arff"),
            "file_id": "52667",
            "md5_checksum": hashlib.md5(gzip.decompress(arff)).hexdigest(),
            **(details or {}),
        }
        by_name = f"{API}/list/data_name/{name.lower()}/limit/2/data_version/1"
        self._answer(by_name, {"data": {"dataset": [listed]}})
        self._answer(f"{API}/{DATA_ID}", {"data_set_description": described})
        self._answer(f"{API}/features/{DATA_ID}", {"data_features": {"feature": features}})
        quality = [{"name": "NumberOfInstances", "value": str(float(len(table)))}]
        self._answer(f"{API}/qualities/{DATA_ID}", {"data_qualities": {"quality": quality}})
        self._server.expect_request("/data/v1/download/52667/digits.arff").respond_with_data(
            arff, headers={"Content-Encoding": "gzip"}
        )

    def _answer(self, path: str, answer: dict[str, Any]) -> None:
        self._server.expect_request(path).respond_with_json(answer)


def feature(index: int, name: str, data_type: str, *, is_target: bool = False) -> dict[str, Any]:
    return {
        "index": str(index),
        "name": name,
        "data_type": data_type,
        "is_target": "true" if is_target else "false",
        "is_ignore": "false",
        "is_row_identifier": "false",
        "number_of_missing_values": "0",
    }


def arff_bytes(name: str, table: npt.NDArray[Any], labels: Sequence[Any], label_type: str) -> bytes:
    lines = [f"@RELATION {name}"]
    lines += [f"@ATTRIBUTE pixel{number} REAL" for number in range(1, table.shape[1] + 1)]
    lines += [f"@ATTRIBUTE class {label_type}", "@DATA"]
    buffer = io.StringIO()
    buffer.write("\n".join(lines) + "\n")
    for row, label in zip(table.tolist(), labels, strict=True):
        buffer.write(",".join(map(str, row)) + f",{label}\n")
    return buffer.getvalue().encode()


@pytest.fixture(autouse=True)
def openml(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> OpenmlServer:
    """Send scikit-learn to the loopback server, as its own tests replace its addresses."""

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


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, path in OFFICIAL_PATHS.items():
        monkeypatch.setattr(_openml, key, address.rstrip("/") + path)


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


def test_it_builds_a_store_and_gets_the_same_pixels_as_the_idx_files(
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


def test_an_unknown_name_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"OpenML 'nosuch', version 1: .*not found"):
        open_openml("nosuch", data_home=tmp_path)


def test_a_table_with_wrong_bytes_is_refused(
    openml: OpenmlServer, digits: xr.Dataset, tmp_path: Path
) -> None:
    few = digits.isel(sample=slice(5))
    openml.offer(flat(few), few.label.values, details={"md5_checksum": "0" * 32})
    with pytest.raises(SourceError, match="md5 checksum"):
        open_openml(data_home=tmp_path)


def test_no_network_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn.datasets._openml.time.sleep", lambda _: None)
    with socket.socket() as probe:  # a port that nobody listens on
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}/", monkeypatch)
    with pytest.raises(DownloadError, match=r"refused.*'mnist' of the catalog"):
        open_openml(data_home=tmp_path)


def test_without_scikit_learn_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[sklearn\]'"):
        open_openml(data_home=tmp_path)
