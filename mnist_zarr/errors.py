"""The errors of this package, as one tree.

::

    MnistZarrError
    ├── IdxFormatError      (ValueError)         a file is not the IDX that it should be
    ├── NpzFormatError      (ValueError)         a file is not the .npz that it should be
    ├── IdxTypeError        (TypeError)          an array that IDX cannot hold
    ├── SourceError         (ValueError)         files that do not make a data set
    │   └── SourceNotFoundError (FileNotFoundError)
    ├── SchemaError         (ValueError)         a Dataset that is not of the data model
    ├── OptionError         (ValueError)         an argument outside its range
    ├── SelectionError      (KeyError)           no such label, split or coordinate
    ├── StoreError          (OSError)            a Zarr store that cannot be read or written
    │   ├── TargetExistsError   (FileExistsError)
    │   ├── TargetBusyError     another build holds the target
    │   ├── StoreReplacedError  another version took its place while it was read
    │   └── StoreNotFoundError  (FileNotFoundError)
    ├── OutputError         (OSError)            a file that cannot be written
    ├── DownloadError       (OSError)            no mirror gives the file as it should be
    └── MissingExtraError   (ImportError)        an optional partner is not installed

Every class also inherits the built-in that a caller would expect to catch.
All carry one argument, the message, so that they travel between processes.
"""

from __future__ import annotations


class MnistZarrError(Exception):
    """Base of every error that this package raises on purpose."""


class IdxFormatError(MnistZarrError, ValueError):
    """A file is not the IDX that it should be: says file, byte, expected, got."""


class NpzFormatError(MnistZarrError, ValueError):
    """A file is not the .npz archive that it should be: says file, member, expected, got."""


class IdxTypeError(MnistZarrError, TypeError):
    """An array whose type or shape IDX cannot hold."""


class SourceError(MnistZarrError, ValueError):
    """Files that do not make a data set: no pair, lengths that differ, ..."""


# The built-in stands first: only OSError's own way of making an instance is right for one, and
# the workers of a dask cluster, which send errors back, use the first that they find.
class SourceNotFoundError(FileNotFoundError, SourceError):
    """A source file or folder that does not exist."""


class SchemaError(MnistZarrError, ValueError):
    """A Dataset that is not of the data model (see :mod:`mnist_zarr.dataset.schema`)."""


class OptionError(MnistZarrError, ValueError):
    """An argument outside its range."""


class SelectionError(MnistZarrError, KeyError):
    """No sample has the label, split or class name asked for."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would quote the sentence.
        return str(self.args[0]) if self.args else ""


class StoreError(MnistZarrError, OSError):
    """A Zarr store that cannot be read or written."""


class TargetExistsError(StoreError, FileExistsError):
    """The target exists and ``overwrite=True`` was not given."""


class TargetBusyError(StoreError):
    """Another process is building the same target."""


class StoreReplacedError(StoreError):
    """A store that was built anew under the same name while it was being read."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no Zarr store at the address."""


class OutputError(MnistZarrError, OSError):
    """A file, an archive or a picture that cannot be written."""


class DownloadError(MnistZarrError, OSError):
    """No mirror gives a file as it should be; the message has each one's reason."""


class MissingExtraError(MnistZarrError, ImportError):
    """An optional partner is not installed; the message has the pip line."""
