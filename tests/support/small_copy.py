"""Data sets of the catalog with small files in the published layout."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.catalog.entries import ArchiveMember, CatalogEntry, DataFile, RemoteFile, Split
from tests.support.files import idx_gz_bytes

N_SAMPLES = {"train": 70, "test": 40}


class SmallCopy:
    """A data set of the catalog with small files instead of the published ones.

    The files lie in a folder that can serve as a mirror. The entry differs from
    the published one in sizes and checksums alone.

    Attributes
    ----------
    entry : CatalogEntry
        What to open.
    images, tables : dict
        What is in the files, for each split: the pixels upright, and a label
        table of QMNIST, of which the other data sets have column 0.
    """

    def __init__(self, entry: CatalogEntry, mirror: Path) -> None:
        self._kind = entry.kind
        self._mirror = mirror
        rng = np.random.default_rng(7)
        labels = entry.first_label + np.arange(max(N_SAMPLES.values())) % len(entry.class_names)
        self.images = {
            split: rng.integers(0, 256, (n, 3, 5), dtype=np.uint8) for split, n in N_SAMPLES.items()
        }
        self.tables = {split: make_label_table(labels[:n]) for split, n in N_SAMPLES.items()}
        contents = {
            split.name: (self._image_bytes(split.name), self._label_bytes(split.name))
            for split in entry.splits
        }
        archive = self._make_archive(entry, contents)
        self.entry = replace(
            entry,
            splits=tuple(
                Split(
                    split.name,
                    self._publish(split.images, contents[split.name][0], archive),
                    self._publish(split.labels, contents[split.name][1], archive),
                )
                for split in entry.splits
            ),
        )

    def _image_bytes(self, split: str) -> bytes:
        images = self.images[split]
        if self._kind == "npz":
            return npz_bytes(images)
        return idx_gz_bytes(images.swapaxes(1, 2) if self._kind == "idx transposed" else images)

    def _label_bytes(self, split: str) -> bytes:
        table = self.tables[split]
        if self._kind == "qmnist":
            return idx_gz_bytes(table)
        labels = table[:, 0].astype(np.uint8)
        return npz_bytes(labels) if self._kind == "npz" else idx_gz_bytes(labels)

    def _make_archive(
        self, entry: CatalogEntry, contents: dict[str, tuple[bytes, bytes]]
    ) -> RemoteFile | None:
        file = entry.splits[0].images
        if not isinstance(file, ArchiveMember):
            return None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for split in entry.splits:
                for member, data in zip(
                    (split.images, split.labels), contents[split.name], strict=True
                ):
                    assert isinstance(member, ArchiveMember)
                    archive.writestr(member.member, data)
        return self._offer(file.archive, buffer.getvalue())

    def _publish(self, file: DataFile, data: bytes, archive: RemoteFile | None) -> DataFile:
        if isinstance(file, RemoteFile):
            return self._offer(file, data)
        assert isinstance(file, ArchiveMember)
        assert archive is not None
        return replace(file, archive=archive, checksum=f"md5:{hashlib.md5(data).hexdigest()}")

    def _offer(self, file: RemoteFile, data: bytes) -> RemoteFile:
        place = self._mirror / file.dataset / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        return replace(file, mirrors=(), checksum=f"sha256:{digest}", size=len(data))


def make_label_table(labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a label table of QMNIST: series 0 and 4, writers 0, 1 and 2154, 2155."""
    table = np.zeros((len(labels), 8), np.int32)
    table[:, 0] = labels
    table[:, 1] = np.arange(len(labels)) % 2 * 4
    table[:, 2] = np.arange(len(labels)) // 30 + 2154 * (table[:, 1] == 4)
    return table


def npz_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return an archive of this one array, as KMNIST's are."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.getvalue()


def offline(entry: CatalogEntry) -> CatalogEntry:
    """Return the published entry without its mirrors on the web."""
    return replace(
        entry,
        splits=tuple(
            Split(split.name, _without_mirrors(split.images), _without_mirrors(split.labels))
            for split in entry.splits
        ),
    )


def _without_mirrors(file: DataFile) -> DataFile:
    if isinstance(file, ArchiveMember):
        return replace(file, archive=replace(file.archive, mirrors=()))
    assert isinstance(file, RemoteFile)
    return replace(file, mirrors=())
