"""The files of the catalog, from the web where need be: checked, and kept in a cache folder.

A file gets its name in the cache only when its bytes are the right ones, and is
checked again whenever it is used. Two environment variables change where files
are looked for:

``MNIST_ZARR_CACHE``
    The cache folder. By default the one that the platform has for the purpose.
``MNIST_ZARR_MIRROR``
    URL (``https://``, ``http://`` or ``file:///``) of a folder that is tried
    before the mirrors; it holds ``DATASET/FILE``, as the cache folder does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from mnist_zarr.catalog.entries import (
    BUNDLED_FILES,
    ArchiveMember,
    BundledFile,
    DataFile,
    RemoteFile,
)
from mnist_zarr.errors import DownloadError, OptionError, missing_extra
from mnist_zarr.files.byte_source import READ_BYTES
from mnist_zarr.files.output import create_file
from mnist_zarr.files.scratch import fsync, scratch_folder
from mnist_zarr.files.urls import hide_secrets, shown_url
from mnist_zarr.terminal import printable, progress_bar

CACHE_VARIABLE = "MNIST_ZARR_CACHE"
MIRROR_VARIABLE = "MNIST_ZARR_MIRROR"
# Until a server accepts a connection, and between two pieces of an answer.
CONNECT_SECONDS, READ_SECONDS = 10, 60


def cache_folder() -> Path:
    """Return the folder that holds a folder of files per data set.

    Raises
    ------
    MissingExtraError
        If pooch, which knows the platform's folder, is not installed.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(_import_pooch().os_cache("mnist-zarr"))


def path_of(file: DataFile) -> Path:
    """Return where a file is, or will be.

    Raises
    ------
    MissingExtraError
        If that is the cache folder of the platform, and pooch is not installed.
    """
    if isinstance(file, BundledFile):
        return BUNDLED_FILES / file.name
    if isinstance(file, ArchiveMember):
        return path_of(file.archive).with_name(file.member.rpartition("/")[2])
    return cache_folder() / file.dataset / file.name


def is_here(file: DataFile) -> bool:
    """Whether a file can be had without a download. Does not read it.

    Raises
    ------
    MissingExtraError
        As for :func:`path_of`.
    """
    is_in_archive = isinstance(file, ArchiveMember) and is_here(file.archive)
    return is_in_archive or path_of(file).is_file()


def fetch(file: DataFile) -> Path:
    """Return the path of a file with the right checksum; download it if need be.

    Raises
    ------
    DownloadError
        If the file is not here and cannot be had.
    MissingExtraError
        If it must be downloaded and pooch is not installed.
    OptionError
        If it must be downloaded and ``MNIST_ZARR_MIRROR`` is not a URL.
    """
    path = path_of(file)
    if isinstance(file, BundledFile) or _is_right(path, file.checksum):
        return path
    with _lock(path):
        # Another process may have made it meanwhile.
        if not _is_right(path, file.checksum):
            if isinstance(file, ArchiveMember):
                _extract(file, path)
            else:
                _download(file, path)
    return path


def hash_file(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _is_right(path: Path, checksum: str) -> bool:
    return path.is_file() and _why_wrong(path, checksum) is None


def _why_wrong(path: Path, checksum: str) -> str | None:
    algorithm, _, expected = checksum.partition(":")
    got = hash_file(path, algorithm)
    return None if got == expected else f"wrong bytes: {algorithm} is {got}, expected {expected}"


def _refuse_wrong(path: Path, checksum: str) -> None:
    if reason := _why_wrong(path, checksum):
        raise ValueError(reason)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DownloadError(
            f"{path.parent}: cannot be written to ({error.strerror}); name a folder of yours in "
            f"the environment variable {CACHE_VARIABLE}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _extract(file: ArchiveMember, path: Path) -> None:
    archive_path = fetch(file.archive)
    try:
        with (
            zipfile.ZipFile(archive_path) as archive,
            archive.open(file.member) as source,
            create_file(path, overwrite=True) as target,
        ):
            shutil.copyfileobj(source, target, READ_BYTES)
            target.flush()
            _refuse_wrong(Path(target.name), file.checksum)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = error.args[0] if error.args else error
        raise DownloadError(f"{archive_path}: member {file.member}: {reason}") from error


def _download(file: RemoteFile, path: Path) -> None:
    """Put the file in its place, from the first mirror that has the right one."""
    reasons = [f"{path}: {_why_wrong(path, file.checksum)}"] if path.exists() else []
    with scratch_folder(path.parent, f".{path.name}.downloading-") as scratch:
        part = scratch / file.name
        for url in _urls(file):
            try:
                _download_from(url, file, part)
            except (OSError, ValueError) as error:
                reasons.append(f"{shown_url(url)}: {printable(hide_secrets(_reason(error)))}")
            else:
                fsync(part)
                os.replace(part, path)
                fsync(path.parent)
                return
    size = f"{file.size:,} bytes, " if file.size else ""
    raise DownloadError(
        "\n  ".join([f"{file.dataset}/{file.name}: no mirror gives this file:", *reasons])
        + f"\nFetch it by other means ({size}{file.checksum.replace(':', ' ')}) and put it at "
        f"{path}, or name a mirror of yours in the environment variable {MIRROR_VARIABLE}"
    )


def _urls(file: RemoteFile) -> Iterator[str]:
    if own := os.environ.get(MIRROR_VARIABLE):
        if urlsplit(own).scheme not in ("https", "http", "file"):
            raise OptionError(
                f"{MIRROR_VARIABLE}: expected a URL that begins with https://, http:// or "
                f"file:///, got {shown_url(own)!r}"
            )
        yield f"{own.rstrip('/')}/{file.dataset}/{file.name}"
    yield from file.mirrors


def _download_from(url: str, file: RemoteFile, part: Path) -> None:
    if urlsplit(url).scheme == "file":
        shutil.copyfile(url2pathname(urlsplit(url).path), part)
    else:
        _download_http(url, file, part)
    with open(part, "rb") as downloaded:
        if downloaded.read(256).lstrip().startswith(b"<"):
            raise ValueError("an HTML or XML page instead of the file")
    if file.size is not None and part.stat().st_size != file.size:
        raise ValueError(f"{part.stat().st_size:,} bytes instead of {file.size:,}")
    _refuse_wrong(part, file.checksum)


def _download_http(url: str, file: RemoteFile, part: Path) -> None:
    with (
        _ResponseGuard() as guard,
        progress_bar(f"downloading {file.name}", file.size or 1, "B") as bar,
    ):
        download = _import_pooch().HTTPDownloader(
            progressbar=bar,
            chunk_size=READ_BYTES,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            # A server that compresses the file on its way would send other bytes.
            headers={"Accept-Encoding": "identity"},
            hooks={"response": guard.see},
        )
        with _LimitedFile(part, file.size) as target:
            download(url, target, None)


class _LimitedFile(io.FileIO):
    """A new file of so many bytes and no more, whatever a server goes on to send."""

    def __init__(self, path: Path, max_bytes: int | None) -> None:
        super().__init__(path, "wb")
        self._max_bytes = max_bytes

    def write(self, data: Any) -> int:
        if self._max_bytes is not None and self.tell() + len(data) > self._max_bytes:
            raise ValueError(f"more than {self._max_bytes:,} bytes")
        return super().write(data)


class _ResponseGuard(contextlib.AbstractContextManager["_ResponseGuard"]):
    """Sees every response of a download: keeps its bytes as sent, refuses http after https."""

    def __init__(self) -> None:
        self._responses: list[Any] = []

    def see(self, response: Any, **_options: Any) -> None:
        """Be the hook ``response`` of requests, called before a redirect is followed."""
        self._responses.append(response)
        # Servers announce a .gz file as an encoding of its content; requests would decode it.
        response.raw.headers.pop("Content-Encoding", None)
        if response.is_redirect:
            target = urljoin(response.url, response.headers["location"])
            if response.url.startswith("https:") and not target.startswith("https:"):
                raise ValueError(f"redirects from https to {target}")

    def __exit__(self, *_error: object) -> None:
        for response in self._responses:
            response.close()


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code} {response.reason}"
    while cause := error.__cause__ or error.__context__:
        if not isinstance(cause, Exception):
            break
        error = cause
    return str(error) or type(error).__name__


def _import_pooch() -> ModuleType:
    try:
        return importlib.import_module("pooch")
    except ImportError as error:
        raise missing_extra("downloads need pooch", "download") from error
