"""Marks of tests that need more than the lowest versions of what we depend on."""

from __future__ import annotations

import fsspec
import pytest
from packaging.version import Version

needs_zip_urls = pytest.mark.skipif(
    Version(fsspec.__version__) < Version("2026.9"),
    reason="fsspec lets Zarr read zip files behind a URL since 2026.9",
)
