"""What a store records of itself, so that it can be told whether it is as it was written.

The content of a variable is recorded as the SHA-256 of its values, whatever
their chunks and codecs: numbers as they stand in C order, little-endian; strings
as UTF-8, each followed by a newline.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.schema import SAMPLE, is_string

# Root attributes of a store: the name that the catalog knows it by (ACDD), or that of what it was
# made from; which order the hashes of its content are in, that of ``source_index`` or STORED, and
# of how many samples they are; the hashes of its metadata documents; the objects that hold nothing
# but the fill value, which whoever copies the store may leave out; the hashes of its source files.
DATASET_ID = "id"
DERIVED_FROM = "derived_from"
SHA256_ORDER = "sha256_order"
SHA256_SAMPLES = "sha256_samples"
METADATA_SHA256 = "metadata_sha256"
BLANK_OBJECTS = "blank_objects"
SOURCE_SHA256 = "source_sha256"
STORED = "stored"
# What says of a data set which one it is, and is true of no other samples.
IDENTIFYING = (DATASET_ID, "title", "license", SOURCE_SHA256)
# Keys of Dataset.encoding: the files that the samples are read from, and how many samples these
# have; the image and label of a data set of the catalog, as they were opened.
SOURCE_FILES = "source_files"
SOURCE_SAMPLES = "source_samples"
AS_OPENED = "as_opened"
BLANK_LINE = re.compile(r"(?P<array>.+) (?P<first>\d{1,18}) (?P<last>\d{1,18})")


def sha256_name(name: str) -> str:
    """Return the root attribute that has the hash of a variable's content."""
    return f"{name}_sha256"


def is_record(attribute: object) -> bool:
    """Whether a root attribute has the hash of something in the store itself, or belongs to it."""
    is_hash = str(attribute).endswith("_sha256") and attribute != SOURCE_SHA256
    return is_hash or attribute in (SHA256_ORDER, SHA256_SAMPLES, BLANK_OBJECTS)


def content_records(order: str, n_samples: int, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return the root attributes for the hashes of some variables, which are in this order."""
    of_variables = {sha256_name(name): sha256 for name, sha256 in hashes.items()}
    return {SHA256_ORDER: order, SHA256_SAMPLES: n_samples, **of_variables}


def blank_lines(blank: Iterable[tuple[str, int]]) -> list[str]:
    """Return the record of blank objects: of each array the ranges of their indices.

    Examples
    --------
    >>> blank_lines([("image", 4), ("label", 0), ("image", 3), ("image", 9)])
    ['image 3 4', 'image 9 9', 'label 0 0']
    """
    lines: list[tuple[str, int, int]] = []
    for array, index in sorted(blank):
        if lines and lines[-1][0] == array and lines[-1][2] == index - 1:
            lines[-1] = (array, lines[-1][1], index)
        else:
            lines.append((array, index, index))
    return [f"{array} {first} {last}" for array, first, last in lines]


def blank_objects(lines: object) -> dict[str, list[range]]:
    """Return the indices of blank objects that :func:`blank_lines` has recorded, by array.

    Examples
    --------
    >>> blank_objects(["image 3 4", "image 9 9"])
    {'image': [range(3, 5), range(9, 10)]}
    """
    found: dict[str, list[range]] = {}
    for line in lines if isinstance(lines, list) else []:
        if match := BLANK_LINE.fullmatch(str(line)):
            indices = range(int(match["first"]), int(match["last"]) + 1)
            found.setdefault(match["array"], []).append(indices)
    return found


def made_from(what: object) -> str:
    """Return the attribute ``source`` of samples that were selected, changed or joined."""
    return f"made, at least in part, from: {what}"


def derived(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes that say what the samples were made from, not that they are it."""
    kept = {name: value for name, value in attrs.items() if name not in IDENTIFYING}
    known = [f"{name} {attrs[name]}" for name in (DATASET_ID, "license") if name in attrs]
    details = f" ({', '.join(known)})" if known else ""
    if title := attrs.get("title"):
        kept["source"] = made_from(f"{title}{details}")
    if DATASET_ID in attrs:
        kept[DERIVED_FROM] = attrs[DATASET_ID]
    return kept


def has_all_source_files(ds: xr.Dataset) -> bool:
    """Whether the source files of a Dataset can be those of all its samples, not of some only."""
    return bool(ds.sizes[SAMPLE] <= ds.encoding.get(SOURCE_SAMPLES, np.inf))


def source_line(sha256: str, name: str) -> str:
    """Return the record of a source file, a line as the command ``sha256sum`` prints it."""
    return f"{sha256}  {os.path.basename(name)}"


class ContentHash:
    r"""SHA-256 of samples that come one block after the other.

    Examples
    --------
    >>> digest = ContentHash()
    >>> digest.update(np.array([1, 2], dtype="uint8"))
    >>> digest.hexdigest() == hashlib.sha256(b"\x01\x02").hexdigest()
    True
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, samples: npt.NDArray[Any]) -> None:
        """Add the samples that come next."""
        if is_string(samples.dtype):
            for text, count in run_lengths(samples):
                self._digest.update((text + b"\n") * count)
        else:
            little_endian = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
            self._digest.update(np.ascontiguousarray(little_endian).data)

    def hexdigest(self) -> str:
        """Return the hash of all samples so far, in hexadecimal digits."""
        return self._digest.hexdigest()


def content_sha256(blocks: Iterable[npt.NDArray[Any]]) -> str:
    r"""Return the SHA-256 of blocks of samples, one after the other, in hexadecimal digits.

    Examples
    --------
    >>> train, test = np.array(["train", "train"]), np.array(["test"])
    >>> content_sha256([train, test]) == hashlib.sha256(b"train\ntrain\ntest\n").hexdigest()
    True
    """
    digest = ContentHash()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def run_lengths(strings: npt.NDArray[Any]) -> Iterator[tuple[bytes, int]]:
    """Yield each string, in C order, as UTF-8 and how often it is repeated.

    Splits are long runs of one word.

    Examples
    --------
    >>> list(run_lengths(np.array(["train", "train", "test"])))
    [(b'train', 2), (b'test', 1)]
    """
    strings = strings.reshape(-1)
    breaks = np.flatnonzero(strings[1:] != strings[:-1]) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(strings)]):
        if first < last:
            yield str(strings[first]).encode(), last - first


def metadata_sha256(documents: Mapping[str, bytes]) -> list[str]:
    """Return the SHA-256 of what each metadata document of a store says, however it is written.

    Without what repeats the others (consolidated metadata) and these hashes
    themselves.

    Parameters
    ----------
    documents : mapping
        From the key of each document to its JSON.

    Returns
    -------
    list of str
        A line for each, as the command ``sha256sum`` prints it: the hash and the key.

    Raises
    ------
    ValueError
        If a document is not JSON.
    """
    lines = []
    for key, document in sorted(documents.items()):
        said = json.loads(document)
        attrs = said
        if key == "zarr.json" and isinstance(said, dict):
            said.pop("consolidated_metadata", None)
            attrs = said.get("attributes")
        if key in ("zarr.json", ".zattrs") and isinstance(attrs, dict):
            attrs.pop(METADATA_SHA256, None)
        if key != ".zmetadata":
            canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
            lines.append(f"{hashlib.sha256(canonical.encode()).hexdigest()}  {key}")
    return lines


def as_recorded(lines: object) -> dict[str, str]:
    """Return the hashes in recorded lines, by key; none where there are no such lines.

    Examples
    --------
    >>> as_recorded(["0123  image/zarr.json"])
    {'image/zarr.json': '0123'}
    """
    texts = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    parts = (line.partition("  ") for line in texts)
    return {key: sha256 for sha256, _, key in parts}
