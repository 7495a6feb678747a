"""A folder of IDX files, the original ones of MNIST's family, from a Dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import iter_blocks_at
from mnist_zarr.dataset.scaling import unpack
from mnist_zarr.dataset.schema import IMAGE, LABEL, SAMPLE
from mnist_zarr.dataset.selection import splits_in_source_order
from mnist_zarr.errors import SchemaError
from mnist_zarr.files.output import create_files
from mnist_zarr.formats.idx import IdxHeader, header_of, write_blocks
from mnist_zarr.formats.idx_names import SPLIT_OF_WORD
from mnist_zarr.terminal import sample_bar

WORD_OF_SPLIT = {split: word for word, split in SPLIT_OF_WORD.items()}
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

    Of the whole MNIST, from a store of either order, these are the original
    files to the last byte: ``train-images-idx3-ubyte``,
    ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``. Other splits have files of their names; without
    ``split`` they are ``images-idx3-ubyte`` and ``labels-idx1-ubyte``.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image``, and ``label`` if there are labels; whole or a
        selection. The samples are written in the order of ``source_index``.
        Of a store that opens rescaled the stored integers are taken.
    folder : str or os.PathLike
        A local folder, which is made if it is not there. The files appear in
        it together, when all are complete.
    compress : bool
        Whether to gzip the files, with names that end with ``.gz``.
    overwrite : bool
        Whether to replace existing files.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.

    Raises
    ------
    SchemaError
        If ``ds`` is not of the data model, or has no image.
    IdxTypeError
        If IDX cannot hold the type of the images or labels.
    TargetExistsError
        If one of the files exists and ``overwrite`` is false.

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
    if IMAGE not in ds.variables:
        raise SchemaError("write_idx_files: the Dataset has no 'image'")
    variables = {"images": unpack(ds[IMAGE].variable)}
    if LABEL in ds.variables:
        variables["labels"] = ds[LABEL].variable
    parts = [
        _Part(role, split, variable, positions)
        for split, positions in splits_in_source_order(ds)
        for role, variable in variables.items()
    ]
    headers = {part.file_name(compress=compress): (part.header(), part) for part in parts}
    with (
        create_files(folder, list(headers), overwrite=overwrite) as place,
        sample_bar(ds.sizes[SAMPLE] * len(variables), progress) as bar,
    ):
        for name, (header, part) in headers.items():
            write_blocks(header, part.blocks(bar.update), place / name)


@dataclass(frozen=True, eq=False)
class _Part:
    """What goes to one file."""

    role: str
    split: str | None
    variable: xr.Variable
    positions: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.variable.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.variable.dtype
        return dtype.newbyteorder("=")

    def __getitem__(self, key: Any) -> Any:
        return self.variable[self.positions[key]].values

    def header(self) -> IdxHeader:
        return header_of(self, self.role)

    def file_name(self, *, compress: bool) -> str:
        word = WORD_OF_SPLIT.get(self.split or "", self.split)
        prefix = f"{word}-" if word else ""
        kind = WORD_OF_DTYPE.get(str(self.dtype), str(self.dtype))
        return f"{prefix}{self.role}-idx{len(self.shape)}-{kind}{'.gz' if compress else ''}"

    def blocks(self, advance: Callable[[int], Any]) -> Iterator[npt.NDArray[Any]]:
        for block in iter_blocks_at(self.variable, self.positions):
            yield block
            advance(len(block))
