"""From a Dataset to a Zarr store: the template, then the chunks, then the metadata.

Large variables are read once, in the order of the source, a block of rows at a
time. Each row goes to the buffer of the object (chunk or shard) that it is
stored in, and every object that is full goes to a pool of threads that
compress and write it. In source order a block is an object; in label order one
object per class is open. So memory holds a few objects, whatever the size of
the data.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import optimize
from zarr.abc.store import Store

if TYPE_CHECKING:
    from distributed import Client
from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import block_bounds, bytes_per_sample, iter_blocks
from mnist_zarr.dataset.classes import MAX_CLASSES, class_attrs
from mnist_zarr.dataset.records import (
    SHA256_ORDER,
    SOURCE_SHA256,
    ContentHash,
    content_sha256,
    is_recorded_hash,
    sha256_name,
)
from mnist_zarr.dataset.scaling import pack, stay_packed
from mnist_zarr.dataset.schema import (
    IMAGE,
    LABEL,
    SAMPLE,
    SOURCE_INDEX,
    SPLIT,
    STRING_DTYPE,
    is_string,
)
from mnist_zarr.errors import SchemaError
from mnist_zarr.pool import Pool, active_client, open_pool
from mnist_zarr.stores.keys import PARALLEL_REQUESTS
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.stores.upload import Upload
from mnist_zarr.terminal import sample_bar
from mnist_zarr.writing.chunks import ArrayWriter
from mnist_zarr.writing.layout import Codec, Compression, Layout, ZarrFormat
from mnist_zarr.writing.plan import (
    Chunking,
    Order,
    SampleOrder,
    SourceOrder,
    plan_label_order,
    scatter_passes,
)
from mnist_zarr.writing.template import ArraySpec, Template

OPEN_OBJECTS_BYTES = 64 << 20
# What may wait for the pool. In label order the open objects tend to become full
# at the same time, and reading shall go on meanwhile.
WAITING_BYTES_OF_ORDER: dict[Order, int] = {"source": 4 << 20, "label": 16 << 20}


def write_zarr(
    ds: xr.Dataset,
    target: Target,
    *,
    order: Order = "source",
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
) -> None:
    """Write a Dataset of the data model as a Zarr store, in bounded memory.

    The store appears under its name only when it is complete: until then a
    local target is absent, or the old store, and one in an object store cannot
    be opened.

    Parameters
    ----------
    ds : xarray.Dataset
        With dimension ``sample`` first in every variable that has it; lazy or
        in memory.
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    order : {"source", "label"}
        ``"source"`` keeps the order of ``ds``. ``"label"`` puts the samples of
        one class together, in the order of ``ds`` within the class, so that
        ``.sel(label=7)`` reads one contiguous range.
    chunk_bytes : int, optional
        Upper bound of the uncompressed bytes of an image chunk. By default 3
        million in source order and 0.45 million in label order.
    shard_bytes : int, optional
        Upper bound of the uncompressed bytes of a shard, an object that holds
        several chunks (format 3). By default no shards.
    codec : {"zstd", "gzip"}
        The compression; both carry a checksum.
    level : int
        1 to 22 for zstd, 1 to 9 for gzip.
    zarr_format : {3, 2}
        The version of the Zarr format.
    rescale : (low, high), optional
        Store the integers as they are, and let xarray open them as float64 in
        this range, with the CF attributes ``scale_factor`` and ``add_offset``.
        What was opened from such a store is written as such a one in any case.
    overwrite : bool
        Whether to replace an existing store.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.
    client : distributed.Client, optional
        The dask cluster whose workers shall compress and write; by default
        the active one, and without any, threads of this process.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Raises
    ------
    SchemaError
        If ``ds`` is not of the data model, or ``rescale`` is given for an image
        that is not of integers or has a scale factor already.
    OptionError
        If an option is outside its range.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.

    Examples
    --------
    >>> from zarr.storage import MemoryStore
    >>> store = MemoryStore()
    >>> write_zarr(schema.make_dataset(np.zeros((4, 2, 2)), label=np.array([1, 0, 1, 0])), store)
    >>> xr.open_zarr(store).sel(label=1).source_index.values
    array([0, 2], dtype=uint32)
    """
    schema.validate(ds)
    ds = stay_packed(ds) if rescale is None else pack(ds, rescale)
    layout = Layout(order, chunk_bytes, shard_bytes, Compression(codec, level), zarr_format)
    if order == "label" and LABEL not in ds.variables:
        raise SchemaError("order='label' needs a coordinate 'label', which this Dataset has not")
    place = parse_target(target, storage_options)
    workers = client or active_client() if place.is_shared else None
    with place.create(overwrite=overwrite) as store:
        _StoreWriter(ds, store, layout, progress, workers).write()


class _StoreWriter:
    """One Dataset on its way into one store."""

    def __init__(
        self,
        ds: xr.Dataset,
        store: Store,
        layout: Layout,
        progress: bool | None,
        client: Client | None,
    ) -> None:
        self._n_samples = ds.sizes[SAMPLE]
        self._layout = layout
        self._store = store
        self._progress = progress
        self._client = client
        self._image_hash = _OrderedHash()
        self._source_files = ds.encoding.get("source_files", ())
        self._variables = dict(ds.variables)
        if SOURCE_INDEX not in ds.variables:
            dtype = schema.source_index_dtype(self._n_samples)
            added = schema.make_dataset(None, source_index=np.arange(self._n_samples, dtype=dtype))
            self._variables[SOURCE_INDEX] = added[SOURCE_INDEX].variable
        self._coords = {*ds.coords, LABEL, SPLIT, SOURCE_INDEX} & self._variables.keys()
        # Hashes of the store that ``ds`` was opened from are not those of this one.
        self._attrs = {k: v for k, v in ds.attrs.items() if not is_recorded_hash(k)}
        self._labels = _distinct(self._variables[LABEL]) if LABEL in ds.variables else None
        self._order = self._plan_order()

    def write(self) -> None:
        specs = [self._spec(str(name)) for name in self._variables]
        template = Template(specs, self._layout.compression, self._layout.zarr_format)
        arrays = template.bind(self._store)
        with ThreadPoolExecutor(1) as executor:
            hashes = [(file, executor.submit(file.sha256)) for file in self._source_files]
            attrs = self._final_attrs(self._write_arrays(arrays), arrays)
            if hashes:
                attrs[SOURCE_SHA256] = [
                    f"{hashed.result()}  {os.path.basename(file.name)}" for file, hashed in hashes
                ]
        template.publish(self._store, attrs)

    def _plan_order(self) -> SampleOrder:
        if self._layout.order == "source" or self._labels is None:
            return SourceOrder(self._n_samples)
        code_dtype = np.min_scalar_type(max(len(self._labels) - 1, 0))
        codes = np.empty(self._n_samples, dtype=code_dtype)
        for start, block in iter_blocks(self._variables[LABEL]):
            codes[start : start + len(block)] = np.searchsorted(self._labels, block)
        return plan_label_order(codes, len(self._labels))

    def _spec(self, name: str) -> ArraySpec:
        variable = self._variables[name]
        dtype = _stored_dtype(name, variable.dtype)
        chunks, shards = tuple(max(1, size) for size in variable.shape), None
        if SAMPLE in variable.dims:
            chunking = self._layout.chunking(variable)
            chunks = (chunking.chunk_samples, *chunks[1:])
            if chunking.shard_samples:
                shards = (chunking.shard_samples, *chunks[1:])
        dims = tuple(map(str, variable.dims))
        return ArraySpec(
            name, dims, variable.shape, dtype, chunks, shards, self._variable_attrs(name)
        )

    def _variable_attrs(self, name: str) -> dict[str, Any]:
        attrs = dict(self._variables[name].attrs)
        if name == LABEL and self._labels is not None and "flag_values" not in attrs:
            values = self._labels.tolist()
            if len(values) <= MAX_CLASSES and all(isinstance(v, int) for v in values):
                attrs |= class_attrs(values, [str(value) for value in values])
        if name not in self._coords:
            dims = set(self._variables[name].dims)
            beside = [c for c in self._coords if set(self._variables[c].dims) <= dims]
            if beside:
                attrs["coordinates"] = " ".join(sorted(map(str, beside)))
        return attrs

    def _write_arrays(self, arrays: dict[str, ArrayWriter]) -> str | None:
        """Write all chunks; return the SHA-256 of the image in source order."""
        large = [name for name, variable in self._variables.items() if self._is_large(variable)]
        waiting_bytes = WAITING_BYTES_OF_ORDER[self._layout.order]
        waiting_tasks = max(2, waiting_bytes // max(1, self._object_bytes()))
        # Objects that go over a network wait for it most of the time.
        n_threads = PARALLEL_REQUESTS if isinstance(self._store, Upload) else None
        with (
            open_pool(waiting_tasks, self._client, n_threads=n_threads) as pool,
            self._image_hash,
            sample_bar(self._n_samples * len(large), self._progress) as bar,
        ):
            for name, variable in self._variables.items():
                array = arrays[str(name)]
                if variable.dims[:1] != (SAMPLE,):
                    array.write_whole(variable.values)
                elif not self._is_large(variable):
                    self._write_coordinate(array, variable, pool)
                    if name == IMAGE:  # one number a sample
                        for _, block in iter_blocks(variable):
                            self._image_hash.update(block)
                else:
                    self._write_large(name, array, pool, bar.update)
        if IMAGE not in self._variables:
            return None
        return self._image_hash.hexdigest()

    def _object_bytes(self) -> int:
        """Return the uncompressed bytes of the largest object."""
        return max(
            self._layout.chunking(variable).object_samples * bytes_per_sample(variable)
            for variable in self._variables.values()
            if SAMPLE in variable.dims
        )

    @staticmethod
    def _is_large(variable: xr.Variable) -> bool:
        return variable.ndim > 1 and variable.dims[0] == SAMPLE

    def _write_coordinate(self, array: ArrayWriter, variable: xr.Variable, pool: Pool) -> None:
        chunking = self._layout.chunking(variable)
        for index in range(chunking.n_objects):
            start, stop = chunking.bounds(index)
            values = self._stored_samples(variable, start, stop).values
            pool.submit(array.write, start, values)

    def _stored_samples(self, variable: xr.Variable, start: int, stop: int) -> xr.Variable:
        """Return the rows that are stored at ``start`` to ``stop``, lazily."""
        if isinstance(self._order, SourceOrder):
            return variable[start:stop]
        return variable[self._order.source_positions(start, stop)]

    def _write_large(
        self, name: Hashable, array: ArrayWriter, pool: Pool, advance: Callable[[int], Any]
    ) -> None:
        variable = self._variables[name]
        image_hash = self._image_hash if name == IMAGE else None
        if pool.on_cluster and _can_be_read_by_workers(variable):
            self._let_workers_read(variable, array, pool, image_hash, advance)
        elif isinstance(self._order, SourceOrder) and variable.chunks is None:
            self._write_in_source_order(variable, array, pool, image_hash, advance)
        else:
            self._scatter(variable, array, pool, image_hash, advance)

    def _write_in_source_order(
        self,
        variable: xr.Variable,
        array: ArrayWriter,
        pool: Pool,
        image_hash: _OrderedHash | None,
        advance: Callable[[int], Any],
    ) -> None:
        chunking = self._layout.chunking(variable)
        for index in range(chunking.n_objects):
            start, stop = chunking.bounds(index)
            block = variable[start:stop].values
            pool.submit(array.write, start, block)
            if image_hash:
                image_hash.update(block)
            advance(len(block))

    def _scatter(
        self,
        variable: xr.Variable,
        array: ArrayWriter,
        pool: Pool,
        image_hash: _OrderedHash | None,
        advance: Callable[[int], Any],
    ) -> None:
        chunking = self._layout.chunking(variable)
        object_bytes = max(1, chunking.object_samples * bytes_per_sample(variable))
        groups = list(
            scatter_passes(self._order, chunking, max(2, OPEN_OBJECTS_BYTES // object_bytes))
        )
        for group in groups:
            is_first, is_last = group is groups[0], group is groups[-1]
            scatter = _Scatter(array, chunking, group, pool)
            for start, block in iter_blocks(variable):
                scatter.add(self._order.stored_positions(start, start + len(block)), block)
                if image_hash and is_first:
                    image_hash.update(block)
                if is_last:
                    advance(len(block))

    def _let_workers_read(
        self,
        variable: xr.Variable,
        array: ArrayWriter,
        pool: Pool,
        image_hash: _OrderedHash | None,
        advance: Callable[[int], Any],
    ) -> None:
        chunking = self._layout.chunking(variable)
        for index in range(chunking.n_objects):
            start, stop = chunking.bounds(index)
            rows = self._stored_samples(variable, start, stop)
            if rows.chunks is not None:
                # Only the part of the graph that makes these rows travels.
                rows = rows.copy(data=cast(Any, optimize)(rows.data)[0])
            pool.submit(_copy_object, array, start, rows)
            advance(stop - start)
        pool.finish()
        if image_hash is None:
            return
        if variable.chunks is None:
            for _, block in iter_blocks(variable):
                image_hash.update(block)
        else:  # computing it all once more would cost more than reading what was stored
            for start, stop in block_bounds(self._n_samples, bytes_per_sample(variable)):
                rows_stored = array.array.oindex[self._order.stored_positions(start, stop)]
                image_hash.update(np.asarray(rows_stored))

    def _final_attrs(
        self, image_sha256: str | None, arrays: dict[str, ArrayWriter]
    ) -> dict[str, Any]:
        attrs = {"Conventions": schema.CONVENTIONS, **self._attrs}
        attrs["software"] = f"mnist-zarr {importlib.metadata.version('mnist-zarr')}"
        attrs["order"] = self._layout.order
        attrs |= self._content_hashes(image_sha256, arrays)
        alone = self._coords - {
            name
            for variable in self._variables
            if variable not in self._coords
            for name in self._coords
            if set(self._variables[name].dims) <= set(self._variables[variable].dims)
        }
        if alone:
            attrs["coordinates"] = " ".join(sorted(map(str, alone)))
        return attrs

    def _content_hashes(
        self, image_sha256: str | None, arrays: dict[str, ArrayWriter]
    ) -> dict[str, str]:
        """Return the hashes of the image and of each coordinate, and the order that they are in."""
        names = sorted(
            str(name)
            for name in self._coords - {SOURCE_INDEX}
            if self._variables[name].dims == (SAMPLE,)
        )
        if _is_ascending(self._variables[SOURCE_INDEX]):
            hashes = {SHA256_ORDER: SOURCE_INDEX}
        else:  # the order of the source cannot be told from the store
            hashes = {SHA256_ORDER: "stored"}
            if self._layout.order == "label":
                names += [IMAGE] * (image_sha256 is not None)
                return hashes | {
                    sha256_name(name): _hash_stored(arrays[name].array) for name in names
                }
        if image_sha256:
            hashes[sha256_name(IMAGE)] = image_sha256
        for name in names:
            rows = (block for _, block in iter_blocks(self._variables[name]))
            hashes[sha256_name(name)] = content_sha256(rows)
        return hashes


class _Scatter:
    """Gathers rows into the objects that they are stored in; full ones are written."""

    def __init__(self, array: ArrayWriter, chunking: Chunking, objects: range, pool: Pool) -> None:
        self._array = array
        self._chunking = chunking
        self._objects = objects
        self._pool = pool
        self._open: dict[int, tuple[npt.NDArray[Any], int]] = {}  # buffer, rows still missing

    def add(self, positions: npt.NDArray[np.int64], rows: npt.NDArray[Any]) -> None:
        """Take rows that are stored at ``positions``, which are distinct."""
        by_position = np.argsort(positions)
        ordered = positions[by_position]
        objects = ordered // self._chunking.object_samples
        # Rows of one class that go to one object lie there one after the other.
        breaks = np.flatnonzero((np.diff(ordered) != 1) | (np.diff(objects) != 0)) + 1
        for first, last in itertools.pairwise([0, *breaks.tolist(), len(ordered)]):
            index = int(objects[first])
            if index in self._objects:
                self._put(index, int(ordered[first]), rows, by_position[first:last])

    def _put(
        self, index: int, position: int, rows: npt.NDArray[Any], chosen: npt.NDArray[np.intp]
    ) -> None:
        start, stop = self._chunking.bounds(index)
        if index not in self._open:
            self._open[index] = np.empty((stop - start, *rows.shape[1:]), rows.dtype), stop - start
        buffer, missing = self._open[index]
        part = buffer[position - start : position - start + len(chosen)]
        # Any other mode than "raise" lets numpy write to `part` without a copy between.
        np.take(rows, chosen, axis=0, out=part, mode="clip")
        missing -= len(chosen)
        if missing:
            self._open[index] = buffer, missing
        else:
            del self._open[index]
            self._pool.submit(self._array.write, start, buffer)


class _OrderedHash:
    """SHA-256 of blocks in the order given, computed beside other work."""

    def __init__(self) -> None:
        self._digest = ContentHash()

    def __enter__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pool = Pool(self._thread, max_pending=2)

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def update(self, block: npt.NDArray[Any]) -> None:
        self._pool.submit(self._digest.update, block)

    def hexdigest(self) -> str:
        self._pool.finish()
        return self._digest.hexdigest()


def _distinct(label: xr.Variable) -> npt.NDArray[Any]:
    """Return the distinct labels, ascending."""
    values = np.empty(0, dtype=label.dtype)
    for _, block in iter_blocks(label):
        values = np.union1d(values, block)
    return values


def _copy_object(array: ArrayWriter, start: int, rows: xr.Variable) -> None:
    # The thread of a worker must not wait for tasks that need threads of workers.
    with dask.config.set(scheduler="synchronous"):
        array.write(start, rows.values)


def _can_be_read_by_workers(variable: xr.Variable) -> bool:
    return variable.chunks is not None or variable.encoding.get("seeks_cheaply", False)


def _is_ascending(source_index: xr.Variable) -> bool:
    last = -1
    for _, block in iter_blocks(source_index):
        if block[0] <= last or (np.diff(block.astype(np.int64)) <= 0).any():
            return False
        last = int(block[-1])
    return True


def _hash_stored(array: zarr.Array[Any]) -> str:
    sample_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
    return content_sha256(
        np.asarray(array[start:stop]) for start, stop in block_bounds(array.shape[0], sample_bytes)
    )


def _stored_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "biufc":
        return dtype.newbyteorder("=")
    if is_string(dtype):
        return STRING_DTYPE
    raise SchemaError(
        f"{name!r}: expected numbers, booleans or strings, got {dtype}; convert it or drop it "
        f"with .drop_vars({name!r})"
    )
