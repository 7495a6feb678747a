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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.dataset.schema import SOURCE_INDEX, is_string

# Root attributes of a store: the name that the catalog knows it by (ACDD); which order the hashes
# of its content are in, that of ``source_index`` or STORED; the hash of its metadata documents;
# those of its source files.
DATASET_ID = "id"
SHA256_ORDER = "sha256_order"
METADATA_SHA256 = "metadata_sha256"
SOURCE_SHA256 = "source_sha256"
STORED = "stored"


def sha256_name(name: str) -> str:
    """Return the root attribute that has the hash of a variable's content."""
    return f"{name}_sha256"


def is_recorded_hash(attribute: object) -> bool:
    """Whether a root attribute has the hash of something in the store itself."""
    return str(attribute).endswith("_sha256") and attribute != SOURCE_SHA256


def content_records(order: str, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the root attributes for the hashes of some variables, which are in this order."""
    return {SHA256_ORDER: order, **{sha256_name(name): sha256 for name, sha256 in hashes.items()}}


def content_order(source_index: Iterable[npt.NDArray[Any]]) -> str:
    """Return which order the content of samples with these indices is hashed in.

    That of the indices if the samples come in it, for a store can be sorted by
    them; else the one in which they are stored.

    Examples
    --------
    >>> content_order([np.array([0, 1]), np.array([5])]), content_order([np.array([1, 0])])
    ('source_index', 'stored')
    """
    last = -1
    for block in source_index:
        if block[0] <= last or (np.diff(block.astype(np.int64)) <= 0).any():
            return STORED
        last = int(block[-1])
    return SOURCE_INDEX


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


def metadata_sha256(documents: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of what all metadata documents of a store say, however it is written.

    Without what repeats the others (consolidated metadata) and this hash itself.

    Parameters
    ----------
    documents : mapping
        From the key of each document to its JSON.

    Raises
    ------
    ValueError
        If a document is not JSON.
    """
    said = {key: json.loads(document) for key, document in documents.items()}
    said.pop(".zmetadata", None)
    for key, attrs_of in (("zarr.json", "attributes"), (".zattrs", None)):
        root = said.get(key)
        if isinstance(root, dict):
            root.pop("consolidated_metadata", None)
            attrs = root.get(attrs_of) if attrs_of else root
            if isinstance(attrs, dict):
                attrs.pop(METADATA_SHA256, None)
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
