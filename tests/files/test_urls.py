"""What is a URL, what tells its versions apart, and what is raised when it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

import mnist_zarr
from mnist_zarr.errors import MissingExtraError, MnistZarrError, SourceError
from mnist_zarr.files.urls import hide_secrets, identity_of, is_url, shown_url
from tests.support.object_server import BUCKET, S3Server
from tests.support.partners import partner
from tests.support.servers import free_port


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


def test_a_listing_tells_the_same_identity(s3: S3Server, tmp_path: Path, memory_url: str) -> None:
    for folder, options in (
        (f"s3://{BUCKET}", s3.options),
        (f"file://{tmp_path}", {}),
        (memory_url, {}),
    ):
        fs, path = fsspec.core.url_to_fs(f"{folder}/y", **options)
        fs.pipe(path, b"there")
        fs.invalidate_cache()
        info = fs.info(path)
        fs.invalidate_cache()
        (listed,) = (
            entry for entry in fs.ls(fs._parent(path), detail=True) if entry["name"].endswith("/y")
        )
        assert identity_of(listed) == identity_of(info)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/t", "s3"), ("gs://b/t", "gcs"), ("az://b/t", "azure")]
)
def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    for door in (mnist_zarr.build, mnist_zarr.open_idx, mnist_zarr.open_npz):
        for address in (url, f"{url}/", f"{url}/train-images-idx3-ubyte"):
            with pytest.raises(MissingExtraError, match=rf"pip install 'mnist-zarr\[{extra}\]'"):
                door(address)


@pytest.mark.parametrize("read", [mnist_zarr.open_store, mnist_zarr.open_idx])
def test_without_credentials_of_aws_the_error_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Callable[..., object]
) -> None:
    partner("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    message = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or for a public"
    with pytest.raises(MnistZarrError, match=f"cannot be .*: there are no credentials; {message}"):
        read("s3://bucket/x", storage_options={"skip_instance_cache": True})


def test_a_server_that_cannot_be_reached_is_named_without_words_of_aiohttp() -> None:
    where = f"127.0.0.1:{free_port()}"
    for url in (f"http://{where}/x", f"https://{where}/x"):
        with pytest.raises(SourceError, match=rf"Cannot connect to host {where} \[Connect call"):
            mnist_zarr.read_idx(url)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://key:secret@bucket/m.zarr", "s3://bucket/m.zarr"),
        ("https://host/m.zip?sig=secret@x#secret", "https://host/m.zip"),
        ("zip://a/b::https://u:secret@host/m.zip?sig=se::cret", "zip://a/b::https://host/m.zip"),
        ("simplecache::s3://b/x?v=secret::http://h/y", "simplecache::s3://b/x::http://h/y"),
        ("icechunk+s3://u:secret@bucket/m", "icechunk+s3://bucket/m"),
        ("abfs://container@account.dfs.core.windows.net/m", None),
        ("s3://bucket/a@b/c", None),
        ("folder/what?#is@this", None),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, shown: str | None) -> None:
    assert shown_url(address) == (shown or address)
    assert hide_secrets(f"got '{address}' there") == f"got '{shown or address}' there"
