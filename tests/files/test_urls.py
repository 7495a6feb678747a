"""What is an address of fsspec and what is a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mnist_zarr.files.urls import is_url

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/x", True),
        ("simplecache::https://host/x", True),
        ("/a/b", False),
        ("C:\\data", False),
        (Path("a"), False),
    ],
)
def test_only_text_with_a_protocol_is_a_url(name: object, expected: bool) -> None:
    assert is_url(name) is expected
