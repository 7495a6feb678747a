"""What a store records of itself: hashes of its content and of its metadata."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.dataset.records import (
    as_recorded,
    content_records,
    content_sha256,
    metadata_sha256,
)
from mnist_zarr.dataset.schema import STRING_DTYPE


@given(
    hnp.arrays(
        hnp.integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?"),
        hnp.array_shapes(max_dims=3, max_side=5),
        fill=st.nothing(),
    ),
    st.integers(0, 10),
)
def test_numbers_are_hashed_as_little_endian_bytes_however_they_are_cut(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], cut: int
) -> None:
    stored = array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert content_sha256([array[:cut], array[cut:]]) == hashlib.sha256(stored).hexdigest()


@given(st.lists(st.sampled_from(["train", "test", "", "früh\n", "a"])), st.integers(0, 10))
def test_strings_are_hashed_as_lines_of_utf_8_however_they_are_cut(
    words: list[str], cut: int
) -> None:
    lines = "".join(f"{word}\n" for word in words).encode()
    for dtype in (STRING_DTYPE, object):
        array = np.array(words, dtype=dtype)
        assert content_sha256([array[:cut], array[cut:]]) == hashlib.sha256(lines).hexdigest()


def test_strides_do_not_matter() -> None:
    array = np.arange(24, dtype=">u2").reshape(4, 6)
    assert content_sha256([array.T]) == content_sha256([array.T.copy()])


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


def test_each_document_has_its_own_line() -> None:
    documents = {"zarr.json": b"{}", "image/zarr.json": b'{"shape": [3]}'}
    changed = documents | {"image/zarr.json": b'{"shape": [4]}'}
    before, after = as_recorded(metadata_sha256(documents)), as_recorded(metadata_sha256(changed))
    assert before.keys() == after.keys() == documents.keys()
    assert before["zarr.json"] == after["zarr.json"]
    assert before["image/zarr.json"] != after["image/zarr.json"]


@pytest.mark.parametrize("lines", [None, "0123", 5, [5, None], {"a": 1}])
def test_what_are_no_recorded_lines_record_nothing(lines: object) -> None:
    assert as_recorded(lines) == {}


def test_records_are_attributes_of_the_root() -> None:
    assert content_records("stored", 5, {"image": "12", "label": "34"}) == {
        "sha256_order": "stored",
        "sha256_samples": 5,
        "image_sha256": "12",
        "label_sha256": "34",
    }
