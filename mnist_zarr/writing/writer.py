"""From a Dataset to a Zarr store: the plan, the template, the chunks, the metadata."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import xarray as xr

if TYPE_CHECKING:
    from distributed import Client
from mnist_zarr.dataset import schema
from mnist_zarr.dataset.blocks import bytes_per_sample, iter_blocks
from mnist_zarr.dataset.classes import flag_names
from mnist_zarr.dataset.lazy import is_lazy
from mnist_zarr.dataset.records import SOURCE_FILES, ContentHash, content_sha256, source_line
from mnist_zarr.dataset.scaling import keep_packing, pack, with_true_range
from mnist_zarr.dataset.schema import (
    IMAGE,
    LABEL,
    SAMPLE,
    SOURCE_INDEX,
    SPLIT,
    as_strings,
    is_string,
)
from mnist_zarr.errors import SchemaError, StoreError
from mnist_zarr.pool import Pool, active_client, open_pool
from mnist_zarr.stores.keys import PARALLEL_REQUESTS
from mnist_zarr.stores.lineage import stores_behind
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.stores.upload import Upload
from mnist_zarr.terminal import sample_bar
from mnist_zarr.writing.attributes import (
    Content,
    as_json,
    is_as_opened,
    label_attrs,
    name_coordinates,
    root_attrs,
    without_partial_source,
)
from mnist_zarr.writing.chunks import ArrayWriter, Written
from mnist_zarr.writing.layout import Codec, Compression, Layout, ZarrFormat
from mnist_zarr.writing.numbering import Numbering, number_samples
from mnist_zarr.writing.passes import Transfer, choose_pass, stored_blocks
from mnist_zarr.writing.plan import (
    Chunking,
    Order,
    Positions,
    SampleOrder,
    SourceOrder,
    factorize_labels,
    plan_label_order,
    plan_shuffled_order,
)
from mnist_zarr.writing.template import Template, check_name, stored_dtype

# What may wait for the pool. In the other orders the open objects tend to become full at the same
# time, and reading goes on meanwhile.
WAITING_BYTES_OF_ORDER: dict[Order, int] = {
    "source": 4 << 20,
    "label": 16 << 20,
    "shuffled": 16 << 20,
}


def write_zarr(
    ds: xr.Dataset,
    target: Target,
    *,
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
) -> None:
    """Write a Dataset of the data model as a Zarr store, in bounded memory.

    The store appears under its name only when it is complete: until then a
    local target is absent, or the old store, and one in an object store cannot
    be opened. Data that are expensive to read, as those of gzip files, are read
    once.

    What a Dataset says of itself is written as far as it is true of its samples.
    ``id``, ``title``, ``license`` and the hashes of the source files of a data set
    or store are kept for the very same images and labels; in a store of others,
    such as a selection, ``source`` says what they were made from. (To name them
    yourself, replace ``ds.attrs`` as a whole.) ``source_index`` is numbered anew
    if it has a number twice, flags that are just the numbers are made anew if
    there are other labels. The attribute ``valid_range`` of the image is written where it is known
    to be true of these values, see :func:`mnist_zarr.rescale`.

    Parameters
    ----------
    ds : xarray.Dataset
        With dimension ``sample`` first in every variable that has it; lazy or
        in memory.
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    order : {"source", "label", "shuffled"}
        ``"source"`` keeps the order of ``ds``. ``"label"`` puts the samples of
        one class together, in the order of ``ds`` within the class, so that
        ``.sel(label=7)`` reads one contiguous range. ``"shuffled"`` puts them
        in a random order, so that training may read the store front to back;
        the source is read once for every 64 MB of the store. ``source_index``
        has the position of each sample in ``ds``.
    seed : int, optional
        Of the shuffled order, 0 by default. The same seed gives the same order.
    chunk_bytes : int, optional
        Upper bound of the uncompressed bytes of an image chunk. By default
        3,000,000, and 450,000 in label order.
    shard_bytes : int, optional
        Upper bound of the uncompressed bytes of a shard, an object that holds
        several chunks (format 3); 0 for no shards. By default 30,000,000 if
        there would be more than 2,000 chunks, else no shards.
    codec : {"zstd", "gzip"}
        The compression; both carry a checksum.
    level : int
        1 to 22 for zstd, 1 to 9 for gzip.
    zarr_format : {3, 2}
        The version of the Zarr format.
    rescale : (low, high), optional
        Store the integers as they are, and let xarray open them as float64 in
        this range, with the CF attributes ``scale_factor`` and ``add_offset``.
        A Dataset that was opened from such a store is always written as one.
    overwrite : bool
        Whether to replace an existing store.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.
    client : distributed.Client, optional
        The dask cluster whose workers compress and write; by default the
        active one, and without any, threads of this process.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Raises
    ------
    SchemaError
        If ``ds`` is not of the data model, or has a name, a type, a value or an
        attribute that Zarr cannot hold; if ``rescale`` is given for an image that
        is not of integers or has a scale factor already; if there are labels
        that ``flag_values`` does not name, where it names others.
    OptionError
        If an option is outside its range, or the target takes no
        ``storage_options``.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building the same target.
    StoreError
        If something else than a Zarr store is at the target, or the target
        cannot be reached or written; also if ``ds`` is lazy and the store behind
        it is damaged or replaced meanwhile.
    MissingExtraError
        If the package that knows the address is not installed.
    IdxFormatError, NpzFormatError, SourceNotFoundError
        If ``ds`` is lazy and a file behind it is damaged, changed or lost.

    Examples
    --------
    >>> import numpy as np
    >>> from zarr.storage import MemoryStore
    >>> store = MemoryStore()
    >>> write_zarr(schema.make_dataset(np.zeros((4, 2, 2)), label=np.array([1, 0, 1, 0])), store)
    >>> xr.open_zarr(store).sel(label=1).source_index.values
    array([0, 2], dtype=uint32)
    """
    layout = Layout(order, seed, chunk_bytes, shard_bytes, Compression(codec, level), zarr_format)
    write_store(
        ds,
        parse_target(target, storage_options),
        layout,
        rescale=rescale,
        overwrite=overwrite,
        progress=progress,
        client=client,
    )


def write_store(
    ds: xr.Dataset,
    place: Place,
    layout: Layout,
    *,
    rescale: tuple[float, float] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    client: Client | None = None,
) -> None:
    """Write a Dataset to a place, laid out like this; see :func:`write_zarr`."""
    schema.validate(ds)
    ds = without_partial_source(ds)
    if IMAGE in ds.variables:
        ds = ds.assign({IMAGE: with_true_range(ds[IMAGE].variable)})
    ds = keep_packing(ds) if rescale is None else pack(ds, rescale)
    _check_is_no_source_of(ds, place)
    workers = client or active_client() if place.is_shared else None
    # Before the target is touched: what cannot be written leaves an old store as it is.
    plan = _plan_store(ds, layout, on_cluster=workers is not None)
    template = Template(layout.compression, layout.zarr_format)
    for name, variable in plan.variables.items():
        template.add(name, variable, plan.chunkings.get(name), plan.array_attrs[name])
    with place.create(overwrite=overwrite) as store:
        # Objects that go over a network wait for it most of the time.
        upload = store if isinstance(store, Upload) else None
        outcome = _Outcome(upload)
        arrays = template.bind(store)
        with (
            contextlib.ExitStack() as at_end,
            ThreadPoolExecutor(1) as beside,
            open_pool(
                plan.waiting_tasks,
                workers,
                n_threads=PARALLEL_REQUESTS if upload else None,
                on_result=outcome.add,
            ) as pool,
        ):
            files = ds.encoding.get(SOURCE_FILES, ())
            sources = beside.map(lambda file: source_line(file.sha256(), file.name), files)
            label = f"writing {place.name}"
            for array in arrays.values():
                at_end.callback(array.close)
            hashes = _write_chunks(plan, arrays, pool, outcome, label, progress)
        attrs = root_attrs(
            plan.attrs,
            layout.order,
            Content(
                plan.numbering.content_order, plan.order.n_samples, hashes, tuple(outcome.blank)
            ),
            plan.coordinates,
            list(dict.fromkeys(sources)),  # some may be named by several parts
            is_as_opened=plan.is_as_opened,
        )
        template.write_metadata(store, attrs)
        place.check_complete(store)


class _Outcome:
    """What the objects that have been written add to the records."""

    def __init__(self, upload: Upload | None) -> None:
        self._upload = upload
        self.blank: list[tuple[str, int]] = []

    def add(self, written: Written | None) -> None:
        if written is None:
            return
        if self._upload:
            self._upload.add_receipt(written.receipt)
        if written.is_blank:
            self.blank.append((written.array, written.index))


def _check_is_no_source_of(ds: xr.Dataset, place: Place) -> None:
    """Check that samples which are still to be read are not overwritten meanwhile."""
    for store in stores_behind(ds.variables.values()):
        if place.changes_under(store):
            raise StoreError(
                f"{place.name}: the Dataset is read from this very store, whose objects would be "
                "overwritten one by one; load it first, or write to another place"
            )


@dataclass(frozen=True)
class _StorePlan:
    """What is written, and how."""

    variables: dict[str, xr.Variable]
    array_attrs: dict[str, dict[Any, Any]]
    chunkings: dict[str, Chunking]  # of the variables along ``sample``
    pieces: dict[str, Chunking]  # of these, what is written at once
    order: SampleOrder  # of the samples in the store
    numbering: Numbering  # of the samples
    hashed: list[str]  # variables whose content is recorded
    attrs: dict[str, Any]  # of the Dataset
    is_as_opened: bool  # whether that is a data set of the catalog, unchanged
    coordinates: str  # those that no variable names
    waiting_tasks: int  # how many objects may wait to be written


def _plan_store(ds: xr.Dataset, layout: Layout, *, on_cluster: bool) -> _StorePlan:
    if layout.order == "label":
        schema.require(ds, "`order='label'`", LABEL)
    variables = {check_name(name): variable for name, variable in ds.variables.items()}
    for name, variable in variables.items():
        if variable.dims == (SAMPLE,):
            flag_names(name, variable.attrs)  # else no reader could use it
        _check_values(name, variable)
    numbering = number_samples(ds)
    variables[SOURCE_INDEX] = numbering.source_index
    coords = {*ds.coords, LABEL, SPLIT, SOURCE_INDEX} & variables.keys()
    along_sample = {name: v for name, v in variables.items() if SAMPLE in v.dims}
    chunkings = {name: layout.chunking(variable) for name, variable in along_sample.items()}
    # Threads fill a shard together. The workers of a cluster share nothing.
    pieces = chunkings if on_cluster else {name: c.without_shards for name, c in chunkings.items()}
    largest_piece = max(
        piece.object_samples * bytes_per_sample(along_sample[name])
        for name, piece in pieces.items()
    )
    order, attrs_of_label = _plan_order(variables.get(LABEL), ds.sizes[SAMPLE], layout)
    named, alone = name_coordinates(variables, coords)
    attrs = {name: variable.attrs for name, variable in variables.items()} | attrs_of_label
    hashed = sorted(name for name in coords & chunkings.keys() if variables[name].ndim == 1)
    hashed.remove(SOURCE_INDEX)
    return _StorePlan(
        variables=variables,
        array_attrs={name: attrs[name] | named.get(name, {}) for name in variables},
        chunkings=chunkings,
        pieces=pieces,
        order=order,
        numbering=numbering,
        hashed=[IMAGE, *hashed] if IMAGE in chunkings else hashed,
        attrs=as_json(ds.attrs, "the Dataset"),
        is_as_opened=is_as_opened(ds),
        coordinates=alone,
        waiting_tasks=max(2, WAITING_BYTES_OF_ORDER[layout.order] // max(1, largest_piece)),
    )


def _check_values(name: str, variable: xr.Variable) -> None:
    """Check the values of a variable, as far as they are at hand."""
    if isinstance(variable, xr.IndexVariable) and variable.level_names:
        raise SchemaError(
            f"{name!r}: is a MultiIndex, which Zarr cannot hold; use .reset_index({name!r})"
        )
    stored_dtype(name, variable.dtype)
    if variable.dtype.kind in "OU" and variable.chunks is None and not is_lazy(variable):
        for _, block in iter_blocks(variable) if variable.ndim else [(0, variable.values)]:
            as_strings(name, block)


def _plan_order(
    label: xr.Variable | None, n_samples: int, layout: Layout
) -> tuple[SampleOrder, dict[str, dict[str, Any]]]:
    """Return the order of the samples, and the attributes of ``label``, with flags."""
    order: SampleOrder = SourceOrder(n_samples)
    if layout.order == "shuffled":
        order = plan_shuffled_order(n_samples, layout.seed or 0)
    if label is None:
        return order, {}
    blocks = (block for _, block in iter_blocks(label))
    if is_string(label.dtype):
        blocks = (as_strings(LABEL, block) for block in blocks)
    labels, codes = factorize_labels(blocks)
    attrs = {LABEL: label_attrs(label.attrs, labels)}
    if layout.order != "label":
        return order, attrs
    return plan_label_order(codes, len(labels)), attrs


def _write_chunks(
    plan: _StorePlan,
    arrays: Mapping[str, ArrayWriter],
    pool: Pool,
    outcome: _Outcome,
    label: str,
    progress: bool | None,
) -> dict[str, str]:
    """Write all chunks; return the SHA-256 of the content of each variable that is hashed."""
    comes_in_order = plan.numbering.positions is None and (
        plan.numbering.content_order == SOURCE_INDEX or isinstance(plan.order, SourceOrder)
    )
    digests = {name: ContentHash() for name in plan.hashed if comes_in_order}
    sample_bytes = {name: bytes_per_sample(plan.variables[name]) for name in plan.chunkings}
    with (
        open_pool(1, n_threads=1) as hashing,
        sample_bar(label, plan.order.n_samples, sample_bytes, progress) as advance,
    ):

        def on_block(name: str, n_samples: int, block: npt.NDArray[Any] | None) -> None:
            advance(name, n_samples)
            if block is None:
                digests.pop(name, None)
            elif name in digests:
                hashing.submit(digests[name].update, block)

        for name, variable in plan.variables.items():
            if name in plan.chunkings:
                transfer = Transfer(variable, arrays[name], plan.pieces[name], plan.order)
                choose_pass(transfer, pool)(transfer, pool, functools.partial(on_block, name))
            else:
                outcome.add(arrays[name].write_whole(variable.values))
        pool.finish()
    # What did not pass by is read back.
    positions_of = _hashed_positions(plan)
    return {
        name: digests[name].hexdigest()
        if name in digests
        else content_sha256(stored_blocks(arrays[name].array, positions_of))
        for name in plan.hashed
    }


def _hashed_positions(plan: _StorePlan) -> Callable[[int, int], Positions]:
    """Return what says which stored samples come when in the order in which they are hashed."""
    if plan.numbering.content_order != SOURCE_INDEX:
        return SourceOrder(plan.order.n_samples).stored_positions
    if plan.numbering.positions is None:
        return plan.order.stored_positions
    positions = plan.order.stored_positions(0, plan.order.n_samples)[plan.numbering.positions]
    return lambda start, stop: positions[start:stop]
