"""OpenML on loopback, as far as scikit-learn asks it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import pytest
from pytest_httpserver import HTTPServer

from tests.support.partners import partner

DATA_ID = 554
API = "/api/v1/json/data"
OFFICIAL_HOST = re.compile(r"https://(www|api)\.openml\.org(.*)")


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
        """Answer questions about this table from now on."""
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


@functools.cache
def official_paths() -> dict[str, str]:
    """Return scikit-learn's addresses without the host; which there are depends on its version."""
    names = vars(partner("sklearn.datasets._openml"))
    paths = {name: OFFICIAL_HOST.fullmatch(str(value)) for name, value in names.items()}
    return {name: match[2] for name, match in paths.items() if match}


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send scikit-learn to this address, as its own tests do it."""
    for name, path in official_paths().items():
        monkeypatch.setattr(f"sklearn.datasets._openml.{name}", address.rstrip("/") + path)
