"""Several Datasets as one, lazily: their samples, and what is still said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.dataset.concatenation import Part, concat_samples
from mnist_zarr.dataset.lazy import is_lazy
from mnist_zarr.dataset.records import SOURCE_SHA256
from mnist_zarr.dataset.schema import STRING_DTYPE, make_dataset
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import SourceError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits, lazy_digits

FIRST, SECOND = digits(60), digits(30, seed=1)


def concat(*parts: xr.Dataset) -> xr.Dataset:
    return concat_samples(
        [Part(f"part {number}", ds, is_as_opened=True) for number, ds in enumerate(parts)]
    )


def expected(*parts: xr.Dataset) -> xr.Dataset:
    """Concatenate as xarray does, in memory."""
    whole = xr.concat([part.load().drop_vars("source_index") for part in parts], "sample")
    return whole.assign_coords(source_index=("sample", np.arange(whole.sizes["sample"])))


@pytest.mark.parametrize("kind", ["dask", "store", "store without dask", "open_store", "memory"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_samples_are_those_of_the_parts_in_order(
    tmp_path: Path, kind: str, is_first: bool
) -> None:
    own = digits() if kind == "memory" else lazy_digits(tmp_path)[kind]
    parts = [own, SECOND] if is_first else [SECOND, own]
    whole = concat(*parts)
    assert whole.sizes["sample"] == 90
    assert (whole.image.chunks is not None) == (kind in ("dask", "store"))
    xr.testing.assert_equal(whole.load(), expected(*parts))


@pytest.mark.parametrize(
    "positions",
    [slice(50, 70), slice(None, None, -7), [89, 0, 60, 59, 60], [], np.arange(90)[::-1]],
)
def test_any_samples_can_be_taken_and_nothing_else_is_read(positions: Any) -> None:
    whole = concat(FIRST, SECOND, FIRST.isel(sample=[]))
    assert all(map(is_lazy, (whole.image.variable, whole.label.variable, whole.split.variable)))
    xr.testing.assert_equal(
        whole.isel(sample=positions).load(), expected(FIRST, SECOND).isel(sample=positions)
    )


def test_source_indices_continue_from_part_to_part() -> None:
    in_label_order = FIRST.sortby("label")
    some = SECOND.isel(sample=[4, 9, 2])
    without = SECOND.isel(sample=slice(2)).drop_vars("source_index")
    whole = concat(in_label_order, some, without)
    assert whole.source_index[:60].values.tolist() == in_label_order.source_index.values.tolist()
    assert whole.source_index[60:].values.tolist() == [64, 69, 62, 70, 71]
    assert whole.source_index.dtype == np.uint32


def test_a_part_without_splits_is_of_an_unknown_one() -> None:
    whole = concat(FIRST, SECOND.drop_vars("split"))
    assert whole.split.dtype == STRING_DTYPE
    assert set(whole.split[60:].values) == {"unknown"}
    assert "split" not in concat(FIRST.drop_vars("split"), SECOND.drop_vars("split"))


def test_labels_of_other_sizes_fit_together() -> None:
    wide = SECOND.assign_coords(label=SECOND.label.astype(np.int64) + 1000)
    whole = concat(FIRST, wide)
    assert whole.label.dtype == np.int64
    assert whole.label.values.tolist() == [*FIRST.label.values, *wide.label.values]


def with_classes(names: str, values: Any = (0, 1, 2)) -> xr.Dataset:
    ds = SECOND.copy()
    ds.label.attrs |= {"flag_values": list(values), "flag_meanings": names}
    return ds


def test_the_names_of_classes_are_those_of_all_parts() -> None:
    whole = concat(with_classes("cat dog wild_cow"), with_classes("dog hen", (1, 5)))
    assert whole.label.attrs["flag_values"] == [0, 1, 2, 5]
    assert whole.label.attrs["flag_meanings"] == "cat dog wild_cow hen"
    assert "flag_values" not in concat(with_classes("cat dog cow"), SECOND).label.attrs


def test_what_identifies_a_data_set_does_not_outlive_it() -> None:
    one = FIRST.assign_attrs(
        id="one",
        title="One",
        license="MIT",
        references="A",
        derived_from="zero",
        sha256_order="source_index",
        metadata_sha256="x",
        image_sha256="x",
        origin="here",
        source_sha256=["aa  a.gz"],
    )
    other = SECOND.assign_attrs(one.attrs | {"title": "Two", "references": "B", "origin": "there"})
    other.encoding["source_files"] = (object(),)
    whole = concat(one, other)
    assert whole.attrs == {
        "Conventions": FIRST.attrs["Conventions"],
        "title": "One + Two",
        "license": "MIT",
        "references": "A; B",
    }
    recorded, given = whole.encoding["source_files"]
    assert (recorded.name, recorded.sha256()) == ("a.gz", "aa")
    assert given is other.encoding["source_files"][0]
    assert concat(one, one).attrs["title"] == "One + One"
    changed = concat_samples([Part("a", one), Part("b", other)])
    assert changed.attrs == {
        "Conventions": FIRST.attrs["Conventions"],
        "references": "A; B",
        "source": ", ".join(f"made, at least in part, from: {title}" for title in ("One", "Two")),
    }
    unnamed = concat(one, SECOND)
    assert unnamed.attrs == {"Conventions": FIRST.attrs["Conventions"]}
    assert "source_files" not in unnamed.encoding


def test_a_store_records_the_source_files_of_all_its_parts(tmp_path: Path) -> None:
    one = FIRST.assign_attrs({SOURCE_SHA256: ["aa  a.gz", "bb  b c.gz"]})
    write_zarr(one, tmp_path / "one.zarr")
    write_zarr(concat(one, open_store(tmp_path / "one.zarr", chunks=None)), tmp_path / "d.zarr")
    assert (
        open_store(tmp_path / "d.zarr").attrs[SOURCE_SHA256] == one.attrs[SOURCE_SHA256]
    )  # each once


def test_stores_that_open_rescaled_alike_stay_so_and_others_are_taken_as_stored(
    tmp_path: Path,
) -> None:
    write_zarr(FIRST, tmp_path / "scaled.zarr", rescale=(-1, 1))
    scaled = open_store(tmp_path / "scaled.zarr", chunks=None)
    for others, is_scaled in ((scaled, True), (SECOND, False)):
        write_zarr(concat(scaled, others), tmp_path / "d.zarr", overwrite=True)
        back = open_store(tmp_path / "d.zarr")
        assert (back.image.dtype == np.float64) == is_scaled
        assert back.image.attrs["valid_range"] == ([-1, 1] if is_scaled else [0, 255])
        stored = xr.open_zarr(tmp_path / "d.zarr", mask_and_scale=False).image[:60]
        np.testing.assert_array_equal(stored, FIRST.image)
    np.testing.assert_array_equal(
        rescale(concat(FIRST, SECOND)).image, rescale(expected(FIRST, SECOND)).image
    )


def wider_range() -> xr.Dataset:
    ds = SECOND.copy()
    ds.image.attrs["valid_range"] = ds.image.encoding["valid_range"] = [0, 1]
    return ds


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (FIRST, digits(9, shape=(5, 3)), r"'image' is uint8 \(row 4, col 3\) in part 0, .* part 1"),
        (FIRST, SECOND.astype(np.int16), r"int16 \(row 4, col 3\) in part 1"),
        (FIRST, make_dataset(SECOND.image.values), "part 0 has 'label', but part 1 does not"),
        (FIRST.assign(extra=1), SECOND, "part 0 has 'extra', but part 1 does not"),
        (FIRST.assign(extra=1), SECOND.assign(extra=2), "'extra' has other values in part 1"),
        (FIRST, SECOND.assign_coords(label=SECOND.label.astype(str)), "'label' is uint8"),
        (FIRST, SECOND.assign_coords(label=SECOND.label / 2), "'label' is uint8"),
        (FIRST, wider_range(), "range from 0 to 255 in part 0, from 0 to 1 in part 1"),
        (
            with_classes("cat dog cow"),
            with_classes("cat hen cow"),
            "label 1 is 'dog' in part 0, 'hen' in part 1",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    first: xr.Dataset, second: xr.Dataset, message: str
) -> None:
    with pytest.raises(SourceError, match=f"sources that do not fit together: .*{message}"):
        concat(first, second)
