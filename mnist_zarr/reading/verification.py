"""Whether a store is whole, and holds what its source held.

Every chunk is decoded once, so that its checksum is checked, and its values go, in the
order of the source, into the hashes that were recorded when the store was built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype

from mnist_zarr.catalog.download import is_here
from mnist_zarr.catalog.entries import CATALOG
from mnist_zarr.catalog.opening import open_entry
from mnist_zarr.dataset.blocks import iter_blocks_at
from mnist_zarr.dataset.records import (
    DATASET_ID,
    METADATA_SHA256,
    SHA256_ORDER,
    ContentHash,
    content_sha256,
    metadata_sha256,
    sha256_name,
)
from mnist_zarr.dataset.schema import IMAGE, LABEL, SAMPLE, SOURCE_INDEX
from mnist_zarr.errors import MissingExtraError, StoreError, StoreNotFoundError
from mnist_zarr.reading.reader import MISSING_IS_AN_ERROR, zarr_config
from mnist_zarr.reading.stored_samples import Positions, StoredSamples, bytes_of_chunk
from mnist_zarr.stores.keys import METADATA_NAMES, PARALLEL_REQUESTS, chunk_keys, sync
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.terminal import sample_bar

DECODING_BYTES = 64 << 20
MAX_VALUES_NAMED = 3


@dataclass(frozen=True)
class Problem:
    """Something that is damaged, missing or contradictory.

    Attributes
    ----------
    place : str
        The key of an object (``image/c/3/0/0``), or the name of a variable.
    what : str
        What is wrong with it.
    """

    place: str
    what: str


@dataclass
class Verification:
    """What was found in a store.

    Attributes
    ----------
    store : str
        Its name.
    n_objects, n_samples : int
        How many objects it should have, and the length of ``sample``.
    problems : list of Problem
        Empty if the store is whole.
    confirmed : list of str
        What is as it was recorded.
    unchecked : list of str
        What could not be checked, and why.
    """

    store: str
    n_objects: int = 0
    n_samples: int = 0
    problems: list[Problem] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def add_problem(self, place: str, what: str) -> None:
        """Note a problem, unless there is one of that place."""
        if all(problem.place != place for problem in self.problems):
            self.problems.append(Problem(place, what))

    def to_text(self) -> str:
        """Return the findings as lines for a terminal."""
        count = len(self.problems)
        verdict = f"DAMAGED OR CHANGED, {count:,} {'problem' if count == 1 else 'problems'}"
        return "\n".join(
            [
                f"{self.store}: {'whole' if self.is_whole else verdict}",
                f"  {self.n_objects:,} objects, {self.n_samples:,} samples",
                *(f"  {problem.place}: {problem.what}" for problem in self.problems),
                *(f"  confirmed: {line}" for line in self.confirmed),
                *(f"  not checked: {line}" for line in self.unchecked),
            ]
        )

    def to_json(self) -> str:
        """Return the findings as one JSON object."""
        return json.dumps({"is_whole": self.is_whole, **asdict(self)}, indent=1)


def verify(
    target: Target,
    *,
    storage_options: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> Verification:
    """Check a store to the last byte, in bounded memory.

    Every object is there and can be decoded, every checksum is right, the
    metadata say what they said when the store was built, coordinates agree with
    each other, and images and coordinates have the hashes that were recorded
    then. A store of a data set of the catalog is also compared with the files
    of that data set, if they are on this machine.

    Memory: the chunks in use (up to 64 MB), a block of rows, and some 25 bytes a
    sample for the order, where that is not the order of the source.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        A local folder, an fsspec URL, either of them ending in ``.zip``, an
        Icechunk repository (``icechunk+s3://...``), or a Zarr store object.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    Verification
        Damage is reported in it, not raised.

    Raises
    ------
    StoreNotFoundError
        If there is no store at the target.
    StoreError
        If it cannot be reached, or is replaced meanwhile.

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
    store, report = place.open(), Verification(place.name)
    with zarr_config(MISSING_IS_AN_ERROR):
        group = _check_metadata(store, report)
        arrays = {} if group is None else dict(group.arrays())
    if group is not None:
        for name in sorted(group.group_keys()):
            report.unchecked.append(f"the group {name!r} inside")
        report.n_objects += sum(1 for array in arrays.values() for _ in chunk_keys(array))
        if _lengths_agree(arrays, report):
            _check_values(arrays, dict(group.attrs), report, progress)
    return report


def _check_metadata(store: Store, report: Verification) -> zarr.Group | None:
    """Compare the metadata documents with each other and their hash; return what they describe."""
    documents = {name: data for name in METADATA_NAMES if (data := _read(store, name)) is not None}
    if not documents:
        raise StoreNotFoundError(f"{report.store}: there is no Zarr store to verify")
    root = next(iter(documents))
    try:
        group = zarr.open_group(store, mode="r")
        names = [name for name, _ in group.arrays()]
        copies = _consolidated(documents)
    except StoreError:
        raise
    except Exception as error:  # whatever damaged JSON makes of it
        report.add_problem(root, f"cannot be understood: {type(error).__name__}: {error}")
        return None
    ends = ["zarr.json"] if "zarr.json" in documents else [".zarray", ".zattrs"]
    expected = {*copies, *(f"{name}/{end}" for name in names for end in ends)}
    for key in sorted(expected - documents.keys()):
        document = _read(store, key)
        if document is not None:
            documents[key] = document
        elif key in copies:
            report.add_problem(key, "is missing")
    for key in copies.keys() & documents.keys():
        if _parsed(documents[key]) != copies[key]:
            report.add_problem(key, "does not say what the consolidated metadata say")
    report.n_objects += len(documents)
    recorded = group.attrs.get(METADATA_SHA256)
    if recorded is None and SHA256_ORDER in group.attrs:
        report.add_problem(root, f"the attribute {METADATA_SHA256!r} is missing")
    elif recorded is None:
        report.unchecked.append("metadata: no hash of them is recorded")
    elif report.is_whole:
        if metadata_sha256(documents) == recorded:
            report.confirmed.append("metadata, as recorded when the store was built")
        else:
            report.add_problem(root, "the metadata are not those with which the store was built")
    return group


def _read(store: Store, key: str) -> bytes | None:
    value = sync(store.get(key, default_buffer_prototype()))
    return None if value is None else value.to_bytes()


def _parsed(document: bytes) -> Any:
    try:
        return json.loads(document)
    except ValueError:
        return None


def _consolidated(documents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the root says of every other document."""
    if "zarr.json" in documents:
        consolidated = json.loads(documents["zarr.json"]).get("consolidated_metadata")
        said = consolidated["metadata"] if consolidated else {}
        return {f"{name}/zarr.json": copy for name, copy in said.items()}
    return dict(json.loads(documents.get(".zmetadata", b'{"metadata": {}}'))["metadata"])


def _dims(array: zarr.Array[Any]) -> tuple[Any, ...]:
    if array.metadata.zarr_format == 2:
        return tuple(array.attrs.get("_ARRAY_DIMENSIONS", ()))  # type: ignore[arg-type]
    return array.metadata.dimension_names or ()


def _lengths_agree(arrays: Mapping[str, zarr.Array[Any]], report: Verification) -> bool:
    sizes: dict[Any, tuple[int, str]] = {}
    for name, array in arrays.items():
        for dim, size in zip(_dims(array), array.shape, strict=False):
            first, first_name = sizes.setdefault(dim, (size, name))
            if size != first:
                report.add_problem(
                    name, f"dimension {dim!r} has length {size:,}, but {first:,} in {first_name!r}"
                )
                return False
    report.n_samples = sizes.get(SAMPLE, (0, ""))[0]
    return True


def _check_values(
    arrays: Mapping[str, zarr.Array[Any]],
    attrs: Mapping[str, Any],
    report: Verification,
    progress: bool | None,
) -> None:
    along_sample = [name for name, array in arrays.items() if _dims(array)[:1] == (SAMPLE,)]
    largest = max((bytes_of_chunk(array) for array in arrays.values()), default=0)
    n_threads = max(1, min(PARALLEL_REQUESTS, DECODING_BYTES // max(1, largest)))
    hashes: dict[str, str] = {}
    with (
        ThreadPoolExecutor(n_threads) as executor,
        sample_bar(report.n_samples * len(along_sample), progress) as bar,
    ):
        rows = {
            name: StoredSamples(array, executor, report.add_problem)
            for name, array in arrays.items()
        }
        order = source_index = None
        if attrs.get(SHA256_ORDER) == SOURCE_INDEX and SOURCE_INDEX in rows:
            order, source_index = _source_order(rows[SOURCE_INDEX], report)
        for name, stored in rows.items():
            digest, values = ContentHash(), np.empty(0, arrays[name].dtype)
            has_flags = name == LABEL and "flag_values" in arrays[name].attrs
            for block in stored.blocks(order if name in along_sample else None):
                digest.update(block)
                if has_flags:
                    values = np.union1d(values, block)
                bar.update(len(block) if name in along_sample else 0)
            if stored.is_damaged:
                continue
            hashes[name] = digest.hexdigest()
            if has_flags:
                _compare_with_flags(values, arrays[name].attrs.asdict(), report)
    if source_index is not None and rows[SOURCE_INDEX].is_damaged:
        report.unchecked.append(f"what else is stored: {SOURCE_INDEX} would tell its order")
        return
    _compare_with_records(hashes, attrs, report)
    if source_index is not None:
        _compare_with_catalog(hashes, arrays, source_index, attrs.get(DATASET_ID), report)


def _source_order(
    stored: StoredSamples, report: Verification
) -> tuple[Positions | None, npt.NDArray[Any]]:
    """Return where the samples are stored, and their ``source_index``, both in its order.

    Where that is the order in which they are stored, there are no positions.
    """
    source_index = np.concatenate([np.empty(0, np.uint32), *stored.blocks()])
    order = None
    if (source_index[1:] < source_index[:-1]).any():
        order = np.argsort(source_index, kind="stable")
        source_index = source_index[order]
    twice = source_index[1:][source_index[1:] == source_index[:-1]]
    if len(twice) and not stored.is_damaged:
        report.add_problem(SOURCE_INDEX, f"has {twice[0]} more than once: it must name each sample")
    return order, source_index


def _compare_with_flags(
    values: npt.NDArray[Any], attrs: Mapping[str, Any], report: Verification
) -> None:
    unknown = np.setdiff1d(values, np.asarray(attrs["flag_values"])).tolist()
    if unknown:
        named = ", ".join(map(str, unknown[:MAX_VALUES_NAMED]))
        report.add_problem(LABEL, f"has values that flag_values does not name, such as {named}")


def _compare_with_records(
    hashes: Mapping[str, str], attrs: Mapping[str, Any], report: Verification
) -> None:
    recorded = {name: attrs.get(sha256_name(name)) for name in hashes if name != SOURCE_INDEX}
    confirmed = sorted(name for name, sha256 in recorded.items() if sha256 == hashes[name])
    unknown = sorted(name for name, sha256 in recorded.items() if sha256 is None)
    for name in sorted(recorded.keys() - {*confirmed, *unknown}):
        report.add_problem(name, "its values are not those with which the store was built")
    if confirmed:
        report.confirmed.append(f"{', '.join(confirmed)}, as recorded when the store was built")
    if unknown:
        report.unchecked.append(f"{', '.join(unknown)}: no hash is recorded")


def _compare_with_catalog(
    hashes: Mapping[str, str],
    arrays: Mapping[str, zarr.Array[Any]],
    source_index: npt.NDArray[Any],
    name: object,
    report: Verification,
) -> None:
    """Compare with the source files of a data set that is known by name, sample by sample."""
    entry = CATALOG.get(str(name))
    if entry is None:
        return
    try:
        is_complete = all(map(is_here, entry.files))
    except MissingExtraError:
        is_complete = False
    if not is_complete:
        report.unchecked.append(f"the files of {entry.name!r}, which are not on this machine")
        return
    source = open_entry(entry)
    outside = source_index[source_index >= entry.n_samples]
    if len(outside):
        report.add_problem(
            SOURCE_INDEX,
            f"has {outside[0]}, but {entry.name!r} has {entry.n_samples:,} samples",
        )
        return
    equal = []
    for variable in (IMAGE, LABEL):
        if variable not in hashes:
            continue
        if arrays[variable].dtype != source[variable].dtype:
            report.unchecked.append(
                f"{variable} against {entry.name!r}: it is of type {arrays[variable].dtype}, "
                f"there of {source[variable].dtype}"
            )
            continue
        rows = iter_blocks_at(source[variable].variable, source_index.astype(np.int64))
        if content_sha256(rows) == hashes[variable]:
            equal.append(variable)
        else:
            report.add_problem(
                variable,
                f"is not that of the data set {entry.name!r}; if it was changed on purpose, "
                f"build with another attribute {DATASET_ID!r}",
            )
    if equal:
        report.confirmed.append(f"{', '.join(equal)}, equal to the files of {entry.name!r}")
