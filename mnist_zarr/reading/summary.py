"""The figures of a store, as ``mnist-zarr info`` shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mnist_zarr.dataset import schema
from mnist_zarr.dataset.classes import MAX_CLASSES, class_names, count_samples
from mnist_zarr.dataset.records import SOURCE_SHA256, sha256_name
from mnist_zarr.dataset.schema import LABEL, SPLIT
from mnist_zarr.errors import SchemaError
from mnist_zarr.reading.reader import open_place
from mnist_zarr.stores.inventory import take_inventory
from mnist_zarr.stores.keys import is_document
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.terminal import BLOCK, align_columns, printable

BAR_WIDTH = 24


@dataclass(frozen=True)
class ArraySummary:
    """The figures of one array.

    Attributes
    ----------
    name : str
        The name of the variable.
    dims : tuple of str
        Its dimensions.
    shape, chunks : tuple of int
        Its length and that of its chunks along each dimension.
    shards : tuple of int, optional
        The same of its shards, if it has any.
    dtype : str
        The stored type, ``"string"`` for text.
    codec : str
        How chunks are compressed, such as ``"zstd 9"``.
    n_objects : int
        The number of chunks, or shards, in the store.
    raw_bytes, stored_bytes : int
        The size of the values, and of the objects with their metadata.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str
    n_objects: int
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class StoreSummary:
    """The figures of a store.

    Attributes
    ----------
    name : str
        The name of the store.
    zarr_format : int
        Its Zarr format, 2 or 3.
    arrays : tuple of ArraySummary
        The figures of each array.
    splits : tuple of str
        The names of the splits; one empty name if the store has labels but no splits.
    counts : dict
        From the name of each class to the number of its samples per split.
    attrs : dict
        The root attributes.
    """

    name: str
    zarr_format: int
    arrays: tuple[ArraySummary, ...]
    splits: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    attrs: dict[str, Any]

    def to_text(self) -> str:
        """Return the figures as lines for a terminal."""
        lines = (*self._array_lines(), *self._class_lines(), *self._source_lines())
        return "\n".join(map(printable, lines))

    def _array_lines(self) -> Iterator[str]:
        yield f"{self.name}: Zarr format {self.zarr_format}"
        if "title" in self.attrs:
            yield str(self.attrs["title"])
        yield ""
        rows = [
            ("array", "dimensions", "type", "chunk", "codec", "objects", "raw", "stored", "ratio")
        ]
        for array in self.arrays:
            dims = ", ".join(
                f"{dim} {size:,}" for dim, size in zip(array.dims, array.shape, strict=True)
            )
            chunk = "x".join(map(str, array.chunks))
            if array.shards:
                chunk += f" in {'x'.join(map(str, array.shards))}"
            rows.append(
                (
                    array.name,
                    dims,
                    array.dtype,
                    chunk,
                    array.codec,
                    f"{array.n_objects:,}",
                    f"{array.raw_bytes:,}",
                    f"{array.stored_bytes:,}",
                    _ratio(array.raw_bytes, array.stored_bytes),
                )
            )
        raw = sum(array.raw_bytes for array in self.arrays)
        stored = sum(array.stored_bytes for array in self.arrays)
        objects = f"{sum(array.n_objects for array in self.arrays):,}"
        total = ("total", "", "", "", "", objects, f"{raw:,}", f"{stored:,}", _ratio(raw, stored))
        yield from align_columns([*rows, total], right=(5, 6, 7, 8))

    def _class_lines(self) -> Iterator[str]:
        if not self.counts:
            return
        yield ""
        most = max(sum(counts) for counts in self.counts.values())
        rows = [(LABEL, *self.splits, "total", "")]
        for name, counts in self.counts.items():
            bar = BLOCK * max(1, round(BAR_WIDTH * sum(counts) / max(most, 1)))
            rows.append((name, *(f"{count:,}" for count in counts), f"{sum(counts):,}", bar))
        sums = [sum(column) for column in zip(*self.counts.values(), strict=True)]
        rows.append(("total", *(f"{count:,}" for count in sums), f"{sum(sums):,}", ""))
        if len(self.splits) == 1 and self.splits[0] == "":
            rows = [(row[0], *row[2:]) for row in rows]
        yield from align_columns(rows, right=range(1, len(rows[0]) - 1))

    def _source_lines(self) -> Iterator[str]:
        shown = ("order", "license", "references", "software")
        listed = self.attrs.get(SOURCE_SHA256, [])
        yield ""
        if listed:
            yield "source files, with their SHA-256:"
            yield from (f"  {line}" for line in ([listed] if isinstance(listed, str) else listed))
        elif "source" in self.attrs:
            yield f"source: {self.attrs['source']}"
        names = (array.name for array in self.arrays if sha256_name(array.name) in self.attrs)
        hashes = [f"  {self.attrs[sha256_name(name)]}  {name}" for name in names]
        if hashes:
            yield "values, with their SHA-256:"
            yield from hashes
        yield from (f"{name}: {self.attrs[name]}" for name in shown if name in self.attrs)


def summarize(target: Target, *, storage_options: dict[str, Any] | None = None) -> StoreSummary:
    """Collect the figures of a store, from its metadata, its coordinates and one listing.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL, or to Icechunk.

    Returns
    -------
    StoreSummary
        The figures; ``to_text()`` shows them as tables.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreReplacedError
        If the store is replaced while it is read.
    StoreError
        If what is there cannot be opened.
    SchemaError
        If ``flag_values`` and ``flag_meanings`` of ``label`` do not name its classes.
    OptionError
        If the target takes no ``storage_options``, or is neither a path, a URL nor
        a store object.
    MissingExtraError
        If the package that can open the URL is not installed.

    Examples
    --------
    >>> import tempfile, mnist_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     summary = summarize(f"{folder}/mnist.zarr")
    >>> summary.splits, summary.counts["7"]
    (('train', 'test'), (6265, 1028))
    """
    place = parse_target(target, storage_options)
    ds, group = open_place(place)
    arrays = dict(group.arrays())
    inventory = take_inventory((arrays[str(name)] for name in ds.variables), group.store)
    splits, counts = _count_samples(ds)
    return StoreSummary(
        name=place.name,
        zarr_format=group.metadata.zarr_format,
        arrays=tuple(
            _summarize_array(array, inventory.sizes_of(array), ds[name])
            for name, array in zip(ds.variables, inventory.arrays, strict=True)
        ),
        splits=splits,
        counts=counts,
        attrs=dict(ds.attrs),
    )


def _summarize_array(array: Any, sizes: Mapping[str, int], variable: xr.DataArray) -> ArraySummary:
    codecs = [_codec_name(codec) for codec in array.compressors]
    return ArraySummary(
        name=str(variable.name),
        dims=tuple(map(str, variable.dims)),
        shape=array.shape,
        dtype="string" if schema.is_string(array.dtype) else str(array.dtype),
        chunks=array.chunks,
        shards=array.shards,
        codec=" + ".join(codecs) or "none",
        n_objects=sum(not is_document(key) for key in sizes),
        raw_bytes=_raw_bytes(array, variable),
        stored_bytes=sum(sizes.values()),
    )


def _raw_bytes(array: Any, variable: xr.DataArray) -> int:
    if not schema.is_string(variable.dtype):
        return int(array.nbytes)  # of the stored type, where the variable opens rescaled
    # Characters of variable length have no size per element: count what they hold.
    values, counts = np.unique(variable.values, return_counts=True)
    return int(sum(len(str(v).encode()) * n for v, n in zip(values, counts, strict=True)))


def _codec_name(codec: Any) -> str:
    config = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    name = config.get("name") or config.get("id")
    level = config.get("configuration", config).get("level")
    return f"{name} {level}" if level is not None else str(name)


def _count_samples(ds: xr.Dataset) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    if LABEL not in ds.variables:
        return (), {}
    try:
        counts = count_samples(ds)
    except SchemaError:  # too many splits for a table
        counts = count_samples(ds.drop_vars(SPLIT))
    if len(counts.of_label) > MAX_CLASSES:
        return (), {}
    names = class_names(ds)
    return counts.splits, {
        names.get(value, str(value)): row for value, row in counts.of_label.items()
    }


def _ratio(raw_bytes: int, stored_bytes: int) -> str:
    return f"{raw_bytes / stored_bytes:.2f}" if stored_bytes else "-"
