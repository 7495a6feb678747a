"""What ``verify`` finds, and names, wherever the store is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.records import DATASET_ID, metadata_sha256
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.dataset.selection import select
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import StoreNotFoundError
from mnist_zarr.reading import verification
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.report import Problem
from mnist_zarr.reading.verification import verify
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import as_buffer, read_object, sync
from mnist_zarr.stores.upload import Upload
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import mnist_samples
from tests.support.object_server import BUCKET, S3Server
from tests.support.partners import partner
from tests.support.stores import in_memory, put_text

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"order": "label"},
    {"order": "label", "shard_bytes": 100_000},
    {"zarr_format": 2, "codec": "gzip", "level": 5},
    {"rescale": (-1, 1)},
]
AS_RECORDED = [
    "metadata, as recorded when the store was built",
    "image, label, split, as recorded when the store was built",
]
AS_MNIST = "image, label, equal to the data set 'mnist'"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_zarr(mnist_samples(0, 200), tmp_path / "d.zarr", chunk_bytes=40_000)
    return tmp_path / "d.zarr"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_store_is_confirmed_by_its_records_and_by_the_source(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    write_zarr(mnist_samples(0, 200), tmp_path / "d.zarr", chunk_bytes=40_000, **layout)
    report = verify(tmp_path / "d.zarr")
    assert report.is_whole
    assert report.problems == []
    assert report.confirmed == [*AS_RECORDED, AS_MNIST]
    assert report.unchecked == []
    assert report.n_samples == 200
    n_files = sum(path.is_file() for path in (tmp_path / "d.zarr").rglob("*"))
    assert report.n_objects == n_files


def test_images_without_pixels_need_no_chunks() -> None:
    store = MemoryStore()
    write_zarr(make_dataset(np.zeros((3, 0, 4), np.uint8)), store, chunk_bytes=1, shard_bytes=1)
    assert verify(store).problems == []


def test_all_of_mnist_is_confirmed_in_both_orders(tmp_path: Path) -> None:
    for order in ("source", "label"):
        ds = open_dataset("mnist")
        write_zarr(ds, tmp_path / f"{order}.zarr", order=order, level=1)
        assert verify(tmp_path / f"{order}.zarr").confirmed == [*AS_RECORDED, AS_MNIST]


@pytest.mark.parametrize(
    ("make", "confirmed"),
    [
        (lambda ds: select(ds, label=[3, 7]), [*AS_RECORDED, AS_MNIST]),
        (lambda ds: ds.isel(sample=[5, 3, 90]), AS_RECORDED),  # stored in no order of the source
        (lambda ds: rescale(ds), [*AS_RECORDED, "label, equal to the data set 'mnist'"]),
        (lambda ds: ds.drop_vars("split"), [AS_RECORDED[0], AS_RECORDED[1].replace(", split", "")]),
        (lambda ds: ds.isel(sample=slice(0)), AS_RECORDED),
    ],
    ids=["selection", "shuffled", "rescaled", "without splits", "empty"],
)
def test_what_was_written_of_mnist_is_confirmed_as_far_as_it_can_be(
    tmp_path: Path, make: Any, confirmed: list[str]
) -> None:
    write_zarr(make(mnist_samples(0, 200)), tmp_path / "d.zarr", chunk_bytes=40_000)
    report = verify(tmp_path / "d.zarr")
    assert report.problems == []
    assert [line for line in confirmed if line not in report.confirmed] == []


def test_a_store_that_is_written_anew_from_another_has_hashes_of_its_own(store: Path) -> None:
    again = store.with_name("again.zarr")
    write_zarr(open_store(store).drop_vars("split").isel(sample=slice(9, 50)), again)
    assert verify(again).is_whole
    assert "split_sha256" not in open_store(again).attrs


# -- where the store is -----------------------------------------------------------------


def test_damage_in_a_bucket_is_named(s3: S3Server) -> None:
    url = f"s3://{BUCKET}/d.zarr"
    write_zarr(mnist_samples(0, 200), url, chunk_bytes=40_000, storage_options=s3.options)
    assert verify(url, storage_options=s3.options).is_whole
    sync(BucketStore.from_url(url, s3.options).delete("image/c/1/0/0"))
    report = verify(url, storage_options=s3.options)
    assert report.problems == [Problem("image/c/1/0/0", "is missing")]


def test_damage_on_a_web_server_is_named(store: Path, web_address: str) -> None:
    url = f"{web_address}/{store.name}"
    assert verify(url).confirmed == [*AS_RECORDED, AS_MNIST]
    (store / "image" / "c" / "1" / "0" / "0").unlink()
    flip_a_byte(store / "label" / "c" / "0")
    places = [problem.place for problem in verify(url).problems]
    assert sorted(places) == ["image/c/1/0/0", "label/c/0"]


def test_damage_in_a_zip_file_is_named(store: Path) -> None:
    packed = store.with_name("d.zarr.zip")
    write_zarr(mnist_samples(0, 200), packed, chunk_bytes=40_000)
    assert verify(packed).confirmed == [*AS_RECORDED, AS_MNIST]
    without = store.with_name("without.zarr.zip")
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(without, "w") as new:
        for name in old.namelist():
            if name != "image/c/2/0/0":
                new.writestr(name, old.read(name))
    assert verify(without).problems == [Problem("image/c/2/0/0", "is missing")]


@pytest.mark.parametrize("kind", ["memory", "icechunk"])
def test_other_targets_are_verified_too(tmp_path: Path, kind: str, memory_url: str) -> None:
    target = f"{memory_url}/d.zarr"
    if kind == "icechunk":
        partner("icechunk")
        target = f"icechunk+file://{tmp_path}/repository"
    write_zarr(mnist_samples(0, 200), target, order="label", chunk_bytes=40_000)
    report = verify(target)
    assert report.problems == []
    assert report.confirmed[-2:] == [AS_RECORDED[1], AS_MNIST]


def test_a_store_object_is_verified_as_it_is(store: Path) -> None:
    (store / "image" / "c" / "1" / "0" / "0").unlink()
    problems = verify(LocalStore(store)).problems
    assert problems == [Problem("image/c/1/0/0", "is missing")]


def test_verifying_nothing_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no Zarr store"):
        verify(tmp_path / "nothing.zarr")
    with pytest.raises(StoreNotFoundError, match="there is no Zarr store; make one"):
        verify(tmp_path)


def test_a_store_that_is_being_written_is_called_so(tmp_path: Path) -> None:
    upload = Upload(LocalStore(tmp_path / "t.zarr"), "t.zarr")
    upload.begin(overwrite=False)
    try:
        for read in (verify, open_store):
            with pytest.raises(StoreNotFoundError, match="a store is being written here"):
                read(tmp_path / "t.zarr")
    finally:
        upload.give_up()


# -- what is found ----------------------------------------------------------------------


def test_what_cannot_be_read_is_not_compared_with_the_catalog(store: Path) -> None:
    flip_a_byte(store / "image" / "c" / "1" / "0" / "0")
    flip_a_byte(store / "label" / "c" / "0")
    report = verify(store)
    assert [problem.place for problem in report.problems] == ["image/c/1/0/0", "label/c/0"]
    assert "the origin of the samples: neither image nor label can be read" in report.unchecked


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_damaged_object_is_named_once(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(mnist_samples(0, 200), target, order="label", chunk_bytes=20_000)
    flip_a_byte(target / "image" / "c" / "3" / "0" / "0")
    flip_a_byte(target / "split" / "c" / "0")
    (target / "image" / "c" / "5" / "0" / "0").write_bytes(b"")
    (target / "image" / "c" / "7" / "0" / "0").unlink()
    report = verify(target)
    assert sorted(problem.place for problem in report.problems) == [
        "image/c/3/0/0",
        "image/c/5/0/0",
        "image/c/7/0/0",
        "split/c/0",
    ]
    assert report.confirmed[-1] == "label, equal to the data set 'mnist'"


def test_a_damaged_order_leaves_the_content_unchecked(store: Path) -> None:
    flip_a_byte(store / "source_index" / "c" / "0")
    report = verify(store)
    assert [problem.place for problem in report.problems] == ["source_index/c/0"]
    assert report.unchecked == ["all other values, whose order only source_index tells"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_changed_metadata_are_found_in_every_document(store: Path) -> None:
    edit(store / "image" / "zarr.json", "0 is background", "0 is foreground")
    place = "image/zarr.json"
    what = "differs from the consolidated metadata"
    assert verify(store).problems == [Problem(place, what)]
    edit(store / "zarr.json", "0 is background", "0 is foreground")
    what = "has changed since the store was built"
    assert verify(store).problems == [Problem(place, what)]
    edit(store / "zarr.json", "handwritten", "printed")
    assert verify(store).problems == [Problem(place, what), Problem("zarr.json", what)]
    (store / "image" / "zarr.json").unlink()
    assert verify(store).problems == [Problem("image/zarr.json", "is missing")]


def test_documents_that_are_not_json_are_named(store: Path) -> None:
    (store / "label" / "zarr.json").write_text("{")
    assert [problem.place for problem in verify(store).problems] == ["label/zarr.json"]
    (store / "zarr.json").write_text("{")
    (problem,) = verify(store).problems
    assert problem.place == "zarr.json"
    assert problem.what.startswith("cannot be understood: ")


def test_the_layout_of_the_documents_does_not_matter(store: Path) -> None:
    for path in store.rglob("zarr.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert verify(store).is_whole


def overwrite(store: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    array = zarr.open_group(store, mode="r+")[name]
    assert isinstance(array, zarr.Array)
    array[:] = values


@pytest.mark.parametrize("name", ["image", "label", "split"])
def test_other_values_in_sound_chunks_are_found(store: Path, name: str) -> None:
    values = open_store(store)[name].values
    values[7] = "test" if name == "split" else 9
    overwrite(store, name, values)
    problems = [problem for problem in verify(store).problems if problem.place == name]
    assert problems == [Problem(name, "its values have changed since the store was built")]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (150, "has 150 more than once, but must be unique"),
        (70_099, "has 70099, but 'mnist' has 70,000 samples"),
    ],
)
def test_a_changed_order_is_one_problem_and_leaves_the_content_unchecked(
    tmp_path: Path, value: int, what: str
) -> None:
    ds = mnist_samples(0, 200)
    ds.attrs = {"id": "mnist"}
    write_zarr(ds, tmp_path / "d.zarr")
    values = ds.source_index.values.copy()
    values[7] = value
    overwrite(tmp_path / "d.zarr", "source_index", values)
    report = verify(tmp_path / "d.zarr")
    assert report.problems == [Problem("source_index", what)]
    assert report.unchecked[0] == "image, label, whose order only source_index tells"
    assert report.unchecked[1].startswith("image, label against 'mnist': source_index ")


def test_samples_that_the_data_set_has_not_are_found(tmp_path: Path) -> None:
    ds = mnist_samples(0, 200).assign_coords(source_index=("sample", np.arange(200) + 69_900))
    ds.attrs = {"id": "mnist"}
    write_zarr(ds, tmp_path / "d.zarr")
    problem = Problem("source_index", "has 70099, but 'mnist' has 70,000 samples")
    assert verify(tmp_path / "d.zarr").problems == [problem]


def test_labels_without_a_name_are_found(store: Path) -> None:
    overwrite(store, "label", np.full(200, 42, dtype="uint8"))
    problem = Problem("label", "has values that are not in flag_values, such as 42")
    assert problem in verify(store).problems


def test_lengths_that_contradict_each_other_are_found(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["label"]["shape"] = [199]
    (store / "zarr.json").write_text(json.dumps(document))
    assert "dimension 'sample' has length 199, but 200 in 'image'" in (
        problem.what for problem in verify(store).problems
    )


def test_a_data_set_that_only_claims_to_be_mnist_is_found_out(tmp_path: Path) -> None:
    ds = mnist_samples(0, 200).assign(image=255 - mnist_samples(0, 200).image)
    ds.attrs = {DATASET_ID: "mnist"}
    write_zarr(ds, tmp_path / "d.zarr")
    (problem,) = verify(tmp_path / "d.zarr").problems
    assert problem.place == "image"
    assert problem.what.startswith("differs from the data set 'mnist'")
    del ds.attrs[DATASET_ID]
    write_zarr(ds, tmp_path / "d.zarr", overwrite=True)
    assert verify(tmp_path / "d.zarr").is_whole


def test_a_whole_data_set_is_recognized_by_its_hashes_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist = open_dataset("mnist")
    write_zarr(mnist, tmp_path / "d.zarr", order="label", level=1)
    write_zarr(mnist.assign(label=9 - mnist.label), tmp_path / "other.zarr", level=1)
    with monkeypatch.context() as without_files:
        without_files.setattr(verification, "open_entry", mock.Mock(side_effect=AssertionError))
        assert verify(tmp_path / "d.zarr").confirmed[-1] == AS_MNIST
    report = verify(tmp_path / "other.zarr")
    assert report.is_whole
    assert "label: was made from 'mnist', of which these samples differ" in report.unchecked
    assert report.confirmed[-1] == "image, equal to the data set 'mnist'"


def test_a_data_set_whose_files_are_not_here_is_not_downloaded(tmp_path: Path) -> None:
    write_zarr(mnist_samples(0, 200).assign_attrs(id="kmnist"), tmp_path / "d.zarr")
    report = verify(tmp_path / "d.zarr")
    assert report.is_whole
    assert report.unchecked == ["the files of 'kmnist', which are not on this machine"]


def test_a_store_of_plain_xarray_is_checked_as_far_as_it_can_be(tmp_path: Path) -> None:
    ds = xr.Dataset({"image": (("sample", "row"), np.ones((6, 2), "uint8"))})
    ds.to_zarr(tmp_path / "d.zarr", consolidated=False, zarr_format=3)
    report = verify(tmp_path / "d.zarr")
    assert report.is_whole
    assert report.confirmed == []
    assert report.unchecked == [
        "metadata: no hashes are recorded; the store was written by another program, or its "
        "attributes were replaced (xarray does that with mode='a')",
        "image: no hash is recorded",
        "the origin of the samples: no 'id' is recorded",
    ]


@pytest.mark.parametrize("name", ["offset", "seed"])
def test_damage_of_a_single_number_is_named(tmp_path: Path, name: str) -> None:
    target = tmp_path / "d.zarr"
    write_zarr(
        mnist_samples(0, 200).assign(offset=np.float64(0.5)).assign_coords(seed=np.int64(7)), target
    )
    assert verify(target).problems == []
    (target / name / "c").unlink()
    assert verify(target).problems == [Problem(f"{name}/c", "is missing")]
    (target / name / "c").write_bytes(b"")
    (problem,) = verify(target).problems
    assert problem.place == f"{name}/c"


def test_of_several_chunks_of_a_sample_the_damaged_one_is_named() -> None:
    store = MemoryStore()
    ds = xr.Dataset({"image": (("sample", "row"), np.ones((6, 8), "uint8"))})
    ds.to_zarr(store, encoding={"image": {"chunks": (3, 4)}}, consolidated=False, zarr_format=3)
    sync(store.set("image/c/1/1", as_buffer(b"damaged")))
    (problem,) = verify(store).problems
    assert problem.place == "image/c/1/1"
    assert problem.what.startswith("samples 3 to 5 cannot be decoded: ")


def test_values_that_could_not_be_read_are_not_called_whole(store: Path) -> None:
    class FailsOnce(WrapperStore[LocalStore]):
        has_failed = False

        async def getsize(self, key: str) -> int:
            return await self._store.getsize(key)

        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            if key == "image/c/2/0/0" and not self.has_failed:
                self.has_failed = True
                raise OSError("the disk is away")
            return await super().get(key, *args, **options)

    problems = verify(FailsOnce(LocalStore(store))).problems
    assert problems == [Problem("image", "cannot be read: OSError: the disk is away")]


def test_groups_inside_a_store_are_not_called_whole() -> None:
    store = MemoryStore()
    zarr.create_group(store).create_group("more")
    assert "the group 'more' inside" in verify(store).unchecked


# -- memory and order -------------------------------------------------------------------


# -- the command ------------------------------------------------------------------------


def promise_billions_of_chunks(store: MemoryStore, *, recorded: bool) -> None:
    document = json.loads(read_object(store, "zarr.json").to_bytes())
    array = document["consolidated_metadata"]["metadata"]["image"]
    array["shape"][0], array["chunk_grid"]["configuration"]["chunk_shape"][0] = 1 << 40, 1
    if recorded:
        encoded = {"image/zarr.json": json.dumps(array).encode()}
        document["attributes"]["metadata_sha256"] = metadata_sha256(encoded)
    put_text(store, "zarr.json", json.dumps(document))
    put_text(store, "image/zarr.json", json.dumps(array))


def test_a_store_that_promises_billions_of_chunks_is_damaged_at_once() -> None:
    store = in_memory()
    promise_billions_of_chunks(store, recorded=True)
    problem = verify(store).problems[-1]
    assert problem.place == "image/c/1/0/0"
    assert "is missing, and so are 1,099,511,627,774 more of 1,099,511,627," in problem.what


def test_billions_of_chunks_that_hold_the_fill_value_are_not_read() -> None:
    store = in_memory()
    promise_billions_of_chunks(store, recorded=False)
    report = verify(store)
    assert Problem("image/zarr.json", "has changed since the store was built") in report.problems
    assert "image: most of its chunks were never written" in report.unchecked


def test_a_small_shard_that_claims_millions_of_chunks_is_damaged_at_once() -> None:
    store, n_claimed = MemoryStore(), 1 << 26
    write_zarr(mnist_samples(0, 8), store, chunk_bytes=784, shard_bytes=8 * 784)
    document = json.loads(read_object(store, "zarr.json").to_bytes())
    array = document["consolidated_metadata"]["metadata"]["image"]
    array["shape"][0] = array["chunk_grid"]["configuration"]["chunk_shape"][0] = n_claimed
    put_text(store, "zarr.json", json.dumps(document))
    put_text(store, "image/zarr.json", json.dumps(array))
    assert Problem("image/c/0/0/0", "is cut off") in verify(store).problems
