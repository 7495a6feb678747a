"""PyTorch: batches of tensors for a ``DataLoader``, and the data sets of torchvision by name.

Needs the extra ``torch``. The only module that imports it.

>>> MNIST(train=False)[0]  # doctest: +ELLIPSIS
(<PIL.Image.Image image mode=L size=28x28 at ...>, 7)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import Image

from mnist_zarr.catalog.download import is_here
from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.batches import batches
from mnist_zarr.dataset.classes import class_names
from mnist_zarr.dataset.schema import IMAGE, is_string
from mnist_zarr.dataset.selection import select
from mnist_zarr.errors import DownloadError, OptionError, missing_extra

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as error:
    raise missing_extra("mnist_zarr.torch needs PyTorch", "torch") from error

NO_EPOCH = -1


class BatchDataset(IterableDataset):
    """The batches of a Dataset as tensors, for ``DataLoader(..., batch_size=None)``.

    Labels of integers become int64, as loss functions expect them; strings stay
    a list. The workers of a DataLoader share the batches of an epoch: each reads
    the windows that its batches are drawn from.

    Parameters
    ----------
    ds, size, **options
        See :func:`mnist_zarr.batches`.
    part : (rank, world), optional
        By default those of ``torch.distributed``, if it has been initialised.

    Notes
    -----
    Each iteration is the next epoch. With workers, which cannot count epochs,
    call ``set_epoch`` before each, as for torch's ``DistributedSampler``.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> dataset = BatchDataset(select(open_dataset("mnist"), split="test"), 1000)
    >>> loader = DataLoader(dataset, batch_size=None)  # num_workers=4
    >>> for epoch in range(2):
    ...     dataset.set_epoch(epoch)
    ...     for images, labels in loader:
    ...         pass  # one step of training
    >>> images.shape, images.dtype, labels.dtype
    (torch.Size([1000, 28, 28]), torch.uint8, torch.int64)
    """

    def __init__(
        self,
        ds: xr.Dataset,
        size: int = 256,
        *,
        part: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        self._batches = batches(ds, size, part=part or _rank_and_world(), **options)
        self._is_shuffled = options.get("shuffle", True)
        # Workers, also those that outlive an epoch, see in shared memory what set_epoch was told.
        self._epoch = torch.full((1,), NO_EPOCH, dtype=torch.int64).share_memory_()
        self._is_resumed = False

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch, or this worker's share of it."""
        worker = get_worker_info()
        if worker is None:
            return map(_as_tensors, self._batches)
        if not self._is_resumed:
            self._batches.set_epoch(self._told_epoch())
        self._is_resumed = False
        return map(_as_tensors, self._batches.iter_share(worker.id, worker.num_workers))

    def _told_epoch(self) -> int:
        epoch = int(self._epoch)
        if epoch == NO_EPOCH and self._is_shuffled:
            raise OptionError(
                "the workers of a DataLoader cannot count epochs: call set_epoch(epoch) before "
                "each, or every epoch would have the same order"
            )
        return max(epoch, 0)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch, counted from 0, in all workers."""
        self._batches.set_epoch(epoch)
        self._epoch[0] = epoch
        self._is_resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return where the latest iteration in this process is."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue where the iteration of this state was."""
        self._batches.load_state_dict(state)
        self._is_resumed = True


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _as_tensors(batch: Any) -> Any:
    if not hasattr(batch, "_fields"):
        return batch  # of a transform: as the DataLoader converts it
    images, labels, *others = batch
    return type(batch)(*map(_as_tensor, (images, _as_targets(labels), *others)))


def _as_tensor(values: npt.NDArray[Any]) -> Any:
    if is_string(values.dtype):
        return values.tolist()
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))


def _as_targets(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


class MNIST(Dataset):
    """MNIST, item by item: a drop-in for ``torchvision.datasets.MNIST``.

    Needs no network and no torchvision; the items are the same.

    Parameters
    ----------
    root : optional
        Not used: the files come with this package, or from its cache.
    train : bool
        The training split, or the test split.
    transform, target_transform : callable, optional
        Applied to the image (of PIL, mode ``"L"``) and to the label of an item.
    download : bool
        Whether the files may be downloaded, if they are not in the cache.

    Attributes
    ----------
    data : torch.Tensor
        Shape (sample, row, col), uint8.
    targets : torch.Tensor
        Shape (sample,), int64.
    classes : list of str
        The name of each label, from 0 on.

    Raises
    ------
    DownloadError
        If the files are not in the cache, and cannot or must not be downloaded.
    """

    _name = "mnist"

    def __init__(
        self,
        root: Any = None,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
    ) -> None:
        self.train = train
        self.transform = transform
        self.target_transform = target_transform
        ds = select(_open(self._name, download=download), split="train" if train else "test")
        images = ds[IMAGE].values
        if "source_dims" in ds[IMAGE].attrs:  # upright, which torchvision's are not
            images = images.swapaxes(1, 2)
        self.data = torch.from_numpy(np.ascontiguousarray(images))
        self.targets = torch.from_numpy(_as_targets(ds.label.values))
        names = class_names(ds)
        self.classes = [names.get(label, "N/A") for label in range(max(names) + 1)]

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each name."""
        return {name: label for label, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return the image and the label of a sample, transformed."""
        return self._item(self.data[index].numpy(), int(self.targets[index]))

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        """Return the items of several samples, which a DataLoader asks for at once."""
        chosen = torch.as_tensor(indices)
        images, labels = self.data[chosen].numpy(), self.targets[chosen].tolist()
        return [self._item(*item) for item in zip(images, labels, strict=True)]

    def _item(self, pixels: npt.NDArray[np.uint8], label: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(pixels)
        target: Any = label
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


class FashionMNIST(MNIST):
    """Fashion-MNIST, as ``torchvision.datasets.FashionMNIST``; see :class:`MNIST`."""

    _name = "fashion-mnist"


class KMNIST(MNIST):
    """Kuzushiji-MNIST, as ``torchvision.datasets.KMNIST``; see :class:`MNIST`."""

    _name = "kmnist"


class EMNIST(MNIST):
    """EMNIST, as ``torchvision.datasets.EMNIST``: the images have rows and columns swapped.

    Parameters
    ----------
    root : optional
        Not used.
    split : {"byclass", "bymerge", "balanced", "letters", "digits", "mnist"}
        Which of the six data sets.
    **options
        See :class:`MNIST`.
    """

    def __init__(self, root: Any, split: str, **options: Any) -> None:
        self._name = f"emnist-{split}"
        if self._name not in CATALOG:
            known = [name.partition("-")[2] for name in CATALOG if name.startswith("emnist-")]
            raise OptionError(f"`split`: expected one of {', '.join(known)}, got {split!r}")
        super().__init__(root, **options)


# The first 10,000 test samples of QMNIST are those of MNIST.
QMNIST_SUBSETS = {
    "train": slice(None),
    "test": slice(None),
    "test10k": slice(10_000),
    "test50k": slice(10_000, None),
}


class QMNIST(MNIST):
    """QMNIST, as ``torchvision.datasets.QMNIST``; see :class:`MNIST`.

    Parameters
    ----------
    root : optional
        Not used.
    what : {"train", "test", "test10k", "test50k"}, optional
        By default ``"train"`` or ``"test"``, according to ``train``.
    compat : bool
        Only True: the labels are class numbers. The writers are in
        ``mnist_zarr.open_dataset("qmnist")``.
    train : bool
        See ``what``.
    **options
        See :class:`MNIST`.
    """

    _name = "qmnist"

    def __init__(
        self,
        root: Any = None,
        what: str | None = None,
        compat: bool = True,
        train: bool = True,
        **options: Any,
    ) -> None:
        what = what or ("train" if train else "test")
        if what not in QMNIST_SUBSETS:
            raise OptionError(f"`what`: expected one of {', '.join(QMNIST_SUBSETS)}, got {what!r}")
        if not compat:
            raise OptionError(
                "`compat`: only True; the writers are in mnist_zarr.open_dataset('qmnist')"
            )
        super().__init__(root, train=what == "train", **options)
        self.data = self.data[QMNIST_SUBSETS[what]]
        self.targets = self.targets[QMNIST_SUBSETS[what]]


def _open(name: str, *, download: bool) -> xr.Dataset:
    if not download and not all(map(is_here, CATALOG[name].files)):
        raise DownloadError(f"{name}: is not in the cache; pass `download=True` to download it")
    return open_dataset(name)
