"""Checking that a store is whole and holds what its source held.

Every chunk is decoded, which verifies its checksum. Its values, in the order of the source, are
hashed, and the hashes compared with those that were recorded when the store was built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store

from mnist_zarr.catalog.download import is_here
from mnist_zarr.catalog.entries import CATALOG, CatalogEntry
from mnist_zarr.catalog.opening import open_entry
from mnist_zarr.dataset.blocks import iter_blocks_at
from mnist_zarr.dataset.records import (
    DATASET_ID,
    DERIVED_FROM,
    METADATA_SHA256,
    SHA256_ORDER,
    SHA256_SAMPLES,
    ContentHash,
    as_recorded,
    content_sha256,
    metadata_sha256,
    sha256_name,
)
from mnist_zarr.dataset.schema import IMAGE, LABEL, SAMPLE, SOURCE_INDEX
from mnist_zarr.errors import MissingExtraError, StoreError, StoreReplacedError
from mnist_zarr.pool import open_pool
from mnist_zarr.reading.report import Problem, Verification
from mnist_zarr.reading.stored_samples import Positions, find_damage, iter_samples, one_line
from mnist_zarr.reading.threaded_pipeline import pipeline_of
from mnist_zarr.stores.inventory import (
    MAX_MISSING,
    Promises,
    chunk_keys,
    consolidated_copies,
    dims_of,
    read_documents,
    read_root,
    take_inventory,
)
from mnist_zarr.stores.keys import METADATA_NAMES
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.snapshot import CheckedStore
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.terminal import sample_bar

Arrays = dict[str, zarr.Array[Any]]


def verify(
    target: Target,
    *,
    storage_options: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> Verification:
    """Check a store to the last byte, in bounded memory.

    Checks that every object exists and can be decoded, that every checksum is
    right, that the metadata have not changed since the store was built, that
    coordinates agree with each other, and that images and coordinates have the
    hashes that were recorded when the store was built. A store of a data set of
    the catalog is also compared with that data set: with the hashes in the
    catalog if the store has all samples, otherwise with the files of the data
    set, if they are on this machine.

    Needs memory for two blocks of samples (up to 32 MB each) and for the chunks
    decoded for one of them (up to 32 MB), or for all samples if they take no more
    than 64 MB; and about 25 bytes per sample if samples are not stored in the order
    of the source.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL, or to Icechunk.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    Verification
        The findings. Damage is reported here, not raised.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreReplacedError
        If the store is replaced while it is verified.
    StoreError
        If the store cannot be reached.
    OptionError
        If the target takes no ``storage_options``, or is neither a path, a URL nor
        a store object.
    MissingExtraError
        If the package that can open the URL is not installed.

    Examples
    --------
    >>> import pathlib, tempfile, mnist_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     (pathlib.Path(folder) / "mnist.zarr/image/c/3/0/0").unlink()
    ...     verify(f"{folder}/mnist.zarr").problems
    [Problem(place='image/c/3/0/0', what='is missing')]
    """
    place = parse_target(target, storage_options)
    store, report = place.open_snapshot(), Verification(place.name)
    attrs, arrays, promises = _check_metadata(place, store, report)
    inventory = take_inventory(arrays.values(), store, promises)
    report.n_objects += inventory.n_promised
    if (n_missing := inventory.n_missing) > MAX_MISSING:
        what = f"is missing, and so are {n_missing - 1:,} more of {inventory.n_promised:,} chunks"
        report.add_problem(next(inventory.missing()), what)
        return report
    missing = list(inventory.missing())
    for key in missing:
        size = inventory.sizes.get(key)
        what = "is missing" if size is None else "is cut off" if size else "is empty"
        report.problems.append(Problem(key, what))
    for array in inventory.arrays:
        if inventory.n_absent(array) > MAX_MISSING:
            report.unchecked.append(f"{array.path}: most of its chunks were never written")
            del arrays[array.path]
    if _lengths_agree(arrays, report):
        _check_values(arrays, attrs, frozenset(missing), report, progress)
    return report


def _check_metadata(
    place: Place, store: Store, report: Verification
) -> tuple[Mapping[str, Any], Arrays, Promises]:
    """Compare metadata documents with each other and with their hashes.

    Return the attributes and the arrays that they describe, and which chunks of
    these must exist.
    """
    root = read_root(store)
    root_name = next((name for name in METADATA_NAMES if name in root), None)
    if root_name is None:
        raise place.not_found(store)
    try:
        copies, promises = consolidated_copies(root), Promises(root)
        if isinstance(store, CheckedStore):  # of a chunk that is missing in a shard
            store.promises = promises
        documents = read_documents(store, root)
        with pipeline_of(store):
            group = zarr.open_group(store, mode="r", zarr_format=3 if "zarr.json" in root else 2)
            arrays, attrs = dict(group.arrays()), group.attrs.asdict()
    except StoreError:
        raise
    except Exception as error:  # whatever damaged JSON makes of it
        report.add_problem(root_name, f"cannot be understood: {one_line(error)}")
        return {}, {}, Promises({})
    report.n_objects += len(documents)
    for key, copy in sorted(copies.items()):
        if key not in documents:
            report.add_problem(key, "is missing")
        elif _parsed(documents[key]) != copy:
            report.add_problem(key, "differs from the consolidated metadata")
    _compare_with_metadata_hash(documents, attrs, root_name, report)
    report.unchecked += (f"the group {name!r} inside" for name in sorted(group.group_keys()))
    return attrs, arrays, promises


def _parsed(document: Buffer) -> Any:
    try:
        return json.loads(document.to_bytes())
    except (ValueError, RecursionError):
        return None


def _compare_with_metadata_hash(
    documents: Mapping[str, Buffer], attrs: Mapping[str, Any], place: str, report: Verification
) -> None:
    recorded = as_recorded(attrs.get(METADATA_SHA256))
    if not recorded and SHA256_ORDER in attrs:
        report.add_problem(place, f"the attribute {METADATA_SHA256!r} is missing")
    elif not recorded:
        report.unchecked.append(
            "metadata: no hashes are recorded; the store was written by another program, or its "
            "attributes were replaced (xarray does that with mode='a')"
        )
    elif report.is_whole:
        said = {key: document.to_bytes() for key, document in documents.items()}
        present = as_recorded(metadata_sha256(said))
        for key, sha256 in recorded.items():
            if present.get(key) != sha256:
                change = "has changed" if key in present else "was removed"
                report.add_problem(key, f"{change} since the store was built")
        if report.is_whole:
            report.confirmed.append("metadata, as recorded when the store was built")
        added = {key.rpartition("/")[0] for key in present.keys() - recorded.keys()}
        report.unchecked += (
            f"{name}: was added after the store was built" for name in sorted(added)
        )


def _lengths_agree(arrays: Arrays, report: Verification) -> bool:
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        for dim, size in zip(dims_of(array), array.shape, strict=False):
            first, first_name = sizes.setdefault(dim, (size, name))
            if size != first:
                report.add_problem(
                    name, f"dimension {dim!r} has length {size:,}, but {first:,} in {first_name!r}"
                )
                return False
    report.n_samples = sizes.get(SAMPLE, (0, ""))[0]
    return True


def _check_values(
    arrays: Arrays,
    attrs: Mapping[str, Any],
    missing: frozenset[str],
    report: Verification,
    progress: bool | None,
) -> None:
    """Read all values, and compare them with the hashes that are recorded."""
    has_order = attrs.get(SHA256_ORDER) == SOURCE_INDEX and SOURCE_INDEX in arrays
    n_recorded = _n_recorded(attrs, report)
    source_index = order = None
    hashes: dict[str, str] = {}
    sample_bytes = {
        name: array.dtype.itemsize * math.prod(array.shape[1:])
        for name, array in arrays.items()
        if dims_of(array)[:1] == (SAMPLE,)
    }
    label = f"verifying {report.store}"
    with sample_bar(label, report.n_samples, sample_bytes, progress) as advance:
        reader = _Reader(missing, report, advance)
        if has_order:
            source_index, order = reader.read_order(arrays[SOURCE_INDEX], n_recorded)
        elif n_recorded < report.n_samples:
            order = np.arange(n_recorded)
        for name, array in arrays.items():
            if name != SOURCE_INDEX or not has_order:
                positions = order if dims_of(array)[:1] == (SAMPLE,) else None
                if sha256 := reader.hash(array, positions):
                    hashes[name] = sha256
    if has_order and source_index is None:
        report.unchecked.append(f"all other values, whose order only {SOURCE_INDEX} tells")
        return
    claimed = CATALOG.get(str(attrs.get(DATASET_ID)))
    if source_index is not None and claimed and (what := _beyond(source_index, claimed)):
        report.add_problem(SOURCE_INDEX, what)
    _compare_with_records(hashes, attrs, n_recorded, report)
    _compare_with_catalog(hashes, arrays, source_index, attrs, report)


def _n_recorded(attrs: Mapping[str, Any], report: Verification) -> int:
    """Return how many samples the recorded hashes are of; the first ones, if there are more."""
    recorded = int(attrs.get(SHA256_SAMPLES, report.n_samples))
    difference = report.n_samples - recorded
    if difference > 0:
        report.add_problem(
            SAMPLE,
            f"{difference:,} samples were added after the {recorded:,} that are recorded (use "
            "mnist_zarr.append, which brings the records up to date)",
        )
        report.unchecked.append(f"the values of the {difference:,} samples that were added")
    elif difference < 0:
        report.add_problem(SAMPLE, f"{-difference:,} of {recorded:,} samples were removed")
    return min(recorded, report.n_samples)


@dataclass(frozen=True)
class _Reader:
    """Reads whole arrays, and adds what is damaged to the report."""

    missing: frozenset[str]
    report: Verification
    advance: Callable[[str, int], None]

    def read_order(
        self, array: zarr.Array[Any], n_samples: int
    ) -> tuple[npt.NDArray[Any] | None, Positions | None]:
        """Return ``source_index``, sorted, and the positions of the samples in that order.

        Of the first ``n_samples``. The first is None if it cannot be read, the second if these are
        all samples and stored in that order.
        """
        source_index, n_read = np.empty(array.shape, array.dtype), 0

        def keep(block: npt.NDArray[Any]) -> None:
            nonlocal n_read
            source_index[n_read : n_read + len(block)] = block
            n_read += len(block)

        if not self.read(array, None, keep):
            return None, None
        source_index, order = source_index[:n_samples], None
        if n_samples < array.shape[0]:
            order = np.arange(n_samples)
        if (source_index[1:] < source_index[:-1]).any():
            order = np.argsort(source_index, kind="stable")
            source_index = source_index[order]
        twice = source_index[1:][source_index[1:] == source_index[:-1]]
        if len(twice):
            what = f"has {twice[0]} more than once, but must be unique"
            self.report.add_problem(SOURCE_INDEX, what)
        return source_index, order

    def hash(self, array: zarr.Array[Any], positions: Positions | None) -> str | None:
        """Return the hash of all values of an array, or None if it is damaged."""
        digest, unknown = ContentHash(), set[Any]()
        flags = array.attrs.get("flag_values") if array.basename == LABEL else None

        def use(block: npt.NDArray[Any]) -> None:
            digest.update(block)
            if flags is not None:
                unknown.update(np.setdiff1d(block, np.asarray(flags)).tolist())

        if not self.read(array, positions, use):
            return None
        if unknown:
            what = f"has values that are not in flag_values, such as {min(unknown)}"
            self.report.add_problem(LABEL, what)
        return digest.hexdigest()

    def read(
        self,
        array: zarr.Array[Any],
        positions: Positions | None,
        use: Callable[[npt.NDArray[Any]], object],
    ) -> bool:
        """Pass all samples to ``use``; if that fails, report what is damaged and return False."""
        failure = ""
        if self.missing.isdisjoint(chunk_keys([array])):
            try:
                # The next block is decoded while one is hashed.
                with open_pool(0, n_threads=1) as pool:
                    for block in iter_samples(array, positions):
                        pool.submit(use, block)
                        self.advance(array.basename, len(block))
            except StoreReplacedError:
                raise
            except Exception as error:  # every codec and store has kinds of its own
                failure = f"cannot be read: {one_line(error)}"
            else:
                return True
        damage = find_damage(array, self.missing)
        for key, what in damage:
            self.report.add_problem(key, what)
        if failure and not damage:
            self.report.add_problem(array.path, failure)
        return False


def _beyond(source_index: npt.NDArray[Any], entry: CatalogEntry) -> str:
    """Say which sample the data set has not, of those in a sorted ``source_index``."""
    if not len(source_index) or int(source_index[-1]) < entry.n_samples:
        return ""
    return f"has {source_index[-1]}, but {entry.name!r} has {entry.n_samples:,} samples"


def _compare_with_records(
    hashes: Mapping[str, str], attrs: Mapping[str, Any], n_recorded: int, report: Verification
) -> None:
    recorded = {name: attrs.get(sha256_name(name)) for name in hashes if name != SOURCE_INDEX}
    confirmed = sorted(name for name, sha256 in recorded.items() if sha256 == hashes[name])
    unknown = sorted(name for name, sha256 in recorded.items() if sha256 is None)
    others = sorted(recorded.keys() - {*confirmed, *unknown})
    if others and int(attrs.get(SHA256_SAMPLES, 0)) > report.n_samples:
        report.unchecked.append(f"{', '.join(others)}: the hashes are of more samples")
        others = []
    if others and any(problem.place == SOURCE_INDEX for problem in report.problems):
        report.unchecked.append(f"{', '.join(others)}, whose order only {SOURCE_INDEX} tells")
        others = []
    for name in others:
        report.add_problem(name, "its values have changed since the store was built")
    if confirmed:
        which = _which_samples(n_recorded, report)
        names = ", ".join(confirmed)
        report.confirmed.append(f"{names}{which}, as recorded when the store was built")
    if unknown:
        report.unchecked.append(f"{', '.join(unknown)}: no hash is recorded")


def _which_samples(n_recorded: int, report: Verification) -> str:
    return "" if n_recorded == report.n_samples else f" of the first {n_recorded:,} samples"


def _compare_with_catalog(
    hashes: Mapping[str, str],
    arrays: Arrays,
    source_index: npt.NDArray[Any] | None,
    attrs: Mapping[str, Any],
    report: Verification,
) -> None:
    """Compare with the data set of the catalog that this is, or was made from."""
    is_claimed = DATASET_ID in attrs
    dataset_id = attrs.get(DATASET_ID) or attrs.get(DERIVED_FROM)
    entry = CATALOG.get(str(dataset_id))
    names = [name for name in (IMAGE, LABEL) if name in hashes]
    if entry is not None and not names:
        report.unchecked.append("the origin of the samples: neither image nor label can be read")
        return
    if entry is None:
        reason = f"the catalog has no {dataset_id!r}" if dataset_id else "no 'id' is recorded"
        report.unchecked.append(f"the origin of the samples: {reason}")
        return
    if source_index is None or (source_index[1:] == source_index[:-1]).any():
        report.unchecked.append(
            f"{', '.join(names)} against {entry.name!r}: {SOURCE_INDEX} does not tell which sample "
            "is which"
        )
        return
    if what := _beyond(source_index, entry):
        report.unchecked.append(f"{', '.join(names)} against {entry.name!r}: {SOURCE_INDEX} {what}")
        return
    equal = []
    if len(source_index) == entry.n_samples:
        known = {IMAGE: entry.image_sha256, LABEL: entry.label_sha256}
        equal = [name for name in names if hashes[name] == known[name]]
    others = {name: hashes[name] for name in names if name not in equal}
    if others:
        equal += _equal_to_files(entry, others, arrays, source_index, report, is_claimed)
    if equal:
        which = _which_samples(len(source_index), report)
        report.confirmed.append(f"{', '.join(equal)}{which}, equal to the data set {entry.name!r}")


def _equal_to_files(
    entry: CatalogEntry,
    hashes: Mapping[str, str],
    arrays: Arrays,
    source_index: npt.NDArray[Any],
    report: Verification,
    is_claimed: bool,
) -> list[str]:
    """Return which variables are equal to those samples in the files of a data set."""
    try:
        is_complete = all(map(is_here, entry.files))
    except MissingExtraError:
        is_complete = False
    if not is_complete:
        report.unchecked.append(f"the files of {entry.name!r}, which are not on this machine")
        return []
    source = open_entry(entry)
    equal = []
    for name, sha256 in hashes.items():
        if arrays[name].dtype != source[name].dtype:
            report.unchecked.append(
                f"{name} against {entry.name!r}: it has type {arrays[name].dtype}, "
                f"the data set {source[name].dtype}"
            )
            continue
        samples = iter_blocks_at(source[name].variable, source_index.astype(np.int64))
        if content_sha256(samples) == sha256:
            equal.append(name)
        elif not is_claimed:
            report.unchecked.append(
                f"{name}: was made from {entry.name!r}, of which these samples differ"
            )
        else:
            report.add_problem(
                name,
                f"differs from the data set {entry.name!r}; if it was changed on purpose, "
                f"build with another attribute {DATASET_ID!r}",
            )
    return equal
