"""The rule that lets browsers read a store from other pages."""

from __future__ import annotations

import json
from typing import Any

from mnist_zarr.hosting.cors import cors_rule
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import sync
from tests.support.bucket_stores import URL
from tests.support.object_server import BUCKET, S3Server


def test_s3_takes_the_cors_rule_and_browsers_get_it(s3: S3Server) -> None:
    command = cors_rule(URL)
    assert command.startswith(f"aws s3api put-bucket-cors --bucket {BUCKET} ")
    rule = json.loads(command.partition("--cors-configuration ")[2].strip("'"))
    fs = BucketStore.from_url(URL, s3.options).fs

    async def put() -> Any:
        await fs._call_s3("put_bucket_cors", Bucket=BUCKET, CORSConfiguration=rule)
        return await fs._call_s3("get_bucket_cors", Bucket=BUCKET)

    (kept,) = sync(put())["CORSRules"]
    assert kept["AllowedHeaders"] == ["Range", "If-Match", "If-None-Match"]
    assert {"Content-Range", "Accept-Ranges", "ETag"} <= set(kept["ExposeHeaders"])


def test_other_servers_get_headers_or_their_own_form() -> None:
    assert "gs://bucket --cors-file" in cors_rule("gs://bucket/t.zarr")
    assert cors_rule(f"icechunk+{URL}") == cors_rule(URL)
    assert "--services b --origins '*' --methods GET HEAD " in cors_rule("az://bucket/t.zarr")
    assert "Access-Control-Expose-Headers: Content-Length, Content-Range" in cors_rule("t.zarr")
