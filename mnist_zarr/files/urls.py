"""Paths and URLs as callers give them, versions of what they lead to, failures as our errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mnist_zarr.errors import (
    MissingExtraError,
    MnistZarrError,
    OptionError,
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


# A word of two letters or more, as one letter is a drive of Windows. pathlib makes two slashes one.
ONE_SLASH = re.compile(r"(?:^|(?<=::))([a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)


def path_or_url(given: object, what: str = "a path or a URL") -> str:
    """Return a path or URL as text, with the home folder in place of a leading ``~``.

    Parameters
    ----------
    given : object
        What the caller gave: a str or an os.PathLike of text.
    what : str
        What the message says is expected.

    Raises
    ------
    OptionError
        If it is something else, has a NUL character, or is a URL that lacks a slash.

    Examples
    --------
    >>> path_or_url("~/mnist.zarr") == os.path.expanduser("~/mnist.zarr")
    True
    >>> path_or_url("s3://bucket/~/mnist.zarr")
    's3://bucket/~/mnist.zarr'
    """
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(name, str):
        raise OptionError(f"expected {what}, got {type(given).__name__}")
    if "\0" in name:
        raise OptionError(f"{name!r}: is no name for a store or file, as it has a NUL character")
    if one_slash := ONE_SLASH.search(name):
        meant = shown_url(ONE_SLASH.sub(_with_two_slashes, name))
        as_text = "" if isinstance(given, str) else ", as text, since a Path removes a slash"
        raise OptionError(
            f"expected two slashes after '{one_slash[1]}:', got one; write {meant!r}{as_text}"
        )
    return name if is_url(name) else os.path.expanduser(name)


def check_options(options: object, name: str = "storage_options") -> None:
    """Check that the options of a file system are a dictionary.

    Raises
    ------
    OptionError
        If they are not; the message calls them by ``name``.
    """
    if options is not None and not isinstance(options, Mapping):
        raise OptionError(f"`{name}`: expected a dict, got {type(options).__name__}")


def _with_two_slashes(found: re.Match[str]) -> str:
    # A path of this machine begins with a slash of its own.
    return f"{found[1]}://{'/' if found[1].endswith(('file', 'local')) else ''}"


def is_url(path: object) -> bool:
    """Whether ``path`` is an fsspec URL (``s3://...``, ``simplecache::...``)."""
    return isinstance(path, str) and ("://" in path or "::" in path)


def protocol_of(url: str) -> str:
    """Return what stands before ``://``, of the last file system in a chain of them."""
    return url.rpartition("::")[2].partition("://")[0]


def protocols_of(fs: Any) -> tuple[str, ...]:
    """Return what URLs of a file system of fsspec begin with."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def is_web_server(fs: Any) -> bool:
    """Whether a file system of fsspec reads over HTTP: it has no folders and takes no files."""
    return "http" in protocols_of(fs)


ABSENT_STATUS = (404, 410)
# Before the host, unless it is the container of an address of Azure.
USER_INFO = re.compile(r"(?<=://)(?<!\babfs://)(?<!\babfss://)(?<!\baz://)[^/?#]*@")
QUERY = re.compile(r"[?#].*?(?=::[a-z][a-z0-9+.-]*://|$)", re.DOTALL)
URL_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+")

NO_CREDENTIALS = (
    "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
    "for a public bucket the option 'anon' to true"
)
# "Cannot connect to host 127.0.0.1:1 ssl:default [...]", even of http://
AIOHTTP_SSL = re.compile(r" ssl:(?:<.*?>|\w+)(?= \[)")


def shown_url(address: str) -> str:
    """Return an address as messages and records show it: without user, query and fragment.

    These may hold passwords, and the tokens of presigned URLs. What is shown is not for opening.

    Examples
    --------
    >>> shown_url("https://me:secret@example.org/mnist.npz?X-Amz-Signature=secret#part")
    'https://example.org/mnist.npz'
    >>> shown_url("zip://zarr.json::https://example.org/m.zip?token=secret")
    'zip://zarr.json::https://example.org/m.zip'
    """
    return QUERY.sub("", USER_INFO.sub("", address)) if is_url(address) else address


def hide_secrets(text: str) -> str:
    """Return a text with every URL in it as :func:`shown_url` shows it."""
    return URL_IN_TEXT.sub(lambda found: shown_url(found[0]), text)


# What file systems call the version of an object (Google Cloud Storage; S3 and web servers; Azure;
# GitHub), or else the time of its last change (S3; web servers; Azure; local and SFTP; memory).
VERSION_NAMES = ("generation", "ETag", "etag", "sha")
TIME_NAMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "created")


def identity_of(info: Mapping[str, Any]) -> str:
    """Return what tells this version of a file or object from any other, as far as is known.

    Parameters
    ----------
    info : mapping
        What ``info`` of an fsspec file system says of it, or ``ls``, which gives the
        same identity. Call ``invalidate_cache`` first: both may be out of date.

    Examples
    --------
    >>> identity_of({"name": "bucket/x", "size": 9, "ETag": '"a1b2"', "LastModified": "today"})
    'ETag "a1b2", size 9'
    """
    known = [name for name in (*VERSION_NAMES, *TIME_NAMES) if info.get(name)]
    said = {name: info[name] for name in (*known[:1], "size") if name in info}
    # In memory, a listing has seconds where `info` has a datetime.
    return ", ".join(
        f"{name} {value.timestamp() if isinstance(value, datetime) else value}"
        for name, value in said.items()
    )


def version_of(info: Mapping[str, Any]) -> str:
    """Return what a request that names this version of an object calls it."""
    return next((str(info[name]) for name in VERSION_NAMES if info.get(name)), identity_of(info))


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
        The URL; see :func:`shown_url` for how it is named.
    what : str
        What cannot be done: ``"read"``, ``"written"``.
    kind, kind_if_absent : type
        The error, and the error if there is nothing at the place.
    """
    shown = hide_secrets(shown_url(place))
    try:
        yield
    except MnistZarrError:
        raise
    except ImportError as error:
        need = f"{shown}: needs a package that is missing"
        if extra := EXTRA_OF_PROTOCOL.get(protocol_of(place)):
            raise missing_extra(need, extra) from error
        raise MissingExtraError(f"{need}: {error}") from error
    except FileNotFoundError as error:
        reason = reason_of(error)
        if shown.startswith(reason) and error.__cause__:  # fsspec puts a server's answer there
            reason = reason_of(error.__cause__)
        found = kind_if_absent if says_absence(error) else kind
        raise found(f"{shown}: cannot be {what}: {reason}") from error
    except Exception as error:  # every file system has errors of its own
        raise kind(f"{shown}: cannot be {what}: {reason_of(error)}") from error


def says_absence(error: FileNotFoundError) -> bool:
    """Whether the error says that there is no such file, and not that a server cannot be asked.

    For web servers, fsspec raises it of whatever goes wrong, with the reason as its cause.
    """
    cause = error.__cause__
    if type(cause).__module__.partition(".")[0] != "aiohttp":
        return not isinstance(cause, TimeoutError)
    return getattr(cause, "status", None) in ABSENT_STATUS


def check_takes_files(fs: Any, place: str, kind: type[MnistZarrError]) -> None:
    """Check that files can be written to a file system of fsspec at all; the place is for messages.

    Raises
    ------
    MnistZarrError
        Of this ``kind``, if it is a web server.
    """
    if is_web_server(fs):
        raise kind(
            f"{place}: a web server takes no files over HTTP; write into its folder, or to the "
            "bucket behind it, such as s3://bucket/..."
        )


def reason_of(error: BaseException) -> str:
    """Return why a file system fails, in one line and without secrets."""
    if type(error).__name__ == "NoCredentialsError":  # of botocore
        return NO_CREDENTIALS
    line = AIOHTTP_SSL.sub("", str(error).strip().partition("\n")[0])
    return hide_secrets(line) or type(error).__name__
