"""Rescaled, standardized, split: exact, lazy, and of bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.builder import build
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.cli import main
from mnist_zarr.dataset import transform
from mnist_zarr.dataset.records import METADATA_SHA256
from mnist_zarr.dataset.scaling import Scaling
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.dataset.transform import rescale, standardize, stratified_split
from mnist_zarr.errors import MissingExtraError, OptionError, SchemaError
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr

BYTES = np.arange(256, dtype=np.uint8)


def digits(n_samples: int = 60, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return make_dataset(
        rng.integers(0, 256, (n_samples, 4, 3)).astype(np.uint8),
        label=rng.integers(0, 3, n_samples).astype(np.uint8),
        split=np.where(rng.random(n_samples) < 0.7, "train", "test").astype(STRING_DTYPE),
        source_index=np.arange(n_samples, dtype=np.uint32),
    )


def tutorial(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = ((x / 255.0) - 0.5) * 2
    return scaled


def test_every_byte_becomes_what_the_tutorial_computes_bit_for_bit() -> None:
    assert rescale(BYTES, dtype="float64").tobytes() == tutorial(BYTES).tobytes()
    assert rescale(BYTES).tobytes() == tutorial(BYTES).astype(np.float32).tobytes()
    assert rescale(BYTES, 0, 1, "float64").tobytes() == (BYTES / 255.0).tobytes()
    two = rescale(BYTES, low=0, high=2, dtype="float64")
    assert two.tobytes() == ((BYTES / 255.0) * 2).tobytes()


@given(
    array=hnp.arrays(
        st.sampled_from(["u1", "i1", "u2", "i2", "i4", ">i2"]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    ),
    low=st.floats(-10, 0),
    width=st.floats(0.5, 20),
)
def test_any_integers_are_rescaled_from_the_range_of_their_type(
    array: npt.NDArray[Any], low: float, width: float
) -> None:
    high = low + width
    info = np.iinfo(array.dtype)
    expected = np.empty(array.shape)
    for place in np.ndindex(array.shape):
        unit = (float(array[place]) - info.min) / (float(info.max) - info.min)
        expected[place] = (unit + low / (high - low)) * (high - low)
    np.testing.assert_array_equal(rescale(array, low, high, "float64"), expected)
    np.testing.assert_array_equal(rescale(array, low, high), expected.astype("float32"))
    every_other = rescale(array[::-2], low, high, "float64")
    np.testing.assert_array_equal(every_other, expected[::-2])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "step"), [((500, 28, 28), 1), ((499, 27, 29), 1), ((300, 28, 28), 2), ((400_000,), 3)]
)
def test_many_pixels_are_rescaled_as_few_are(shape: tuple[int, ...], step: int, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)[::step]
    expected = tutorial(pixels).astype(dtype)
    assert rescale(pixels, dtype=dtype).tobytes() == expected.tobytes()


def test_a_dataset_keeps_coordinates_and_attributes_and_says_its_new_range() -> None:
    ds = digits()
    ds.image.attrs["comment"] = "0 is white"
    ds.attrs["title"] = "digits"
    ds["mask"] = ds.image > 100
    scaled = rescale(ds, 0, 2)
    assert scaled.image.dtype == np.float32
    assert scaled.image.attrs == {
        **ds.image.attrs,
        "valid_range": [0.0, 2.0],
        "comment": "0 is white; then rescaled from [0, 255] to [0, 2]",
    }
    assert scaled.attrs == ds.attrs
    xr.testing.assert_identical(scaled.drop_vars("image"), ds.drop_vars("image"))
    xr.testing.assert_identical(scaled.image, rescale(ds.image, 0, 2))
    assert ds.image.attrs["valid_range"] == [0, 255]


def test_the_attribute_valid_range_goes_before_the_range_of_the_type() -> None:
    binary = digits().image % 2
    binary.attrs["valid_range"] = [0, 1]
    assert set(np.unique(rescale(binary))) == {-1, 1}
    floats = rescale(digits().image, 0, 1, "float64")
    again = rescale(floats, -1, 1, "float64")
    np.testing.assert_array_equal(again, tutorial(digits().image.values))


CHANGES: list[Callable[[xr.Dataset], xr.Dataset]] = [
    rescale,
    lambda ds: standardize(ds, 33.0, 78.0),
]


def lazy_forms(folder: Path) -> dict[str, xr.Dataset]:
    write_zarr(digits(), folder / "d.zarr", chunk_bytes=100, overwrite=True)
    return {
        "dask": digits().chunk(sample=7),
        "store": xr.open_zarr(folder / "d.zarr"),
        "store without dask": xr.open_zarr(folder / "d.zarr", chunks=None),
        "open_store": open_store(folder / "d.zarr", chunks=None),
    }


def test_what_is_lazy_stays_lazy_and_gives_the_same_values(tmp_path: Path) -> None:
    for form, ds in lazy_forms(tmp_path).items():
        for change in CHANGES:
            expected, changed = change(digits()).image, change(ds).image
            assert (changed.chunks is None) == (ds.image.chunks is None), form
            assert not changed.variable._in_memory
            read_best = ds.image.encoding.get("preferred_chunks")
            assert changed.encoding.get("preferred_chunks") == read_best
            for key in (slice(None), slice(3, 50, 4), [5, 1, 59, 1], 8, slice(9, 9)):
                np.testing.assert_array_equal(changed[key], expected[key], strict=True)
            np.testing.assert_array_equal(changed[2:9, 1, [2, 0]], expected[2:9, 1, [2, 0]])


def test_a_lazy_store_is_not_read_before_values_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", chunk_bytes=120)
    scaled = rescale(open_store(tmp_path / "d.zarr", chunks=None))
    read = []
    convert = Scaling.__call__

    def recording(self: Scaling, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        read.append(values.size)
        return convert(self, values)

    monkeypatch.setattr("mnist_zarr.dataset.scaling.Scaling.__call__", recording)
    assert not read
    scaled.image[4:6].load()
    assert read == [256]  # the table of one block


def test_dask_arrays_are_rescaled_lazily_chunk_by_chunk() -> None:
    array = cast(Any, dask.array).from_array(BYTES.reshape(16, 16), (5, 16))
    scaled = rescale(array)
    assert isinstance(scaled, dask.array.Array)
    assert scaled.chunks == array.chunks
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, rescale(BYTES.reshape(16, 16)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rescale(BYTES, 1, 1), OptionError, "the lower first, got 1 and 1"),
        (lambda: rescale(BYTES, 0, np.inf), OptionError, "expected two finite numbers"),
        (lambda: rescale(BYTES, np.nan, 1), OptionError, "expected two finite numbers"),
        (lambda: rescale(BYTES, dtype="int8"), OptionError, "expected float32, .* got 'int8'"),
        (lambda: rescale(BYTES / 2), SchemaError, r"float64 values is not known; .*valid_range"),
        (lambda: rescale(BYTES > 2), SchemaError, "bool values is not known"),
        (lambda: rescale(3), SchemaError, "expected a Dataset or an array, got a single value"),
        (lambda: rescale(xr.Dataset()), SchemaError, "expected a Dataset with 'image'"),
        (
            lambda: rescale(digits().image.assign_attrs(valid_range=[3, 3])),
            SchemaError,
            r"valid_range: expected two finite numbers, the lower first, got \[3, 3\]",
        ),
        (lambda: standardize(BYTES, mean=3), OptionError, "give both, or none"),
        (lambda: standardize(BYTES, 3, 0), OptionError, "std above 0, got 3 and 0"),
        (lambda: standardize(BYTES, np.nan, 1), OptionError, "expected finite numbers"),
        (lambda: standardize(BYTES * 0), SchemaError, "all values are 0.* deviation is 0"),
        (lambda: standardize(BYTES[:0]), SchemaError, "no values"),
        (lambda: standardize(BYTES / np.nan), SchemaError, "not all finite"),
        (lambda: standardize(xr.Dataset()), SchemaError, "expected a Dataset with 'image'"),
        (
            lambda: standardize(digits().isel(sample=digits().split.values == "test")),
            SchemaError,
            "no sample is of split 'train'; give mean and std",
        ),
    ],
)
def test_bad_input_is_a_named_error(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_mnist_has_the_mean_and_deviation_that_tutorials_give_for_its_255th() -> None:
    attrs = standardize(open_dataset("mnist")).image.attrs
    assert round(attrs["standardized_mean"] / 255, 4) == 0.1307
    assert round(attrs["standardized_std"] / 255, 4) == 0.3081


def test_mean_and_deviation_are_of_the_training_split_or_else_of_all(tmp_path: Path) -> None:
    train = digits().image.values[digits().split.values == "train"].astype(float)
    for ds in (digits(), *lazy_forms(tmp_path).values()):
        result = standardize(ds, dtype="float64").image
        assert result.attrs["standardized_mean"] == pytest.approx(train.mean(), rel=1e-14)
        assert result.attrs["standardized_std"] == pytest.approx(train.std(), rel=1e-14)
        expected = (digits().image.values - train.mean()) / train.std()
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
        xr.testing.assert_identical(result, standardize(ds.image, dtype="float64"))
    whole = standardize(digits().drop_vars("split")).image.attrs
    assert whole["standardized_mean"] == pytest.approx(digits().image.values.mean())
    assert "valid_range" in whole


@given(
    values=hnp.arrays("f8", st.integers(1, 300), elements=st.floats(-100, 100, width=32)),
    chunk=st.integers(1, 100),
    piece=st.integers(1, 50),
)
def test_the_moments_of_pieces_add_up_to_those_of_the_whole(
    values: npt.NDArray[Any], chunk: int, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "PIECE_VALUES", piece)
        parts = [transform._Moments.of(values[i : i + chunk]) for i in range(0, 300, chunk)]
        whole = sum(parts, start=transform._Moments(0, 0.0, 0.0))
    assert whole.count == len(values)
    assert whole.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-9)
    assert whole.squares / whole.count == pytest.approx(values.var(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_rescaled_store_holds_the_bytes_of_the_raw_one_and_opens_as_floats(
    tmp_path: Path, order: Any, zarr_format: Any
) -> None:
    options: dict[str, Any] = {"order": order, "zarr_format": zarr_format, "chunk_bytes": 100}
    write_zarr(digits(), tmp_path / "raw.zarr", **options)
    given = digits()
    build(tmp_path / "scaled.zarr", given, rescale=(-1, 1), **options)
    xr.testing.assert_identical(given, digits())
    raw, scaled = chunks_of(tmp_path / "raw.zarr"), chunks_of(tmp_path / "scaled.zarr")
    assert len(raw) > 6
    assert raw == scaled
    opened = xr.open_zarr(tmp_path / "scaled.zarr")
    original = xr.open_zarr(tmp_path / "raw.zarr")
    assert opened.image.dtype == np.float64
    difference = opened.image.values - tutorial(original.image.values)
    assert np.abs(difference).max() <= 2.3e-16
    assert opened.image.attrs["valid_range"] == [-1.0, 1.0]
    del opened.attrs[METADATA_SHA256], original.attrs[METADATA_SHA256]
    assert opened.attrs == original.attrs
    again = rescale(opened, dtype="float64").image.values
    np.testing.assert_array_equal(again, tutorial(original.image.values))
    twice = rescale(rescale(opened, 0, 1), 5, 6).image
    np.testing.assert_allclose(twice, original.image / 255 + 5, atol=1e-6)
    integers = xr.open_zarr(tmp_path / "scaled.zarr", mask_and_scale=False)
    np.testing.assert_array_equal(rescale(integers).image, rescale(original).image)
    assert "scale_factor" not in rescale(integers).image.attrs


def chunks_of(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and not path.name.startswith(".z") and path.name != "zarr.json"
    }


def test_other_integers_are_packed_into_the_range_too(tmp_path: Path) -> None:
    image = np.array([-32768, 0, 32767], dtype=np.int16).reshape(3, 1, 1)
    write_zarr(make_dataset(image), tmp_path / "i.zarr", rescale=(0, 10))
    opened = xr.open_zarr(tmp_path / "i.zarr").image
    np.testing.assert_allclose(opened.values.ravel(), rescale(image, 0, 10, "f8").ravel())
    np.testing.assert_array_equal(rescale(opened, 0, 10), rescale(image, 0, 10))


@pytest.mark.parametrize(
    ("change", "bounds", "error", "message"),
    [
        (lambda ds: rescale(ds), (-1, 1), SchemaError, "expected an 'image' of integers"),
        (lambda ds: ds.drop_vars("image"), (-1, 1), SchemaError, "no 'image'"),
        (lambda ds: ds, (1, -1), OptionError, "the lower first, got 1 and -1"),
        (lambda ds: ds, (1, 2, 3), OptionError, r"expected \(low, high\), got \(1, 2, 3\)"),
    ],
)
def test_a_store_that_cannot_be_rescaled_is_not_written(
    tmp_path: Path, change: Any, bounds: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_zarr(change(digits()), tmp_path / "d.zarr", rescale=bounds)
    assert list(tmp_path.iterdir()) == []


def test_a_rescaled_store_is_not_rescaled_again(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", rescale=(-1, 1))
    for options in ({}, {"mask_and_scale": False}):
        opened = xr.open_zarr(tmp_path / "d.zarr", **options)  # type: ignore[arg-type]
        with pytest.raises(SchemaError, match="has a scale_factor or add_offset already"):
            write_zarr(opened, tmp_path / "e.zarr", rescale=(-1, 1))
    assert os.listdir(tmp_path) == ["d.zarr"]


def test_values_changed_in_place_are_not_taken_for_packed_ones(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", rescale=(-1, 1))
    opened = xr.open_zarr(tmp_path / "d.zarr", chunks=None).load()
    opened.image.values[3, 2, 1] = 0.123
    with pytest.raises(SchemaError, match=r"no uint8 of the store stands for the value 0\.123"):
        rescale(opened)


def test_the_command_builds_a_rescaled_store(tmp_path: Path) -> None:
    write_idx(digits().image.values, tmp_path / "a-images-idx3-ubyte")
    source = f"--source={tmp_path / 'a-images-idx3-ubyte'}"
    args = ["build", str(tmp_path / "a.zarr"), source, "--rescale", "-1", "1"]
    assert CliRunner().invoke(main, args).exit_code == 0
    opened = xr.open_zarr(tmp_path / "a.zarr").image
    np.testing.assert_allclose(opened, tutorial(digits().image.values), atol=2.3e-16)


@pytest.fixture
def train_test_split() -> Any:
    reason = "needs the extra 'sklearn'"
    return pytest.importorskip("sklearn.model_selection", reason=reason).train_test_split


@pytest.mark.parametrize(
    ("n_samples", "test_size", "random_state"),
    [(60, 20, 123), (60, 7, 0), (500, 0.2, 42), (501, 0.333, 1), (500, 499 - 3, 5), (90, 3, 7)],
)
def test_the_split_is_that_of_scikit_learn(
    train_test_split: Any, n_samples: int, test_size: float, random_state: int
) -> None:
    ds = digits(n_samples, seed=random_state)
    split = stratified_split(ds, test_size, random_state).split
    train, test = train_test_split(
        np.arange(n_samples), test_size=test_size, random_state=random_state, stratify=ds.label
    )
    np.testing.assert_array_equal(np.flatnonzero(split == "test"), np.sort(test))
    np.testing.assert_array_equal(np.flatnonzero(split == "train"), np.sort(train))
    assert split.dtype == STRING_DTYPE
    assert split.attrs == ds.split.attrs


def test_mnist_is_split_as_the_tutorial_splits_it_and_no_image_is_read(
    train_test_split: Any,
) -> None:
    ds = open_dataset("mnist")
    split = stratified_split(ds)
    _, test = train_test_split(
        np.arange(70_000), test_size=10_000, random_state=123, stratify=ds.label.values
    )
    np.testing.assert_array_equal(np.flatnonzero(split.split == "test"), np.sort(test))
    assert not split.image.variable._in_memory
    xr.testing.assert_identical(
        split.drop_vars(["image", "split"]), ds.drop_vars(["image", "split"])
    )


@pytest.mark.usefixtures("train_test_split")
@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda ds: ds.drop_vars("label"), {}, SchemaError, "needs a coordinate 'label'"),
        (lambda ds: ds, {"test_size": 60}, OptionError, "test_size 60 of 60 samples"),
        (lambda ds: ds, {"test_size": 1.5}, OptionError, r"test_size 1\.5 of 60 samples"),
        (lambda ds: ds, {"test_size": 0}, OptionError, "test_size 0 of 60 samples"),
        (lambda ds: ds, {"test_size": 2}, OptionError, "number of classes = 3"),
        (lambda ds: ds, {"random_state": "x"}, OptionError, "random_state 'x'"),
        (
            lambda ds: ds.isel(sample=np.sort(np.unique(ds.label.values, return_index=True)[1])),
            {"test_size": 1},
            SchemaError,
            "label 0: only one sample",
        ),
    ],
)
def test_a_split_that_cannot_be_is_a_named_error(
    change: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        stratified_split(change(digits()), **{"test_size": 20, **options})


def test_without_scikit_learn_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[sklearn\]'"):
        stratified_split(digits(), 20)


PEAK = """
import json, sys
from mnist_zarr import rescale, standardize, write_zarr, open_store
source, target, what = sys.argv[1:]
chunks = None if "lazy" in what else "auto"
ds = open_store(source, chunks=chunks)
def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024
before = peak()
if "standardize" in what:
    standardize(ds)
else:
    write_zarr(rescale(ds), target, order=what.split()[-1], level=1)
print(json.dumps(peak() - before))
"""


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 MB of pixels, which are half a GB as float32."""
    n_samples = 165_000
    numbers = (cast(Any, dask.array).arange(n_samples, chunks=5000) % 251).astype(np.uint8)
    image = cast(Any, dask.array).broadcast_to(numbers[:, None, None], (n_samples, 28, 28))
    ds = make_dataset(image, label=(np.arange(n_samples) % 10).astype(np.uint8))
    place = tmp_path_factory.mktemp("large") / "raw.zarr"
    write_zarr(ds, place, level=1)
    return place


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("what", "most_bytes"),
    [
        ("standardize", 100e6),
        ("standardize lazy", 60e6),
        ("write source", 250e6),
        ("write label", 250e6),
        ("write lazy label", 100e6),
    ],
)
def test_memory_stays_bounded_while_half_a_gigabyte_is_made(
    large_store: Path, tmp_path: Path, what: str, most_bytes: float
) -> None:
    command = [sys.executable, "-c", PEAK, str(large_store), str(tmp_path / "t.zarr"), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout)
    assert grown < most_bytes, f"{what}: {grown / 1e6:.0f} MB"


@pytest.mark.parametrize("chunks", [None, "auto"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_rescaled_store_that_is_written_anew_keeps_its_integers(
    tmp_path: Path, zarr_format: Any, chunks: Any
) -> None:
    options: dict[str, Any] = {"zarr_format": zarr_format, "chunk_bytes": 100}
    build(tmp_path / "scaled.zarr", digits(), rescale=(-1, 1), **options)
    again, expected = tmp_path / "again.zarr", tmp_path / "expected.zarr"
    opened = open_store(tmp_path / "scaled.zarr", chunks=chunks)
    write_zarr(opened, again, order="label", **options)
    build(expected, digits(), order="label", rescale=(-1, 1), **options)
    assert chunks_of(again) == chunks_of(expected)
    xr.testing.assert_identical(
        xr.open_zarr(again).drop_attrs(), xr.open_zarr(expected).drop_attrs()
    )
    assert xr.open_zarr(again).image.attrs == xr.open_zarr(expected).image.attrs
    write_zarr(opened.assign(image=opened.image / 2), tmp_path / "floats.zarr", **options)
    assert xr.open_zarr(tmp_path / "floats.zarr", mask_and_scale=False).image.dtype == np.float64


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (rescale, {"low": "a"}, "low, high: expected two finite numbers"),
        (rescale, {"low": None}, "low, high: expected two finite numbers"),
        (rescale, {"dtype": "nix"}, "dtype: expected float32, .* got 'nix'"),
        (standardize, {"mean": "a", "std": "b"}, "mean, std: expected finite numbers"),
        (write_zarr, {"rescale": 5}, r"expected \(low, high\), got 5"),
        (write_zarr, {"rescale": ("a", "b")}, "two finite numbers"),
        (write_zarr, {"chunk_bytes": "2M"}, "a whole number of 1 or more, got '2M'"),
        (write_zarr, {"chunk_bytes": 1.5}, r"a whole number of 1 or more, got 1\.5"),
        (write_zarr, {"level": "9"}, "levels 1 to 22, got '9'"),
    ],
)
def test_options_of_another_type_are_errors_of_ours(
    call: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    target = [tmp_path / "d.zarr"] if call is write_zarr else []
    with pytest.raises(OptionError, match=message):
        call(digits(), *target, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_single_sample_is_standardized_by_its_own_pixels() -> None:
    one = standardize(open_dataset("mnist").isel(sample=5)).image.values
    assert (abs(one.mean()) < 1e-6, abs(one.std() - 1) < 1e-5) == (True, True)
