"""Chunks as Zarr wants them, byte by byte."""

from __future__ import annotations

import numcodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.writing.chunks import vlen_utf8


@given(st.lists(st.sampled_from(["train", "test", "", "früh", "a\n"]) | st.text(max_size=5)))
def test_strings_are_encoded_as_numcodecs_does_it(words: list[str]) -> None:
    expected = numcodecs.VLenUTF8().encode(np.array([*words, None], dtype=object)[:-1])
    for dtype in (STRING_DTYPE, object):
        assert vlen_utf8(np.array(words, dtype=dtype)) == bytes(expected)
