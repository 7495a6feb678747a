"""Zip archives as sources, as they are handed out: of IDX files, pictures or arrays, in place."""

from __future__ import annotations

import os

import xarray as xr

from mnist_zarr.errors import SourceError
from mnist_zarr.files.folders import ZipFiles, is_archive
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.files.urls import path_or_url
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_names import parse_name
from mnist_zarr.formats.npz import open_npz
from mnist_zarr.formats.picture_folders import holds_pictures
from mnist_zarr.formats.pictures import open_pictures
from mnist_zarr.formats.source import Source

MAX_NAMES_SHOWN = 10


class ZipSource(Source):
    """A zip archive of IDX files, of pictures, or of arrays as in an .npz archive."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return isinstance(given, str | os.PathLike) and is_archive(path_or_url(given))

    def holds_pictures(self) -> bool:
        return _is_of_pictures(self._archive())

    def open(self) -> xr.Dataset:
        archive = self._archive()
        if _is_of_pictures(archive):
            size, mode, fit = self.form.size, self.form.mode, self.form.fit
            return open_pictures(archive, labels=self.labels, size=size, mode=mode, fit=fit)
        paths = list(archive.paths())
        if any(map(parse_name, paths)):
            return open_idx(archive, labels=self.labels)
        if any(path.endswith(".npy") for path in paths):
            return open_npz(archive.archive, labels=self.labels)
        listed = ", ".join(map(repr, paths[:MAX_NAMES_SHOWN])) or "no files"
        more = f" and {len(paths) - MAX_NAMES_SHOWN:,} more" if len(paths) > MAX_NAMES_SHOWN else ""
        raise SourceError(
            f"{archive.name}: expected IDX files of the usual names, pictures or arrays, got "
            f"{listed}{more}; extract it, and name the files to build from"
        )

    def _archive(self) -> ZipFiles:
        return ZipFiles(open_bytes(self.given, storage_options=self.options))


def _is_of_pictures(archive: ZipFiles) -> bool:
    return not any(map(parse_name, archive.paths())) and holds_pictures(archive)
