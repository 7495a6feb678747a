"""From a Dataset to a folder of IDX files, named as those of MNIST are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import bytes_per_sample, iter_blocks_at
from mnist_zarr.dataset.scaling import unpack
from mnist_zarr.dataset.schema import IMAGE, LABEL, SAMPLE
from mnist_zarr.dataset.selection import splits_in_source_order
from mnist_zarr.dataset.unlabelled import label_of_export
from mnist_zarr.errors import SchemaError
from mnist_zarr.files.output import create_files
from mnist_zarr.files.urls import path_or_url
from mnist_zarr.formats.idx import IdxHeader, header_of, write_blocks
from mnist_zarr.terminal import sample_bar

WORD_OF_SPLIT = {"test": "t10k"}
WORD_OF_DTYPE = {
    "uint8": "ubyte",
    "int8": "byte",
    "int16": "short",
    "int32": "int",
    "float32": "float",
    "float64": "double",
}


def write_idx_files(
    ds: xr.Dataset,
    folder: str | os.PathLike[str],
    *,
    compress: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> None:
    """Write a Dataset as IDX files, in bounded memory.

    MNIST gives the original files byte for byte, from a store of either order:
    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``. The files of
    other splits have the names of those; without ``split`` they are
    ``images-idx3-ubyte`` and ``labels-idx1-ubyte``.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image``, and ``label`` if there are labels; a split in which no sample
        has one gets no label file. The samples are written in the order of
        ``source_index``. From a store that opens rescaled, the stored integers are
        taken.
    folder : str or os.PathLike
        A local folder, which is made if need be. The files appear in it
        together, when all are complete.
    compress : bool
        Whether to gzip the files, whose names then end with ``.gz``.
    overwrite : bool
        Whether to replace existing files.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.

    Raises
    ------
    SchemaError
        If ``ds`` is not of the data model or has no image; if a split has a
        name that no file can have, or the files of two splits would have one
        name; if only some samples of a split have labels; if values of a rescaled
        store were changed.
    IdxTypeError
        If IDX cannot hold the type or shape of the images or labels.
    OptionError
        If ``folder`` is a URL, or no path.
    TargetExistsError
        If one of the files exists and ``overwrite`` is false.
    OutputError
        If the files cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> ds = schema.make_dataset(np.zeros((2, 28, 28), "uint8"), label=np.array([5, 0], "uint8"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx_files(ds, folder)
    ...     sorted(os.listdir(folder))
    ['images-idx3-ubyte', 'labels-idx1-ubyte']
    """
    schema.validate(ds)
    schema.require(ds, "write_idx_files", IMAGE)
    variables = {"images": unpack(ds[IMAGE].variable)}
    if LABEL in ds.variables:
        variables["labels"] = ds[LABEL].variable
    contents = []
    for split, positions in splits_in_source_order(ds):
        contents.append(_Content("images", split, variables["images"], positions))
        if "labels" in variables:
            label = label_of_export(variables["labels"], positions, split)
            if label is not None:
                contents.append(_Content("labels", split, label, positions))
    by_name: dict[str, _Content] = {}
    for content in contents:
        # Not all file systems tell case apart, nor does the reader of these names.
        name = content.file_name(compress=compress).lower()
        other = by_name.setdefault(name, content)
        if other is not content:
            raise SchemaError(
                f"split: {other.split!r} and {content.split!r} would both be written as {name!r}; "
                "rename one"
            )
    sample_bytes = {role: bytes_per_sample(v) for role, v in variables.items()}
    with (
        create_files(folder, list(by_name), overwrite=overwrite) as place,
        sample_bar(
            f"writing {path_or_url(folder)}", ds.sizes[SAMPLE], sample_bytes, progress
        ) as advance,
    ):
        for name, content in by_name.items():
            write_blocks(content.header, content.blocks(advance), place / name)


@dataclass(frozen=True, eq=False)
class _Content:
    """The content of one file."""

    role: str
    split: str | None
    variable: xr.Variable
    positions: npt.NDArray[np.int64]

    @property
    def header(self) -> IdxHeader:
        shape = (len(self.positions), *self.variable.shape[1:])
        return header_of(self.variable.dtype, shape, self.role)

    def file_name(self, *, compress: bool) -> str:
        word = WORD_OF_SPLIT.get(self.split or "", self.split)
        prefix = f"{word}-" if word else ""
        kind = WORD_OF_DTYPE[str(self.header.dtype)]
        rank = len(self.header.shape)
        return f"{prefix}{self.role}-idx{rank}-{kind}{'.gz' if compress else ''}"

    def blocks(self, advance: Callable[[str, int], Any]) -> Iterator[npt.NDArray[Any]]:
        for block in iter_blocks_at(self.variable, self.positions):
            yield block
            advance(self.role, len(block))
