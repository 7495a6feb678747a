"""With PyTorch: batches through real DataLoaders, and the items of torchvision."""

from __future__ import annotations

import gzip
import importlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from PIL import Image

from mnist_zarr.catalog.entries import BUNDLED_FILES, CATALOG
from mnist_zarr.dataset.transform import rescale
from mnist_zarr.errors import DownloadError, OptionError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.partners import partner
from tests.support.small_copy import SmallCopy, offline

torch = partner("torch", extra="torch")
ours = importlib.import_module("mnist_zarr.torch")
DataLoader = torch.utils.data.DataLoader

N_SAMPLES = 1000
# An eighth of the samples in a window: several windows for each worker.
WINDOW = N_SAMPLES * 28 // 4


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "d.zarr"
    write_zarr(digits(N_SAMPLES), path, chunk_bytes=120)
    return path


def opened(path: Path, chunks: Any = None) -> xr.Dataset:
    return rescale(open_store(path, chunks=chunks))


def numbers_of(loader: Any) -> list[list[int]]:
    return [batch.source_index.tolist() for batch in loader]


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [None, {"sample": 10}], ids=["lazy", "dask"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_share_the_batches_of_one_process(method: str, chunks: Any, stored: Path) -> None:
    ds = opened(stored, chunks)
    ds.image[:20].load()  # what reads has run before the fork
    options: dict[str, Any] = {"window": WINDOW, "coords": ["source_index"]}
    alone = ours.BatchDataset(ds, 16, **options)
    dataset = ours.BatchDataset(ds, 16, **options)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=method, timeout=60
    )
    assert len(loader) == len(alone) == 63
    for epoch in range(2):
        dataset.set_epoch(epoch)
        assert sorted(numbers_of(loader)) == sorted(numbers_of(alone))


def test_a_batch_is_tensors_with_labels_for_loss_functions(stored: Path) -> None:
    loader = DataLoader(ours.BatchDataset(opened(stored), 16, coords=["split"]), batch_size=None)
    images, labels, split = next(iter(loader))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.shape == (16, 4, 3)
    assert set(split) <= {"train", "test"}
    weights = torch.zeros((12, 3))
    assert torch.nn.functional.cross_entropy(images.flatten(1) @ weights, labels) > 1


def test_bytes_in_the_order_of_files_become_tensors() -> None:
    ds = digits(20)
    ds["image"] = ds.image.astype(">i4")
    images, labels = next(iter(ours.BatchDataset(ds, 20, shuffle=False)))
    np.testing.assert_array_equal(images.numpy(), ds.image.values)
    assert labels.tolist() == ds.label.values.tolist()


def test_workers_that_were_told_no_epoch_refuse_to_repeat_one(stored: Path) -> None:
    ds = opened(stored)
    with pytest.raises(OptionError, match=r"call set_epoch\(epoch\) before"):
        list(DataLoader(ours.BatchDataset(ds, 16), batch_size=None, num_workers=1))
    in_order = ours.BatchDataset(ds, 16, shuffle=False, coords=["source_index"])
    made = numbers_of(DataLoader(in_order, batch_size=None, num_workers=1))
    assert list(itertools.chain(*made)) == list(range(N_SAMPLES))


def test_workers_that_outlive_an_epoch_are_told_the_next_one(stored: Path) -> None:
    options: dict[str, Any] = {"window": WINDOW, "coords": ["source_index"]}
    dataset = ours.BatchDataset(opened(stored), 16, **options)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    alone = ours.BatchDataset(opened(stored), 16, **options)
    for epoch in (0, 1, 5):
        dataset.set_epoch(epoch)
        alone.set_epoch(epoch)
        assert sorted(numbers_of(loader)) == sorted(numbers_of(alone))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_training_is_resumed_from_a_state(n_workers: int, stored: Path) -> None:
    def begin() -> tuple[Any, Any]:
        dataset = ours.BatchDataset(opened(stored), 16, window=WINDOW, coords=["source_index"])
        return dataset, DataLoader(dataset, batch_size=None, num_workers=n_workers)

    dataset, loader = begin()
    alone, in_this_process = begin()[0], DataLoader(dataset, batch_size=None)
    dataset.set_epoch(3)
    first = numbers_of(itertools.islice(in_this_process, 40))
    state = dataset.state_dict()
    dataset, loader = begin()
    dataset.load_state_dict(state)
    alone.set_epoch(3)
    assert sorted(first + numbers_of(loader)) == sorted(numbers_of(alone))


def test_every_rank_takes_its_part(stored: Path, tmp_path: Path) -> None:
    distributed = torch.distributed
    distributed.init_process_group(
        "gloo", init_method=(tmp_path / "rendezvous").as_uri(), rank=0, world_size=1
    )
    try:
        assert ours.BatchDataset(opened(stored), 16)._batches._options.part == (0, 1)
    finally:
        distributed.destroy_process_group()
    parts = [
        ours.BatchDataset(opened(stored), 16, part=(rank, 3), coords=["source_index"])
        for rank in range(3)
    ]
    loaders = [DataLoader(part, batch_size=None, num_workers=2) for part in parts]
    for part in parts:
        part.set_epoch(0)
    numbers = [number for loader in loaders for made in numbers_of(loader) for number in made]
    assert sorted(numbers) == list(range(N_SAMPLES))


# -- items ------------------------------------------------------------------------------


def item_of_torchvision(pixels: npt.NDArray[np.uint8], label: int) -> tuple[bytes, str, Any, int]:
    """Return what torchvision makes of the bytes of the files, compared with it once by hand."""
    image = Image.fromarray(pixels)
    return image.tobytes(), image.mode, image.size, int(label)


def as_compared(item: Any) -> tuple[bytes, str, Any, int]:
    image, label = item
    assert type(label) is int
    return image.tobytes(), image.mode, image.size, label


def raw(name: str, offset: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress((BUNDLED_FILES / name).read_bytes()), np.uint8)[offset:]


@pytest.mark.parametrize(("train", "prefix"), [(True, "train"), (False, "t10k")])
def test_the_items_of_mnist_are_those_of_torchvision(train: bool, prefix: str) -> None:
    images = raw(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = raw(f"{prefix}-labels-idx1-ubyte.gz", 8)
    dataset = ours.MNIST("somewhere", train=train)
    assert len(dataset) == len(labels)
    chosen = [0, 1, 77, len(labels) - 1]
    expected = [item_of_torchvision(images[i], labels[i]) for i in chosen]
    assert [as_compared(dataset[i]) for i in chosen] == expected
    assert list(map(as_compared, dataset.__getitems__(chosen))) == expected
    assert dataset.data.dtype == torch.uint8
    assert dataset.targets.dtype == torch.int64
    assert dataset.classes[3] == "3"
    assert dataset.class_to_idx["9"] == 9


def test_a_loader_transforms_images_and_labels() -> None:
    def to_tensor(image: Any) -> Any:
        return torch.from_numpy(np.asarray(image)[None] / np.float32(255))

    dataset = ours.MNIST(transform=to_tensor, target_transform=lambda label: label + 1)
    for n_workers in (0, 2):
        images, labels = next(iter(DataLoader(dataset, batch_size=4, num_workers=n_workers)))
        assert images.shape == (4, 1, 28, 28)
        assert labels.tolist() == [6, 1, 5, 2]
        assert images.max() == 1


FAMILY = {
    "fashion-mnist": lambda **options: ours.FashionMNIST("root", **options),
    "kmnist": lambda **options: ours.KMNIST("root", **options),
    "qmnist": lambda **options: ours.QMNIST("root", **options),
    "emnist-letters": lambda **options: ours.EMNIST("root", "letters", **options),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", FAMILY)
def test_the_items_of_the_family_are_those_of_torchvision(
    name: str, train: bool, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = SmallCopy(CATALOG[name], mirror)
    monkeypatch.setitem(CATALOG, name, copy.entry)
    with pytest.raises(DownloadError, match="is not in the cache; pass `download=True`"):
        FAMILY[name](train=train)
    dataset = FAMILY[name](train=train, download=True)
    split = "train" if train else "test"
    images, labels = copy.images[split], copy.tables[split][:, 0]
    if name.startswith("emnist"):  # torchvision leaves rows and columns as they are in the files
        images = images.swapaxes(1, 2)
        assert dataset.classes[:3] == ["N/A", "a", "b"]
    assert len(dataset) == len(labels)
    for index in range(len(labels)):
        expected = item_of_torchvision(np.ascontiguousarray(images[index]), labels[index])
        assert as_compared(dataset[index]) == expected
    assert as_compared(FAMILY[name](train=train)[0]) == as_compared(dataset[0])  # from the cache


def test_the_subsets_of_qmnist(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = SmallCopy(CATALOG["qmnist"], mirror)
    monkeypatch.setitem(CATALOG, "qmnist", copy.entry)
    monkeypatch.setitem(ours.QMNIST_SUBSETS, "test10k", slice(10))
    monkeypatch.setitem(ours.QMNIST_SUBSETS, "test50k", slice(10, None))
    first, rest, both = (
        ours.QMNIST("root", what, download=True) for what in ("test10k", "test50k", "test")
    )
    assert [*map(as_compared, first), *map(as_compared, rest)] == [*map(as_compared, both)]
    for options, sentence in (
        ({"what": "nist"}, "`what`: expected one of train, test, test10k, test50k, got 'nist'"),
        ({"compat": False}, "`compat`: only True"),
    ):
        with pytest.raises(OptionError, match=sentence):
            ours.QMNIST("root", **options)


def test_a_split_of_emnist_that_is_not_there_is_named() -> None:
    with pytest.raises(
        OptionError, match=r"`split`: expected one of balanced, byclass, .* got 'all'"
    ):
        ours.EMNIST("root", "all")


def test_a_data_set_that_nobody_offers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    partner("pooch")
    monkeypatch.setitem(CATALOG, "kmnist", replace(offline(CATALOG["kmnist"])))
    with pytest.raises(DownloadError):
        ours.KMNIST(download=True)
