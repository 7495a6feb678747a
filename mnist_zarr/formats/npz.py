"""NumPy's .npz archives: lazy Datasets from them, and archives from Datasets."""

from __future__ import annotations

import functools
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendEntrypoint

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import block_bounds, bytes_per_sample, iter_blocks_at
from mnist_zarr.dataset.formulas import Elementwise
from mnist_zarr.dataset.scaling import scaling_of, unpack
from mnist_zarr.dataset.schema import (
    COL,
    IMAGE,
    INDICATOR_SAMPLES,
    LABEL,
    ROW,
    SAMPLE,
    SPLIT_OF_WORD,
    check_is_no_indicator,
    split_of,
    split_order,
)
from mnist_zarr.dataset.selection import splits_in_source_order
from mnist_zarr.dataset.unlabelled import label_of_export
from mnist_zarr.errors import NpzFormatError, SchemaError, SourceError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.output import create_file
from mnist_zarr.files.sources import PathOrFile, open_bytes
from mnist_zarr.files.urls import path_or_url, shown_url
from mnist_zarr.files.zip_source import open_member, read_directory
from mnist_zarr.formats.idx_names import IdxPair
from mnist_zarr.formats.npy import NpyFile, npy_header
from mnist_zarr.formats.source import Source
from mnist_zarr.formats.stacked import (
    as_opened,
    dataset_of_files,
    dataset_of_labels,
    refuse_unknown_options,
)
from mnist_zarr.terminal import sample_bar

# X_train of scikit-learn's users, x_train of Keras; X and y without a split.
X_AND_Y = re.compile(r"(?P<role>[xy])(?:_(?P<split>.+))?", re.IGNORECASE)
# train_images of MedMNIST, images, data and target; other words beside these are no splits.
WORDS = re.compile(
    r"(?:(?P<before>{0})[-_. ])?(?P<word>images?|imgs?|data|labels?|targets?)"
    r"(?:[-_. ](?P<split>{0}))?".format("|".join(SPLIT_OF_WORD)),
    re.IGNORECASE,
)
# Of numpy.savez(file, images, labels).
SAVED_PAIR = ("arr_0", "arr_1")
KNOWN_NAMES = (
    "X_train, y_train, X_test, y_test (or x_train, train_images, train_labels ...), X, y, images, "
    "labels, data, target, or arr_0, arr_1"
)


def open_npz(
    source: PathOrFile | ByteSource | Sequence[IdxPair],
    *,
    labels: PathOrFile | Literal[False] | None = None,
    chunks: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Open an .npz archive as a lazy, labelled Dataset.

    Parameters
    ----------
    source : path, URL, open binary file, or list of IdxPair
        An archive with the arrays ``X_train``, ``y_train``, ``X_test`` and
        ``y_test``, as written by :func:`write_npz`; the same in lower case, as
        in Keras' ``mnist.npz``; ``train_images``, ``train_labels``, ..., as of
        MedMNIST; ``X`` and ``y``, ``images`` and ``labels``, ``data`` and ``target``,
        or ``arr_0`` and ``arr_1``, without splits; or a single
        array, ``arr_0``, as in the files of KMNIST. Where images and labels of
        each split are archives of one array, give a list of
        :class:`~mnist_zarr.formats.idx_names.IdxPair`.
    labels : path, URL, open binary file or False, optional
        The archive of the labels, where ``source`` has only images. False opens
        images only.
    chunks : optional
        As in :func:`xarray.open_dataset`: ``None`` for plain lazy arrays,
        ``{}`` for dask arrays.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Returns
    -------
    xarray.Dataset
        As :func:`open_idx` returns it. Samples of 784 values, or of another
        square number, become images of 28 by 28. Labels have the shape (sample,) or
        (sample, 1). Nothing is ever unpickled.

    Raises
    ------
    NpzFormatError
        If the archive does not hold arrays of numbers with such names.
    FileFormatError
        If it is not a whole zip archive, or its data are damaged; also when
        values are read.
    SourceError
        If images and labels do not fit together, or a file cannot be read or
        changes while it is read.
    SourceNotFoundError
        If there is no such file.
    OptionError
        If the source is no path or URL, or ``storage_options`` is no dictionary.
    MissingExtraError
        If the package that knows the URL is not installed.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> np.savez(file, x_train=np.zeros((2, 784)), y_train=np.array([5, 0]))
    >>> _ = file.seek(0)
    >>> dict(open_npz(file).sizes)
    {'sample': 2, 'row': 28, 'col': 28}
    """
    return xr.open_dataset(
        cast(Any, source),
        engine=cast(Any, _NpzBackendEntrypoint),
        chunks=chunks,
        labels=labels,
        storage_options=storage_options,
    )


class _NpzBackendEntrypoint(BackendEntrypoint):
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "labels", "storage_options")

    def open_dataset(  # type: ignore[override]  # each engine names its own options
        self,
        filename_or_obj: PathOrFile | ByteSource | Sequence[IdxPair],
        *,
        drop_variables: str | Iterable[str] | None = None,
        labels: PathOrFile | Literal[False] | None = None,
        storage_options: dict[str, Any] | None = None,
        **decoders: Any,
    ) -> xr.Dataset:
        refuse_unknown_options(decoders, self.open_dataset_parameters)
        if isinstance(filename_or_obj, Sequence) and not isinstance(filename_or_obj, str):
            if not all(isinstance(pair, IdxPair) for pair in filename_or_obj):
                raise SourceError(
                    "expected an archive, or a list of IdxPair; build(target, [...]) concatenates "
                    "archives"
                )
            images = [_Archive(pair.images, storage_options) for pair in filename_or_obj]
            labels_of = [pair.labels for pair in filename_or_obj]
            tables = [path and _Archive(path, storage_options) for path in labels_of]
            ds = _dataset_of_arrays(
                [archive.only_array() for archive in images],
                [table.only_array() if table else None for table in tables],
                [pair.split for pair in filename_or_obj],
            )
            archives = images + [table for table in tables if table]
        else:
            archives = [_Archive(filename_or_obj, storage_options)]
            if labels is not None and labels is not False:
                archives.append(_Archive(labels, storage_options))
            ds = _dataset_of(*archives)
            if labels is False and IMAGE in ds.variables:
                ds = ds.drop_vars(LABEL, errors="ignore")
        return as_opened(ds, [archive.bytes for archive in archives], drop_variables)


class _Archive:
    """The arrays of an .npz archive by name."""

    def __init__(
        self, source: PathOrFile | ByteSource, storage_options: dict[str, Any] | None
    ) -> None:
        self.bytes: ByteSource = open_bytes(source, storage_options=storage_options)
        self.name = self.bytes.name
        self._members = {
            name.removesuffix(".npy"): open_member(self.bytes, info)
            for name, info in read_directory(self.bytes).items()
            if name.endswith(".npy")
        }

    def by_role(self, role: str) -> dict[str | None, NpyFile]:
        """Return the images ("x") or labels ("y") of each split."""
        if set(self._members) == set(SAVED_PAIR):
            return {None: NpyFile(self._members[SAVED_PAIR["xy".index(role)]])}
        found: dict[str | None, NpyFile] = {}
        for name, member in self._members.items():
            parsed = _parse_name(name)
            if parsed and parsed[0] == role:
                split = parsed[1]
                if split in found:
                    raise NpzFormatError(
                        f"{member.name}: is of the same role and split as {found[split].name!r}; "
                        "expected one of them"
                    )
                found[split] = NpyFile(member)
        return found

    def only_array(self) -> NpyFile:
        """Return the array of an archive that has no other."""
        if len(self._members) != 1:
            raise NpzFormatError(
                f"{self.name}: expected arrays {KNOWN_NAMES}; got "
                f"{', '.join(self._members) or 'no array'}"
            )
        return NpyFile(next(iter(self._members.values())))


def _parse_name(name: str) -> tuple[str, str | None] | None:
    """Return the role of an array, "x" or "y", and its split; None if its name tells neither."""
    if match := X_AND_Y.fullmatch(name):
        role, word = match["role"].lower(), match["split"]
    elif (match := WORDS.fullmatch(name)) and not (match["before"] and match["split"]):
        role = "y" if match["word"].lower().startswith(("label", "target")) else "x"
        word = match["before"] or match["split"]
    else:
        return None
    return role, word and split_of(word)


def _dataset_of(archive: _Archive, label_archive: _Archive | None = None) -> xr.Dataset:
    images, labels = archive.by_role("x"), archive.by_role("y")
    if not images and not labels:
        only = archive.only_array()
        if label_archive is None and len(only.shape) == 1:
            _check_labels(only)
            return dataset_of_labels(only)
        images = {None: only}
    if label_archive is not None:
        if labels:
            raise SourceError(f"`labels`: the archive {archive.name} has its own")
        labels = label_archive.by_role("y") or {None: label_archive.only_array()}
    unlabelled = images.keys() - labels.keys() - {"test"} if labels else set()
    if unlabelled or labels.keys() - images.keys():
        raise SourceError(
            f"{archive.name}: images and labels of different splits: images of "
            f"{_show(images)}, labels of {_show(labels)}"
        )
    splits = sorted(images, key=split_order)
    return _dataset_of_arrays(
        [images[split] for split in splits], [labels.get(split) for split in splits], splits
    )


def _dataset_of_arrays(
    images: Sequence[NpyFile], labels: Sequence[NpyFile | None], splits: Sequence[str | None]
) -> xr.Dataset:
    for image in images:
        _make_square(image)
    for label in labels:
        if label is not None:
            _check_labels(label)
    return dataset_of_files(images, labels, splits)


def _show(arrays: dict[str | None, NpyFile]) -> str:
    return ", ".join(split or "no split" for split in arrays) or "none"


def _make_square(image: NpyFile) -> None:
    if len(image.shape) < 2:
        raise NpzFormatError(
            f"{image.name}: expected images of shape (sample, row, col) or (sample, pixel), got "
            f"shape {image.shape}"
        )
    side = math.isqrt(image.shape[1])
    if len(image.shape) == 2 and side * side == image.shape[1]:
        image.reshape_samples((side, side))


def _check_labels(label: NpyFile) -> None:
    if len(label.shape) == 2 and label.shape[1] == 1:  # a column
        label.reshape_samples(())
    elif len(label.shape) == 2:
        head = label.read_samples(0, min(label.shape[0], INDICATOR_SAMPLES))
        check_is_no_indicator(head, label.name)
    if len(label.shape) != 1 or label.dtype.kind not in "iu":
        raise NpzFormatError(
            f"{label.name}: expected labels of shape (sample,) and an integer type, got shape "
            f"{label.shape} of {label.dtype}; save them again with .astype('int64'), or one column"
        )


class NpzSource(Source):
    """An .npz archive."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return isinstance(given, str | os.PathLike) and path_or_url(given).lower().endswith(".npz")

    def open(self) -> xr.Dataset:
        return open_npz(self.given, labels=self.labels, storage_options=self.options)


def write_npz(
    ds: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    scaled: bool = True,
    flat: bool | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> None:
    """Write a Dataset as a compressed .npz archive, in bounded memory.

    The arrays are ``X_train``, ``y_train``, ``X_test`` and ``y_test``, or ``X``
    and ``y`` of a Dataset without ``split``; ``numpy.load`` reads them. The
    samples are in the order of the source, whatever the order of ``ds``.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``image``, and ``label`` if there are labels; lazy or in memory.
        From a store that opens rescaled, the stored integers are taken.
    path : str or os.PathLike
        Path or URL of the archive, which appears only when it is complete.
    scaled : bool
        Whether to map the pixels onto float64 from -1 to 1, those of uint8 bit
        for bit as ``((x / 255.) - .5) * 2`` does; or to leave them as they are.
    flat : bool, optional
        Whether samples have the shape ``(784,)``, or ``(28, 28)``. By default only
        gray images of as many rows as columns become flat: of others nobody could
        tell the shape again.
    overwrite : bool
        Whether to replace an existing file.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.

    Raises
    ------
    SchemaError
        If ``ds`` is not of the data model, has no image or labels that are not
        integers, or labels for only some samples of a split; if a split has a name
        that no file can have; if the range of the pixels is not known, or values of a
        rescaled store were changed.
    OptionError
        If ``path`` is no path or URL.
    TargetExistsError
        If the file exists and ``overwrite`` is false.
    OutputError
        If it cannot be written.
    MissingExtraError
        If the package that knows the URL is not installed.

    Examples
    --------
    >>> import tempfile
    >>> ds = schema.make_dataset(np.zeros((2, 28, 28), "uint8"), label=np.array([5, 0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_npz(ds, f"{folder}/zeros.npz")
    ...     np.load(f"{folder}/zeros.npz")["X"][:, :3]
    array([[-1., -1., -1.],
           [-1., -1., -1.]])
    """
    schema.validate(ds)
    schema.require(ds, "write_npz", IMAGE)
    image = unpack(ds[IMAGE].variable)
    label = ds[LABEL].variable if LABEL in ds.variables else None
    if label is not None and label.dtype.kind not in "iu":
        raise SchemaError(f"label: expected integers, got {label.dtype}")
    splits = splits_in_source_order(ds)
    dtype: np.dtype[Any] = np.dtype(np.float64) if scaled else image.dtype.newbyteorder("=")
    convert = Elementwise(scaling_of(image, -1, 1), image.dtype, dtype) if scaled else None
    if flat is None:
        flat = image.dims == (SAMPLE, ROW, COL) and image.shape[1] == image.shape[2]
    sample_shape = (math.prod(image.shape[1:]),) if flat else image.shape[1:]
    label_of_bar = f"writing {shown_url(path_or_url(path))}"
    with (
        create_file(path, overwrite=overwrite) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        sample_bar(label_of_bar, ds.sizes[SAMPLE], {IMAGE: 1}, progress) as advance,
    ):
        for split, positions in splits:
            ending = f"_{split}" if split else ""
            _write_array(
                archive,
                f"X{ending}",
                npy_header(dtype, (len(positions), *sample_shape)),
                _pieces(image, positions, convert, functools.partial(advance, IMAGE)),
            )
            part = None if label is None else label_of_export(label, positions, split)
            if part is not None:
                _write_array(
                    archive,
                    f"y{ending}",
                    npy_header(part.dtype.newbyteorder("="), (len(positions),)),
                    iter_blocks_at(part, positions),
                )


def _pieces(
    image: xr.Variable,
    positions: npt.NDArray[np.int64],
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None,
    advance: Callable[[int], Any],
) -> Iterator[npt.NDArray[Any]]:
    # In float64, a byte of uint8 becomes eight.
    sample_bytes = bytes_per_sample(image) * np.dtype(np.float64).itemsize
    for block in iter_blocks_at(image, positions):
        for start, stop in block_bounds(len(block), sample_bytes):
            piece = block[start:stop]
            yield convert(piece) if convert else piece
            advance(stop - start)


def _write_array(
    archive: zipfile.ZipFile, name: str, header: bytes, pieces: Iterable[npt.NDArray[Any]]
) -> None:
    # A member that is opened by name carries no time: equal data give equal files.
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        member.write(header)
        for piece in pieces:
            native = piece.astype(piece.dtype.newbyteorder("="), copy=False)
            member.write(np.ascontiguousarray(native).data)
