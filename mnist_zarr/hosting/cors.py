"""The CORS rule that lets pages of other sites read a store in a browser."""

from __future__ import annotations

import json

from mnist_zarr.files.urls import protocol_of
from mnist_zarr.stores.icechunk_repo import PREFIX

CORS_METHODS = ["GET", "HEAD"]
CORS_REQUEST_HEADERS = ["Range", "If-Match", "If-None-Match"]
CORS_ANSWER_HEADERS = ["Content-Length", "Content-Range", "Accept-Ranges", "ETag"]
CORS_SECONDS = 86400


def cors_rule(target: str) -> str:
    """Return the CORS rule for a target, as the command or the headers that set it.

    Source: https://fetch.spec.whatwg.org/#http-cors-protocol. Without permission a
    page of another site may neither request a byte range nor see the headers of
    the response.
    """
    bucket = target.partition("://")[2].partition("/")[0]
    match protocol_of(target).removeprefix(PREFIX):
        case "s3" | "s3a":
            rule = {
                "AllowedOrigins": ["*"],
                "AllowedMethods": CORS_METHODS,
                "AllowedHeaders": CORS_REQUEST_HEADERS,
                "ExposeHeaders": CORS_ANSWER_HEADERS,
                "MaxAgeSeconds": CORS_SECONDS,
            }
            form = json.dumps({"CORSRules": [rule]})
            return f"aws s3api put-bucket-cors --bucket {bucket} --cors-configuration '{form}'"
        case "gs" | "gcs":
            form = json.dumps(
                [
                    {
                        "origin": ["*"],
                        "method": CORS_METHODS,
                        "responseHeader": [*CORS_REQUEST_HEADERS, *CORS_ANSWER_HEADERS],
                        "maxAgeSeconds": CORS_SECONDS,
                    }
                ]
            )
            return (
                f"echo '{form}' > cors.json; "
                f"gcloud storage buckets update gs://{bucket} --cors-file=cors.json"
            )
        case "az" | "abfs" | "abfss":
            lists = [
                f"--methods {' '.join(CORS_METHODS)}",
                f"--allowed-headers {','.join(CORS_REQUEST_HEADERS)}",
                f"--exposed-headers {','.join(CORS_ANSWER_HEADERS)}",
            ]
            return (
                f"az storage cors add --services b --origins '*' {' '.join(lists)} "
                f"--max-age {CORS_SECONDS}"
            )
    return "\n".join(
        [
            "Access-Control-Allow-Origin: *",
            f"Access-Control-Allow-Methods: {', '.join(CORS_METHODS)}",
            f"Access-Control-Allow-Headers: {', '.join(CORS_REQUEST_HEADERS)}",
            f"Access-Control-Expose-Headers: {', '.join(CORS_ANSWER_HEADERS)}",
            f"Access-Control-Max-Age: {CORS_SECONDS}",
        ]
    )
