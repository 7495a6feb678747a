"""Whatever file systems raise, as errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mnist_zarr.errors import MissingExtraError, MnistZarrError, StoreError, StoreNotFoundError
from mnist_zarr.files.urls import EXTRA_OF_PROTOCOL, protocol_of


@contextlib.contextmanager
def name_failures(
    place: str,
    what: str,
    kind: type[MnistZarrError] = StoreError,
    kind_if_absent: type[MnistZarrError] = StoreNotFoundError,
) -> Iterator[None]:
    """Turn whatever a file system raises into our own error, which names the place."""
    try:
        yield
    except MnistZarrError:
        raise
    except ImportError as error:
        extra = EXTRA_OF_PROTOCOL.get(protocol_of(place))
        hint = f"pip install 'mnist-zarr[{extra}]'" if extra else str(error)
        raise MissingExtraError(f"{place}: needs a package that is missing: {hint}") from error
    except FileNotFoundError as error:
        reason = _sentence(error)
        if place.startswith(reason) and error.__cause__:  # so fsspec says what a server answered
            reason = _sentence(error.__cause__)
        raise kind_if_absent(f"{place}: cannot be {what}: {reason}") from error
    except Exception as error:  # each file system has kinds of its own
        raise kind(f"{place}: cannot be {what}: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def wrap_os_errors(name: str, what: str, kind: type[MnistZarrError]) -> Iterator[None]:
    """Turn an error of the operating system, such as a full disk, into one of ours."""
    try:
        yield
    except MnistZarrError:
        raise
    except OSError as error:
        raise kind(f"{name}: was not {what}: {error}") from error
