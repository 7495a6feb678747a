"""Addresses of files: URLs of fsspec, and their protocols."""

from __future__ import annotations

EXTRA_OF_PROTOCOL = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}


def is_url(path: object) -> bool:
    """Whether ``path`` is an fsspec URL (``s3://...``, ``simplecache::...``)."""
    return isinstance(path, str) and ("://" in path or "::" in path)


def protocol_of(url: str) -> str:
    """Return what stands before ``://``, of the last file system in a chain of them."""
    return url.rpartition("::")[2].partition("://")[0]
