"""The interface of sources: what a store can be built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import xarray as xr

from mnist_zarr.dataset.records import SOURCE_FILES
from mnist_zarr.errors import OptionError, SourceError
from mnist_zarr.files.sources import describe
from mnist_zarr.formats.picture_files import AS_THEY_ARE, Form


@dataclass(frozen=True)
class Source(ABC):
    """Something that a store can be built from. One class per kind.

    Attributes
    ----------
    given
        What the caller named: a path, a URL, a list of them, a Dataset, ...
    labels : optional
        The label file of an image file; None to find it, False to do without labels.
    options : dict, optional
        Passed to the fsspec file system of a URL.
    form : Form
        How pictures become samples of one shape.
    """

    given: Any
    labels: Any = None
    options: dict[str, Any] | None = None
    form: Form = AS_THEY_ARE

    @classmethod
    @abstractmethod
    def recognizes(cls, given: object) -> bool:
        """Whether ``given`` names a source of this kind."""

    @abstractmethod
    def open(self) -> xr.Dataset:
        """Return the data set, lazily.

        Raises
        ------
        FileFormatError
            If a file is not what it should be.
        SourceError
            If files do not fit together, or the source takes no ``labels``.
        SourceNotFoundError
            If there is no such file.
        OptionError
            If the source takes no options.
        """

    def holds_pictures(self) -> bool:
        """Whether there are pictures, which ``form`` is for."""
        return False

    def identity(self) -> Hashable:
        """Return what tells this version of the source from any other, as far as that is known."""
        files = self.open().encoding.get(SOURCE_FILES, ())
        return tuple(file.identity for file in files)

    def _refuse_labels(self, reason: str) -> None:
        if self.labels is not None:
            raise SourceError(f"`labels`: {reason}")

    def _refuse_options(self, kind: str) -> None:
        if self.options:
            name = self.given if isinstance(self.given, str) else describe(self.given)
            raise OptionError(
                f"{name}: is {kind}, which takes no `source_options`, got "
                f"{', '.join(map(str, self.options))}"
            )
