"""Whatever a file system raises is one sentence of ours."""

from __future__ import annotations

import pytest

import mnist_zarr
from mnist_zarr.errors import (
    MissingExtraError,
)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/t", "s3"), ("gs://b/t", "gcs"), ("az://b/t", "azure")]
)
def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mnist-zarr\[{extra}\]'"):
        mnist_zarr.open_store(url)
