"""Stores in an S3 bucket: read by anybody, and clear about what fails."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

import mnist_zarr
from mnist_zarr.errors import StoreError, StoreNotFoundError
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL, open_plainly, write_to_bucket
from tests.support.digits import square_digits
from tests.support.object_server import BUCKET, S3Server


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_plain_xarray_reads_anonymously_what_was_built(s3: S3Server, zarr_format: Any) -> None:
    write_to_bucket(s3, zarr_format=zarr_format)
    xr.testing.assert_equal(open_plainly(s3), square_digits())
    xr.testing.assert_identical(
        mnist_zarr.open_store(URL, storage_options=s3.options).load(), open_plainly(s3).load()
    )


def test_objects_have_content_types_and_cache_headers(s3: S3Server) -> None:
    write_to_bucket(s3)
    kinds = {"image/c/0/0/0": "application/octet-stream", "zarr.json": "application/json"}
    for key, kind in kinds.items():
        headers = s3.headers(f"deep/t.zarr/{key}")
        assert (headers["Content-Type"], headers["Cache-Control"]) == (kind, "public, no-cache")


def test_open_store_needs_no_answer_about_documents_of_another_format(s3: S3Server) -> None:
    """A bucket that the public may not list answers 403 for what is not there."""
    write_to_bucket(s3)
    s3.fault = lambda method, path: None if s3.holds(path.removeprefix(f"/{BUCKET}/")) else "403"
    options = s3.public_options
    assert mnist_zarr.open_store(URL, storage_options=options).sizes["sample"] == 200
    with pytest.raises(PermissionError):
        open_plainly(s3)


# Faults


@pytest.fixture(params=["obstore", "s3fs"])
def options(request: pytest.FixtureRequest, s3: S3Server) -> dict[str, Any]:
    """Those with which the one or the other reads."""
    return s3.options if request.param == "obstore" else s3.s3fs_options


@pytest.mark.usefixtures("s3")
def test_wrong_credentials_are_reported_in_one_sentence(options: dict[str, Any]) -> None:
    options = {**options, "key": "wrong"}
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr.*: cannot be .*Forbidden"):
        write_zarr(square_digits(), URL, storage_options=options)
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr.*: cannot be read: Forbidden"):
        mnist_zarr.open_store(URL, storage_options=options)


def test_an_address_with_two_slashes_in_a_row_is_refused(s3: S3Server) -> None:
    """Few tools list such a folder, and so nobody would find the objects in it."""
    with pytest.raises(StoreError, match=r"//t\.zarr: has nothing between two slashes"):
        write_zarr(square_digits(), f"s3://{BUCKET}//t.zarr", storage_options=s3.options)
    assert not s3.asked("PUT")


def test_without_credentials_a_public_bucket_is_read_but_not_written(s3: S3Server) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_zarr(square_digits(), URL, storage_options=s3.public_options)


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_reported_in_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=r"s3://nowhere/t\.zarr.*bucket does not exist"):
        write_zarr(square_digits(), "s3://nowhere/t.zarr", storage_options=options)
    with pytest.raises(StoreNotFoundError, match=r"s3://nowhere/t\.zarr: there is no Zarr store"):
        mnist_zarr.open_store("s3://nowhere/t.zarr", storage_options=options)


@pytest.mark.parametrize("status", ["500", "503"])
def test_a_server_that_fails_for_a_while_is_asked_again(
    s3: S3Server, options: dict[str, Any], status: str
) -> None:
    s3.fault = lambda method, path: (
        status if "image/c/" in path and len(s3.asked(method, path)) == 1 else None
    )
    write_zarr(square_digits(30), URL, chunk_bytes=160, storage_options=options)
    s3.requests.clear()
    ds = mnist_zarr.open_store(URL, storage_options=options).load()
    xr.testing.assert_equal(ds, square_digits(30))
    assert len(s3.asked("GET", "image/c/0")) == 2


def test_a_server_that_keeps_failing_is_reported_in_one_sentence(
    s3: S3Server, options: dict[str, Any]
) -> None:
    s3.fault = lambda method, path: "503" if "/c/" in path else None
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr/\w+/c/.* cannot be written: "):
        write_to_bucket(s3)
    s3.fault = lambda method, path: None
    write_to_bucket(s3)
    s3.fault = lambda method, path: "503" if "image/c/" in path else None
    ds = mnist_zarr.open_store(URL, storage_options=options, chunks=None)
    with pytest.raises(StoreError, match=r"^s3://bucket/deep/t\.zarr/image/c/.* cannot be read: "):
        ds.load()


@pytest.mark.parametrize("times", [1, 10**9])
def test_a_chunk_that_is_cut_off_is_requested_again_or_raises_an_error(
    s3: S3Server, times: int
) -> None:
    write_to_bucket(s3)
    chunk = "image/c/3/0/0"
    s3.fault = lambda method, path: (
        "cut" if chunk in path and len(s3.asked(method, chunk)) <= times else None
    )
    ds = open_plainly(s3)
    if times == 1:
        xr.testing.assert_equal(ds.load(), square_digits())
        assert len(s3.asked("GET", chunk)) > 1
    else:
        with pytest.raises(Exception, match=r".+"):
            ds.load()


@pytest.mark.parametrize("times", [1, 10**9])
def test_a_chunk_that_is_cut_off_is_requested_again_by_open_store_too(
    s3: S3Server, options: dict[str, Any], times: int
) -> None:
    write_to_bucket(s3)
    chunk = "image/c/3/0/0"
    s3.fault = lambda method, path: (
        "cut" if chunk in path and len(s3.asked(method, chunk)) <= times else None
    )
    ds = mnist_zarr.open_store(URL, storage_options=options, chunks=None)
    if times == 1:
        xr.testing.assert_equal(ds.load(), square_digits())
        assert len(s3.asked("GET", chunk)) == 2
    else:
        with pytest.raises(StoreError, match=r"image/c/3/0/0: cannot be read: "):
            ds.load()


def test_a_chunk_that_is_cut_off_over_plain_http_raises_an_error(s3: S3Server) -> None:
    write_to_bucket(s3)
    s3.fault = lambda method, path: "cut" if "image/c/3/0/0" in path else None
    ds = mnist_zarr.open_store(f"{s3.address}/{BUCKET}/deep/t.zarr", chunks=None)
    with pytest.raises(StoreError, match=r"image/c/3/0/0: cannot be read: "):
        ds.load()


# Icechunk
