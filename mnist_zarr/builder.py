"""From a source to a store or to arrays, in one call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from zarr.abc.store import Store

if TYPE_CHECKING:
    from distributed import Client
from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.catalog.opening import CatalogSource
from mnist_zarr.dataset.classes import FLAGS, MAX_CLASSES, name_classes
from mnist_zarr.dataset.concatenation import Part, concat_samples
from mnist_zarr.dataset.schema import (
    IMAGE,
    LABEL,
    SAMPLE,
    SPLIT,
    STRING_DTYPE,
    require,
    split_of,
    split_variable,
    validate,
)
from mnist_zarr.dataset.selection import splits_in_source_order
from mnist_zarr.dataset.unlabelled import without_labels
from mnist_zarr.errors import OptionError, SchemaError, SourceError, SourceNotFoundError
from mnist_zarr.files.output import create_file
from mnist_zarr.files.sources import PathOrFile, describe, open_bytes
from mnist_zarr.files.urls import is_url, path_or_url
from mnist_zarr.formats.idx_engine import IdxSource
from mnist_zarr.formats.idx_names import IdxPair, parse_name, refusal_of_labels
from mnist_zarr.formats.npz import NpzSource
from mnist_zarr.formats.picture_files import AS_THEY_ARE, Fit, Form, Mode
from mnist_zarr.formats.pictures import PicturesSource
from mnist_zarr.formats.source import Source
from mnist_zarr.formats.zip_archives import ZipSource
from mnist_zarr.hosting.page import make_page
from mnist_zarr.reading.reader import StoreSource
from mnist_zarr.stores.keys import PAGE
from mnist_zarr.stores.local import LocalFolder
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.writing.layout import Codec, Compression, Layout, ZarrFormat
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_store

MAX_NAMES_BYTES = 1 << 20
NAMES_FILES = ("classes.txt", "labels.txt")
AnySource = PathOrFile | IdxPair | Store | xr.Dataset
Labels = PathOrFile | Literal[False] | None


def build(
    target: Target,
    source: AnySource | Sequence[AnySource] = "mnist",
    *,
    labels: Labels | Sequence[Labels] = None,
    split: str | Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    mode: Mode | None = None,
    fit: Fit = "crop",
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    order: Order = "source",
    seed: int | None = None,
    chunk_bytes: int | None = None,
    shard_bytes: int | None = None,
    codec: Codec = "zstd",
    level: int = 9,
    zarr_format: ZarrFormat = 3,
    rescale: tuple[float, float] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    client: Client | None = None,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
    page: bool = False,
) -> None:
    """Build a Zarr store from a source, in one pass and bounded memory.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object. No
        reader can open the store before it is complete; an interrupted upload
        is resumed.
    source : optional
        The name of a data set of the catalog (``"mnist"``, the default, is
        bundled; the others are downloaded, see :func:`open_dataset`); an IDX
        image file; a folder with one pair of IDX files per split; a folder of
        pictures, see :func:`open_pictures`; a zip archive of such a folder, which is
        read in place; an .npz archive; a Zarr store; or a
        Dataset. Of a list of these, in any mixture,
        the samples are concatenated; ``source_index`` continues from each to the
        next, and what identifies only one of them (``id``, recorded hashes) is
        left out. Write ``"./mnist"`` for a folder that has the name of a data set.
    labels : path, URL, open binary file or False, optional
        The label file of an image file, if its name does not match; or a CSV
        file for a folder of pictures. False builds without labels: files that have
        none are refused otherwise. For a list of sources, a list with one of these,
        or None, for each; samples without labels beside others then get the label
        -1, which CF calls missing.
    split : str or list of str, optional
        The split of all samples, if the names do not tell it; or a list with one for
        each source.
    size, mode, fit : optional
        How pictures become samples of one shape, see :func:`open_pictures`: width
        and height; ``"L"``, ``"RGB"`` or ``"RGBA"``; ``"crop"`` or ``"pad"``.
    class_names : sequence of str, path or URL, optional
        The names of the labels 0, 1, 2, ...; or a text file with a line for each. By
        default, those of ``classes.txt`` or ``labels.txt`` beside local IDX files or
        archives, if that has a name for every label.
    order, seed, chunk_bytes, shard_bytes, codec, level, zarr_format
        The layout of the store; see :func:`write_zarr`.
    rescale : (low, high), optional
        The range in which the store opens, as float64; the stored integers do
        not change. See :func:`write_zarr`.
    overwrite, progress, client, storage_options
        How the store is written; see :func:`write_zarr`.
    source_options : dict, optional
        Passed to the fsspec file system of a source behind a URL, such as the
        credentials of a private bucket.
    page : bool
        Whether to add the page that shows the store in the browser,
        ``index.html``, for a folder of this machine that a web server serves.
        :func:`publish` writes it elsewhere.

    Raises
    ------
    FileFormatError
        If a source file is not a complete IDX file, .npz archive or picture.
    SourceError
        If the source cannot be read, takes no ``labels``, has splits of its own or
        files without labels, or its files or several sources do not fit together.
    SourceNotFoundError
        If the source names no data set, file or folder.
    StoreNotFoundError
        If the source is a Zarr store, and there is none.
    StoreReplacedError
        If the source is a Zarr store that is replaced while it is read.
    DownloadError
        If a file of the data set is not cached and no mirror has it.
    SchemaError
        If the source is a Dataset that does not follow the data model, or one
        that lacks what ``order`` or ``rescale`` needs; if there is a label that
        ``class_names`` does not name, or a name is empty or repeated.
    OptionError
        If an option is outside its range, the source or the target takes no
        options, or a page is asked for and the target is no folder of this machine.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.
    StoreError
        If the target is something else than a Zarr store, its objects would be
        overwritten while the source reads them, or a store cannot be read or
        written.
    MissingExtraError
        If an optional package is needed and not installed.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build(f"{folder}/mnist.zarr")
    ...     dict(xr.open_zarr(f"{folder}/mnist.zarr").sel(label=7).sizes)
    {'sample': 7293, 'row': 28, 'col': 28}

    Files of any names:

    >>> build(  # doctest: +SKIP
    ...     "kannada.zarr",
    ...     ["X_kannada_MNIST_train-idx3-ubyte.gz", "X_kannada_MNIST_test-idx3-ubyte.gz"],
    ...     labels=["y_kannada_MNIST_train-idx1-ubyte.gz", "y_kannada_MNIST_test-idx1-ubyte.gz"],
    ...     split=["train", "test"],
    ... )
    """
    # Before anything is opened, or downloaded.
    layout = Layout(order, seed, chunk_bytes, shard_bytes, Compression(codec, level), zarr_format)
    place = parse_target(target, storage_options)
    if page and not isinstance(place, LocalFolder):
        raise OptionError(
            f"`page`: expected a folder of this machine as the target, got {place.name}; "
            "'mnist-zarr publish' copies a finished store with a page, and 'mnist-zarr view' shows "
            "any store"
        )
    chosen = parse_source(source, labels, source_options, Form(size, mode, fit), split)
    ds = _open_with_labels(chosen)
    if class_names is None:
        class_names = _names_beside(chosen, ds)
    if class_names is not None:
        ds = name_classes(ds, _read_names(class_names, source_options))
    write_store(
        ds, place, layout, rescale=rescale, overwrite=overwrite, progress=progress, client=client
    )
    if page and isinstance(place, LocalFolder):
        with create_file(place.path / PAGE, overwrite=True) as file:
            file.write(make_page())


Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def load(
    source: AnySource | Sequence[AnySource] = "mnist",
    *,
    labels: Labels | Sequence[Labels] = None,
    split: str | Sequence[str] | None = None,
    source_options: dict[str, Any] | None = None,
) -> tuple[Arrays, Arrays]:
    """Load the images and labels of both splits, as Keras' ``mnist.load_data()`` does.

    Parameters
    ----------
    source, labels, split, source_options
        A data set of the catalog, a store, IDX files or anything else that
        :func:`build` takes.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        NumPy arrays of the types in the source, uint8 for MNIST: images of shape
        (sample, row, col), labels of shape (sample,). The samples are in source
        order, whatever the order of a store.

    Raises
    ------
    SchemaError
        If there is no ``image``, ``label`` or ``split``, or no sample of one of
        the two splits.
    MnistZarrError
        If the source cannot be read; see :func:`build`.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load("mnist")
    >>> x_train.shape, y_train.shape, x_test.shape, y_test.shape
    ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    """
    ds = parse_source(source, labels, source_options, split=split).open()
    validate(ds)
    require(ds, "load", IMAGE, LABEL)
    splits = dict(splits_in_source_order(ds))
    if not {"train", "test"} <= splits.keys():
        found = ", ".join(map(str, splits)) if None not in splits else "no split"
        raise SchemaError(
            f"load: needs samples of the splits 'train' and 'test', got {found}; see "
            "stratified_split"
        )
    images, classes = ds[IMAGE].values, ds[LABEL].values
    train, test = ((images[splits[name]], classes[splits[name]]) for name in ("train", "test"))
    return train, test


def _names_beside(source: Source, ds: xr.Dataset) -> list[str] | None:
    """Return the names of classes from a text file beside the files, if it has one for each label.

    Anything else may have the name of such a file: labels of samples, a list of files.
    """
    if not isinstance(source, FILES) or not isinstance(source.given, str | os.PathLike):
        return None
    path, label = path_or_url(source.given), ds.get(LABEL)
    if is_url(path) or label is None or label.dtype.kind not in "iu" or not label.size:
        return None
    if label.attrs.keys() & set(FLAGS):
        return None
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    for file in (os.path.join(folder, name) for name in NAMES_FILES):
        if not os.path.isfile(file):
            continue
        with contextlib.suppress(SourceError):
            names = ["_".join(name.split()) for name in _read_names(file, None)]
            are_words = all(names) and not all(map(str.isdecimal, names))
            is_list = are_words and len(set(names)) == len(names) <= MAX_CLASSES
            if is_list and int(label.max()) < len(names):
                return names
    return None


def _read_names(
    given: Sequence[str] | str | os.PathLike[str], source_options: dict[str, Any] | None
) -> Sequence[str]:
    if not isinstance(given, str | os.PathLike):
        return given
    file = open_bytes(given, storage_options=source_options)
    try:
        return bytes(file.read(0, MAX_NAMES_BYTES)).decode("utf-8-sig").strip().splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{file.name}: expected a text file in UTF-8 with the name of a class in each line: "
            f"{error}"
        ) from error


class DatasetSource(Source):
    """A Dataset."""

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return isinstance(given, xr.Dataset)

    def open(self) -> xr.Dataset:
        self._refuse_labels("a Dataset has its own; use .assign_coords(label=...)")
        self._refuse_options("a Dataset")
        ds: xr.Dataset = self.given
        return ds


@dataclass(frozen=True)
class SeveralSources(Source):
    """A list of sources, which are concatenated in the order given.

    Attributes
    ----------
    split : sequence of str, optional
        Of each source.
    """

    split: Sequence[str] | None = None

    @classmethod
    def recognizes(cls, given: object) -> bool:
        return _is_list(given)

    def open(self) -> xr.Dataset:
        sources = self._sources()
        opened = list(map(_open_with_labels, sources))
        if self.split is not None:
            splits = _one_for_each("split", self.split, self.given)
            opened = [
                _with_split(ds, split, _name_of(source.given))
                for ds, split, source in zip(opened, splits, sources, strict=True)
            ]
        if len(opened) == 1:
            return opened[0]
        if any(LABEL in ds.variables for ds in opened):
            opened = [
                without_labels(ds) if source.labels is False else ds
                for source, ds in zip(sources, opened, strict=True)
            ]
        return concat_samples(
            [
                Part(_name_of(source.given), ds, not isinstance(source, DatasetSource))
                for source, ds in zip(sources, opened, strict=True)
            ]
        )

    def identity(self) -> Hashable:
        return tuple(source.identity() for source in self._sources())

    def _sources(self) -> list[Source]:
        if not self.given:
            raise SourceError("source: expected one or more, got an empty list")
        labels = [self.labels] * len(self.given)
        if self.labels is not None and self.labels is not False:
            labels = _one_for_each("labels", self.labels, self.given)
        if not any(map(is_url, self.given)):
            self._refuse_options("a list without a URL")
        sources = [
            parse_source(part, labels_of_part, self.options if is_url(part) else None)
            for part, labels_of_part in zip(self.given, labels, strict=True)
        ]
        if self.form == AS_THEY_ARE:
            return sources
        if not any(hold_pictures := [source.holds_pictures() for source in sources]):
            _refuse_form(self.form, "none of the sources holds pictures")
        return [
            replace(source, form=self.form) if holds_pictures else source
            for source, holds_pictures in zip(sources, hold_pictures, strict=True)
        ]


def _is_list(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def _one_for_each(name: str, values: Any, sources: Sequence[Any]) -> list[Any]:
    if not _is_list(values) or len(values) != len(sources):
        found = f"{len(values)}" if _is_list(values) else repr(values)
        raise OptionError(
            f"`{name}`: expected a list with one for each source, of which there are "
            f"{len(sources)}, got {found}"
        )
    return list(values)


def _open_with_labels(source: Source) -> xr.Dataset:
    """Open a source; files without labels are refused unless somebody says that they have none."""
    ds = source.open()
    if isinstance(source, FILES) and source.labels is None and LABEL not in ds.variables:
        refusal = refusal_of_labels(source.given, storage_options=source.options)
        raise SourceError(
            f"{_name_of(source.given)}: found no labels{refusal and f': {refusal}'}; name them, "
            "such as with `labels='FILE'`, or build without labels with `labels=False`"
        )
    return ds


def _with_split(ds: xr.Dataset, split: str, name: str) -> xr.Dataset:
    if not isinstance(cast(object, split), str) or not split:
        raise OptionError(f"`split`: expected the name of a split, got {split!r}")
    if SPLIT in ds.variables:
        found = sorted(set(ds[SPLIT].values.tolist()))
        if len(found) > 1:
            raise SourceError(
                f"`split`: {name} has splits of its own: {', '.join(map(str, found))}"
            )
    values = np.full(ds.sizes[SAMPLE], split_of(split), STRING_DTYPE)
    return ds.assign_coords({SPLIT: split_variable(values)})


def _name_of(given: object) -> str:
    return describe(given) if isinstance(given, str | os.PathLike) else type(given).__name__


# The kinds of sources; the first that recognizes the argument takes it.
KINDS: tuple[type[Source], ...] = (
    SeveralSources,
    DatasetSource,
    CatalogSource,
    StoreSource,
    NpzSource,
    ZipSource,
    PicturesSource,
    IdxSource,
)
FILES = (NpzSource, ZipSource, PicturesSource, IdxSource)


def parse_source(
    given: AnySource | Sequence[AnySource],
    labels: Labels | Sequence[Labels] = None,
    source_options: dict[str, Any] | None = None,
    form: Form = AS_THEY_ARE,
    split: str | Sequence[str] | None = None,
) -> Source:
    """Return the argument of :func:`build` as a source.

    Raises
    ------
    OptionError
        If it holds no pictures, which ``form`` is for.
    SourceNotFoundError
        If it names no data set, file or folder.

    Examples
    --------
    >>> type(parse_source("mnist")).__name__
    'CatalogSource'
    """
    if not _is_list(given) and (split is not None or _is_list(labels)):
        given = [cast(AnySource, given)]
        labels = labels if _is_list(labels) else [cast(Labels, labels)]
        split = split if split is None or _is_list(split) else [cast(str, split)]
    kind = next(kind for kind in KINDS if kind.recognizes(given))
    if kind is SeveralSources:
        return SeveralSources(given, labels, source_options, form, cast("Sequence[str]", split))
    if kind is IdxSource:
        _check_names_something(given)
    source = kind(given, labels, source_options, form)
    if form != AS_THEY_ARE and not source.holds_pictures():
        _refuse_form(form, f"{_name_of(given)} is no folder or archive of pictures")
    return source


def _refuse_form(form: Form, reason: str) -> None:
    for name, value in vars(form).items():
        if value != getattr(AS_THEY_ARE, name):
            raise OptionError(f"`{name}`: {reason}")


def _check_names_something(part: Any) -> None:
    if not isinstance(part, str | os.PathLike):
        return
    name = path_or_url(part)
    if is_url(name) or os.path.lexists(name):
        return
    if os.path.basename(name) == name and parse_name(name) is None and "." not in name:
        raise SourceNotFoundError(
            f"{name!r}: no such file or folder, and no data set of that name; the catalog has "
            f"{', '.join(CATALOG)}"
        )
