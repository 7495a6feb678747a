"""The errors of this package, as one tree, and the messages that several modules raise.

::

    MnistZarrError
    ├── FileFormatError     (ValueError)         a file that is damaged, or of another format
    │   ├── IdxFormatError      not a whole IDX file
    │   └── NpzFormatError      not a .npz archive of numbers
    ├── IdxTypeError        (TypeError)          an array that IDX cannot hold
    ├── SourceError         (ValueError)         a source that cannot be read or makes no data set
    │   └── SourceNotFoundError (FileNotFoundError)
    ├── SchemaError         (ValueError)         a Dataset that is not of the data model
    ├── OptionError         (ValueError)         an argument outside its range
    ├── SelectionError      (KeyError)           no such label, split or coordinate
    ├── StoreError          (OSError)            a Zarr store that cannot be read or written
    │   ├── TargetExistsError   (FileExistsError)
    │   ├── TargetBusyError     another build holds the target
    │   ├── StoreReplacedError  another version took its place during a read
    │   └── StoreNotFoundError  (FileNotFoundError)
    ├── OutputError         (OSError)            a file that cannot be written
    ├── DownloadError       (OSError)            a download that failed
    └── MissingExtraError   (ImportError)        an optional dependency is not installed

Every class also inherits the built-in that a caller would expect to catch.
All carry one argument, the message, so that they travel between processes.

A parameter stands in backticks in a message, `overwrite=True`, and in the command line's own words
where the message is shown there: --overwrite.
"""

from __future__ import annotations


class MnistZarrError(Exception):
    """Base of every error that this package raises on purpose."""


class FileFormatError(MnistZarrError, ValueError):
    """A file that is damaged, or of another format. Gzip and zip files raise it as it is."""


class IdxFormatError(FileFormatError):
    """Not a whole IDX file; the message has file, byte, expected and got."""


class NpzFormatError(FileFormatError):
    """Not a .npz archive of numbers; the message has file, member, expected and got."""


class IdxTypeError(MnistZarrError, TypeError):
    """An array whose type or shape IDX cannot hold."""


class SourceError(MnistZarrError, ValueError):
    """A source that cannot be read, or files that make no data set: lengths that differ, ..."""


# The built-in comes first: only the constructor of OSError makes a proper instance of one, and the
# workers of a dask cluster, which send errors back, use the constructor of the first base.
class SourceNotFoundError(FileNotFoundError, SourceError):
    """A source file or folder that does not exist."""


class SchemaError(MnistZarrError, ValueError):
    """A Dataset that is not of the data model (see :mod:`mnist_zarr.dataset.schema`)."""


class OptionError(MnistZarrError, ValueError):
    """An argument outside its range."""


class SelectionError(MnistZarrError, KeyError):
    """No sample has the label, split or class name that was asked for."""

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
    """Another version took the place of a store while it was being read."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no Zarr store at the address."""


class OutputError(MnistZarrError, OSError):
    """A file, an archive or a picture that cannot be written."""


class DownloadError(MnistZarrError, OSError):
    """A download that failed; the message has the reason of each mirror."""


class MissingExtraError(MnistZarrError, ImportError):
    """An optional dependency is not installed; the message has the pip command."""


def __dir__() -> list[str]:
    return [name for name, value in globals().items() if isinstance(value, type)]


def already_exists(target: object) -> TargetExistsError:
    """Return the error for a target that will not be overwritten."""
    return TargetExistsError(
        f"{target}: exists already; choose another name, or replace it with `overwrite=True`"
    )


def replaced_while_read(store: object) -> StoreReplacedError:
    """Return the error for a store of which another version has taken the place."""
    return StoreReplacedError(
        f"{store}: the store was replaced while it was being read; open it again"
    )


def missing_extra(need: str, extra: str) -> MissingExtraError:
    """Return the error that says how to install what is missing.

    Examples
    --------
    >>> missing_extra("downloads need pooch", "download")
    MissingExtraError("downloads need pooch: pip install 'mnist-zarr[download]'")
    """
    return MissingExtraError(f"{need}: pip install 'mnist-zarr[{extra}]'")
