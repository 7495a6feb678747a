"""Marks of tests that need a system, a right or a version that not everybody has."""

from __future__ import annotations

import os
import sys

import fsspec
import pytest
from packaging.version import Version

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may do what it tries"
)
needs_zip_urls = pytest.mark.skipif(
    Version(fsspec.__version__) < Version("2026.9"),
    reason="fsspec lets Zarr read zip files behind a URL since 2026.9",
)
