"""The content of a variable as a SHA-256: of its values, whatever their chunks and codecs.

Numbers are hashed as they stand in C order, little-endian; strings as UTF-8, each
followed by a newline.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_zarr.schema import is_string


class ContentHash:
    r"""SHA-256 of rows that come one block after the other.

    Examples
    --------
    >>> digest = ContentHash()
    >>> digest.update(np.array([1, 2], dtype="uint8"))
    >>> digest.hexdigest() == hashlib.sha256(b"\x01\x02").hexdigest()
    True
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, rows: npt.NDArray[Any]) -> None:
        """Go on with these rows."""
        if is_string(rows.dtype):
            for text, count in runs(rows):
                self._digest.update((text + b"\n") * count)
        else:
            little_endian = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
            self._digest.update(np.ascontiguousarray(little_endian).data)

    def hexdigest(self) -> str:
        """Return the hash of all rows so far, in hexadecimal digits."""
        return self._digest.hexdigest()


def content_sha256(blocks: Iterable[npt.NDArray[Any]]) -> str:
    r"""Return the SHA-256 of blocks of rows, one after the other, in hexadecimal digits.

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


def runs(strings: npt.NDArray[Any]) -> Iterator[tuple[bytes, int]]:
    """Yield each string as UTF-8 and how often it is repeated: splits are long runs of one word.

    Examples
    --------
    >>> list(runs(np.array(["train", "train", "test"])))
    [(b'train', 2), (b'test', 1)]
    """
    breaks = np.flatnonzero(strings[1:] != strings[:-1]) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(strings)]):
        if first < last:
            yield str(strings[first]).encode(), last - first
