from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.records import metadata_sha256
from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.writing.chunks import vlen_utf8


@given(st.lists(st.sampled_from(["train", "test", "", "früh", "a\n"]) | st.text(max_size=5)))
def test_strings_are_encoded_as_numcodecs_does_it(words: list[str]) -> None:
    expected = numcodecs.VLenUTF8().encode(np.array([*words, None], dtype=object)[:-1])
    for dtype in (STRING_DTYPE, object):
        assert vlen_utf8(np.array(words, dtype=dtype)) == bytes(expected)


def test_the_hash_of_metadata_is_that_of_what_they_say() -> None:
    root = b'{"attributes": {"a": 1, "metadata_sha256": "x"}, "consolidated_metadata": {}}'
    array = b'{"shape": [3]}'
    sha256 = metadata_sha256({"zarr.json": root, "image/zarr.json": array})
    same = b'{"attributes":{"a":1}}'
    assert metadata_sha256({"image/zarr.json": array, "zarr.json": same}) == sha256
    for other in (b'{"attributes":{"a":2}}', b'{"attributes":{"b":1}}', b"{}"):
        assert metadata_sha256({"image/zarr.json": array, "zarr.json": other}) != sha256
    assert metadata_sha256({"image/zarr.json": array}) != sha256
    with pytest.raises(ValueError, match="Expecting"):
        metadata_sha256({"zarr.json": b"{"})


def test_in_format_2_the_copy_of_all_documents_does_not_count() -> None:
    documents = {".zattrs": b'{"a": 1, "metadata_sha256": "x"}', "image/.zarray": b"{}"}
    sha256 = metadata_sha256(documents)
    assert metadata_sha256(documents | {".zmetadata": b"{}", ".zattrs": b'{"a": 1}'}) == sha256
    assert metadata_sha256(documents | {".zattrs": b'{"a": 2}'}) != sha256
