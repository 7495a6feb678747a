"""Chunks as Zarr wants them, byte by byte."""

from __future__ import annotations

from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from mnist_zarr.dataset.schema import STRING_DTYPE
from mnist_zarr.errors import SchemaError
from mnist_zarr.stores.keys import keys_of
from mnist_zarr.writing.chunks import ArrayWriter, vlen_utf8
from mnist_zarr.writing.layout import Codec, Compression, ZarrFormat
from mnist_zarr.writing.plan import Chunking
from mnist_zarr.writing.template import Template


@given(st.lists(st.sampled_from(["train", "test", "", "früh", "a\n"]) | st.text(max_size=5)))
def test_strings_are_encoded_as_numcodecs_does_it(words: list[str]) -> None:
    expected = numcodecs.VLenUTF8().encode(np.array([*words, None], dtype=object)[:-1])
    for dtype in (STRING_DTYPE, object):
        assert vlen_utf8(np.array(words, dtype=dtype)) == bytes(expected)


def writer_of(
    values: np.ndarray[Any, Any],
    store: MemoryStore,
    *,
    chunking: Chunking | None = None,
    codec: Codec = "zstd",
    zarr_format: ZarrFormat = 3,
) -> ArrayWriter:
    variable = xr.Variable(("sample", "row")[: values.ndim], values)
    template = Template(Compression(codec, 1), zarr_format)
    template.add("x", variable, chunking, {})
    return template.bind(store)["x"]


@pytest.mark.parametrize(("zarr_format", "shard_samples"), [(2, None), (3, None), (3, 4)])
def test_black_chunks_are_stored_where_there_is_no_metadata_and_nothing_else(
    zarr_format: ZarrFormat, shard_samples: int | None
) -> None:
    store, black = MemoryStore(), np.zeros((6, 3), np.uint8)
    chunking = Chunking(6, 2, shard_samples)
    array = writer_of(black, store, chunking=chunking, zarr_format=zarr_format)
    for start, stop in chunking.objects():
        array.write(start, black[start:stop])
    names = [f"{index}" for index in range(chunking.n_objects)]
    folder, end = ("x/c/", "/0") if zarr_format == 3 else ("x/", ".0")
    assert keys_of(store) == {f"{folder}{name}{end}" for name in names}
    np.testing.assert_array_equal(np.asarray(array.array[...]), black)


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
@pytest.mark.parametrize("dtype", ["?", "i1", ">u2", "f2", ">f8", "c8", "U3", "T", "O"])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 0)])
def test_a_chunk_of_any_type_and_shape_is_what_zarr_reads(
    codec: Codec, dtype: str, shape: tuple[int, ...]
) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape) % 2
    values = (
        numbers.astype("U3").astype(dtype) if dtype in ("U3", "T", "O") else numbers.astype(dtype)
    )
    array = writer_of(values, MemoryStore(), chunking=Chunking(5, 3), codec=codec)
    array.write(0, values[:3])
    array.write(3, values[3:])
    assert np.asarray(array.array[...]).tolist() == values.tolist()


def test_objects_among_strings_are_refused_instead_of_printed() -> None:
    missing = np.dtypes.StringDType(na_object=np.nan)
    for values in (np.array(["a", None], object), np.array(["a", 1], object)):
        array = writer_of(values, MemoryStore(), chunking=Chunking(2, 2))
        with pytest.raises(SchemaError, match="'x': expected strings, got other objects"):
            array.write(0, values)
        with pytest.raises(SchemaError, match="'x': expected strings, got other objects"):
            array.write_whole(values)
    array = writer_of(np.array(["a", "b"]), MemoryStore(), chunking=Chunking(2, 2))
    with pytest.raises(SchemaError, match="'x': expected strings, got other objects"):
        array.write(0, np.array(["a", np.nan], missing))
