"""The data model: names, dimensions, attributes and what is refused."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from mnist_zarr.dataset.classes import class_attrs, class_names
from mnist_zarr.dataset.schema import (
    image_attrs,
    image_dims,
    make_dataset,
    source_index_dtype,
    validate,
)
from mnist_zarr.errors import SchemaError, SourceError


def images(count: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.arange(count * 20, dtype=np.uint8).reshape(count, 4, 5)


@pytest.mark.parametrize(
    ("rank", "dims"),
    [
        (0, ()),
        (1, ("sample",)),
        (2, ("sample", "dim_1")),
        (3, ("sample", "row", "col")),
        (4, ("sample", "dim_1", "dim_2", "dim_3")),
    ],
)
def test_the_rank_decides_the_names_of_the_dimensions(rank: int, dims: tuple[str, ...]) -> None:
    assert image_dims(rank) == dims
    assert make_dataset(np.zeros((2,) * rank, np.uint8)).image.dims == dims


@pytest.mark.parametrize(
    ("count", "dtype"), [(0, "uint32"), (2**32, "uint32"), (2**32 + 1, "uint64")]
)
def test_positions_are_uint32_as_long_as_that_holds_every_one(count: int, dtype: str) -> None:
    assert source_index_dtype(count) == np.dtype(dtype)


def test_only_uint8_pixels_have_a_valid_range() -> None:
    assert image_attrs(np.dtype("uint8"))["valid_range"] == [0, 255]
    assert "valid_range" not in image_attrs(np.dtype("float32"))


def test_a_full_dataset_has_every_name_of_the_model_in_its_place() -> None:
    ds = make_dataset(
        images(),
        label=np.array([7, 2, 1], np.uint8),
        split=np.array(["train", "train", "test"], np.dtypes.StringDType()),
        source_index=np.arange(3, dtype=np.uint32),
        label_attrs={"flag_values": [1, 2, 7]},
        attrs={"title": "three digits"},
    )
    assert list(ds.data_vars) == ["image"]
    assert set(ds.coords) == {"label", "split", "source_index"}
    assert not ds.indexes
    assert ds.attrs == {"Conventions": "CF-1.11 ACDD-1.3", "title": "three digits"}
    assert ds.label.attrs == {"long_name": "class of the sample", "flag_values": [1, 2, 7]}
    assert all(ds[name].attrs["long_name"] for name in ds.variables)
    assert ds.split.dtype == np.dtypes.StringDType()
    validate(ds)


def test_given_attributes_win_over_the_usual_ones() -> None:
    ds = make_dataset(
        images(), label=[0, 1, 2], label_attrs={"long_name": "garment"}, attrs={"Conventions": "X"}
    )
    assert ds.label.attrs["long_name"] == "garment"
    assert ds.attrs["Conventions"] == "X"


def test_labels_alone_make_a_dataset_without_image() -> None:
    ds = make_dataset(None, label=np.array([1, 2], np.int16))
    assert list(ds.variables) == ["label"]
    assert dict(ds.sizes) == {"sample": 2}


def test_lazy_arrays_stay_lazy() -> None:
    ds = make_dataset(
        da.zeros((3, 4, 5), dtype="u1", chunks=(2, 4, 5)), label=da.arange(3, chunks=1)
    )
    assert ds.image.chunks == ((2, 1), (4,), (5,))
    assert ds.label.chunks == ((1, 1, 1),)


@pytest.mark.parametrize("is_dask", [False, True])
def test_strings_are_those_of_every_dataset_of_the_package(is_dask: bool) -> None:
    names = np.array(["a", "bc"])
    given = xr.Variable("x", names).chunk({}).data if is_dask else names
    ds = make_dataset(None, label=given, split=given)
    for variable in (ds.label, ds.split):
        assert variable.dtype == np.dtypes.StringDType()
        assert (variable.chunks is not None) == is_dask
        assert variable.values.tolist() == ["a", "bc"]
    ds.split[:1] = "a longer one"
    assert ds.split.values.tolist() == ["a longer one", "bc"]


def test_a_dataset_concatenates_with_one_of_dask_arrays_once_it_is_chunked() -> None:
    own = make_dataset(images(2), split=["train", "validation"])
    other = own.chunk(sample=1)
    joined = xr.concat([own.chunk(), other], "sample")
    assert joined.split.values.tolist() == ["train", "validation"] * 2


def test_column_0_of_a_label_table_is_the_label() -> None:
    table = np.array([[5, 0, 100], [7, 1, 200], [2, 0, 300]], np.int32)
    ds = make_dataset(images(), label=table)
    assert ds.label.values.tolist() == [5, 7, 2]
    assert ds.label.dims == ("sample",)
    assert "column" not in ds.dims


@pytest.mark.parametrize("shape", [(), (3, 0), (3, 2, 2)])
def test_labels_of_a_shape_that_is_no_list_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SourceError, match=r"expected shape \(sample,\) or \(sample, column\)"):
        make_dataset(images(), label=np.zeros(shape, np.uint8))


def test_lengths_that_differ_are_refused_with_every_count() -> None:
    with pytest.raises(SourceError) as caught:
        make_dataset(images(3), label=np.zeros(2, np.uint8), source_index=np.arange(1200))
    message = str(caught.value)
    assert "3 samples in 'image'" in message
    assert "2 samples in 'label'" in message
    assert "1,200 samples in 'source_index'" in message


def test_class_names_come_back_from_the_flags_with_their_blanks() -> None:
    attrs = class_attrs([0, 9], ["T-shirt/top", "Ankle  boot"])
    assert attrs == {"flag_values": [0, 9], "flag_meanings": "T-shirt/top Ankle_boot"}
    ds = make_dataset(images(2), label=[0, 9], label_attrs=attrs)
    assert class_names(ds) == {0: "T-shirt/top", 9: "Ankle boot"}


def test_flag_values_are_plain_integers() -> None:
    values = class_attrs(np.arange(2, dtype=np.uint8), ["a", "b"])["flag_values"]  # type: ignore[arg-type]
    assert [type(value) for value in values] == [int, int]


def test_class_names_are_read_from_arrays_and_from_a_single_value() -> None:
    many = {"flag_values": np.array([3, 4], np.int8), "flag_meanings": "cat dog"}
    one = {"flag_values": 3, "flag_meanings": "cat"}
    assert class_names(make_dataset(None, label=[3], label_attrs=many)) == {3: "cat", 4: "dog"}
    assert class_names(make_dataset(None, label=[3], label_attrs=one)) == {3: "cat"}


@pytest.mark.parametrize("attrs", [{}, {"flag_values": [1]}, {"flag_meanings": "cat"}])
def test_a_label_without_both_flag_attributes_names_no_classes(attrs: dict[str, Any]) -> None:
    assert class_names(make_dataset(None, label=[1], label_attrs=attrs)) == {}


def test_a_dataset_without_labels_names_no_classes() -> None:
    assert class_names(make_dataset(images())) == {}


def test_flags_of_different_number_are_refused_with_both_numbers() -> None:
    attrs = {"flag_values": [0, 1, 2], "flag_meanings": "cat dog"}
    ds = make_dataset(None, label=[0], label_attrs=attrs)
    with pytest.raises(SchemaError, match=r"flag_values has 3 .* flag_meanings has 2"):
        class_names(ds)


def test_a_data_array_is_refused_with_the_way_to_a_dataset() -> None:
    with pytest.raises(SchemaError, match=r"got a DataArray; use \.to_dataset"):
        validate(make_dataset(images()).image)


@pytest.mark.parametrize("thing", [images(), None, {"image": images()}])
def test_what_is_no_dataset_is_refused_by_the_name_of_its_type(thing: Any) -> None:
    with pytest.raises(SchemaError, match=rf"got {type(thing).__name__}$"):
        validate(thing)


def test_a_dataset_without_the_dimension_sample_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"dimension 'sample', got \('x',\)"):
        validate(xr.Dataset({"image": ("x", [1, 2])}))


def test_sample_must_be_the_first_dimension() -> None:
    ds = make_dataset(images()).transpose("row", "sample", "col")
    with pytest.raises(SchemaError, match=r"'image': 'sample' must be the first dimension"):
        validate(ds)


@pytest.mark.parametrize("name", ["label", "split", "source_index"])
def test_a_coordinate_of_the_model_must_run_along_sample_alone(name: str) -> None:
    ds = make_dataset(images()).assign_coords({name: (("sample", "extra"), np.zeros((3, 2)))})
    with pytest.raises(SchemaError, match=rf"'{name}': expected dimensions \('sample',\)"):
        validate(ds)


def test_variables_beyond_the_model_are_allowed() -> None:
    validate(make_dataset(images()).assign(weight=("sample", [1.0, 2.0, 3.0]), scale=3.0))
