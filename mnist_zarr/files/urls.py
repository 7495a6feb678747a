"""URLs of fsspec: their protocols, versions of what they lead to, and failures as our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mnist_zarr.errors import (
    MissingExtraError,
    MnistZarrError,
    StoreError,
    StoreNotFoundError,
    missing_extra,
)

EXTRA_OF_PROTOCOL = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}


def is_url(path: object) -> bool:
    """Whether ``path`` is an fsspec URL (``s3://...``, ``simplecache::...``)."""
    return isinstance(path, str) and ("://" in path or "::" in path)


def protocol_of(url: str) -> str:
    """Return what stands before ``://``, of the last file system in a chain of them."""
    return url.rpartition("::")[2].partition("://")[0]


@contextlib.contextmanager
def name_failures(
    place: str,
    what: str,
    kind: type[MnistZarrError] = StoreError,
    kind_if_absent: type[MnistZarrError] = StoreNotFoundError,
) -> Iterator[None]:
    """Turn whatever a file system raises into one of our errors, which names the place.

    Parameters
    ----------
    place : str
        The URL.
    what : str
        What cannot be done: ``"read"``, ``"written"``.
    kind, kind_if_absent : type
        The error, and the error if there is nothing at the place.
    """
    try:
        yield
    except MnistZarrError:
        raise
    except ImportError as error:
        need = f"{place}: needs a package that is missing"
        if extra := EXTRA_OF_PROTOCOL.get(protocol_of(place)):
            raise missing_extra(need, extra) from error
        raise MissingExtraError(f"{need}: {error}") from error
    except FileNotFoundError as error:
        reason = _first_line(error)
        if place.startswith(reason) and error.__cause__:  # fsspec puts a server's answer there
            reason = _first_line(error.__cause__)
        raise kind_if_absent(f"{place}: cannot be {what}: {reason}") from error
    except Exception as error:  # every file system has errors of its own
        raise kind(f"{place}: cannot be {what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
