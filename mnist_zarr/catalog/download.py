"""Files from the web: mirrors in turn, checked before use, kept in a cache folder.

A file gets its name in the cache only when its bytes are the right ones; a file
that is there already is checked again whenever it is used. Two environment
variables change where files are looked for:

``MNIST_ZARR_CACHE``
    The cache folder. By default the one that the platform has for the purpose.
``MNIST_ZARR_MIRROR``
    Address (``https://``, ``http://`` or ``file:///``) of a folder of folders
    that is tried first: ``DATASET/FILE``, as in the cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from tqdm import tqdm

from mnist_zarr.errors import DownloadError, OptionError, missing_extra
from mnist_zarr.files.byte_source import READ_BYTES
from mnist_zarr.files.output import create_file

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
    return Path(chosen) if chosen else Path(_import_pooch().os_cache("mnist-zarr"))


class CachedFile(ABC):
    """A file that is made when it is first asked for, and then kept.

    Attributes
    ----------
    dataset : str
        The folder in the cache folder.
    name : str
        The name of the file in that folder.
    checksum : str or None
        Published checksum, as ``"md5:..."`` or ``"sha256:..."``. Without one
        the file is pinned: its SHA-256 is written beside it once it is there
        (``NAME.sha256``, as ``sha256sum`` does) and holds from then on.
    """

    dataset: str
    name: str
    checksum: str | None

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return cache_folder() / self.dataset / self.name

    def is_here(self) -> bool:
        """Whether the file can be had without a download. Does not read it."""
        return self.path.is_file()

    def fetch(self) -> Path:
        """Return the path of the file, whose checksum was just found right.

        Raises
        ------
        DownloadError
            If the file is not here and cannot be had.
        MissingExtraError
            If it must be downloaded and pooch is not installed.
        """
        if not self._is_here_and_right():
            with self._lock():
                # Another process may have made it meanwhile.
                if not self._is_here_and_right():
                    self._make_and_pin()
        return self.path

    @abstractmethod
    def _make(self) -> None:
        """Put the file in its place, its bytes checked with :meth:`_refuse_wrong`."""

    def _make_and_pin(self) -> None:
        if self._expected() is not None or not self.path.exists():
            self._make()
        if self.checksum is None:
            with create_file(self._pin, overwrite=True) as file:
                digest = hash_file(self.path, "sha256")
                file.write(f"{digest}  {self.name}\n".encode())

    @property
    def _pin(self) -> Path:
        return self.path.with_name(f"{self.name}.sha256")

    def _expected(self) -> str | None:
        if self.checksum is None and self._pin.exists():
            return f"sha256:{self._pin.read_text().split()[0]}"
        return self.checksum

    def _is_here_and_right(self) -> bool:
        return (
            self.path.is_file()
            and self._expected() is not None
            and self._why_wrong(self.path) is None
        )

    def _why_wrong(self, path: Path) -> str | None:
        expected = self._expected()
        if expected is None:
            return None
        algorithm, _, digest = expected.partition(":")
        got = hash_file(path, algorithm)
        if got == digest:
            return None
        origin = "" if self.checksum else f" (as at the first download, see {self._pin})"
        return f"wrong bytes: {algorithm} is {got}, expected {digest}{origin}"

    def _refuse_wrong(self, path: Path) -> None:
        if reason := self._why_wrong(path):
            raise ValueError(reason)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        folder = self.path.parent
        lock = FileLock(folder / f".{self.name}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise DownloadError(
                f"{folder}: cannot be written to ({error.strerror}); name a folder of yours in "
                f"the environment variable {CACHE_VARIABLE}"
            ) from error
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True)
class RemoteFile(CachedFile):
    """A file on the web; see :class:`CachedFile`.

    Attributes
    ----------
    mirrors : tuple of str
        Addresses, in the order in which they are tried. Those that are not
        https need a checksum.
    size : int or None
        Number of bytes, where it is known.
    """

    dataset: str
    name: str
    mirrors: tuple[str, ...]
    checksum: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        unsafe = [url for url in self.mirrors if not url.startswith("https://")]
        if unsafe and self.checksum is None:
            raise OptionError(f"{unsafe[0]}: an address that is not https needs a checksum")

    def _make(self) -> None:
        # Whatever a download leaves behind that was killed is in this folder.
        workshop = self.path.with_name(f".{self.name}.downloading")
        shutil.rmtree(workshop, ignore_errors=True)
        try:
            os.replace(self._download_into(workshop), self.path)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)

    def _download_into(self, folder: Path) -> str:
        """Return the path of the file as the first mirror gives it that has the right one."""
        pooch = _import_pooch()
        reasons = []
        if self.path.exists():
            reasons.append(f"{self.path}: {self._why_wrong(self.path)}")
        for url in self._urls():
            try:
                with _only_warnings(pooch.get_logger()):
                    path: str = pooch.retrieve(
                        url,
                        known_hash=self._expected(),
                        fname=self.name,
                        path=folder,
                        downloader=self._download,
                    )
            except (OSError, ValueError) as error:
                reasons.append(f"{url}: {_reason(error)}")
            else:
                return path
        raise DownloadError(
            "\n  ".join([f"{self.dataset}/{self.name}: no mirror gives this file:", *reasons])
            + f"\nFetch it by other means{self._identity()} and put it at {self.path}, or name "
            f"a mirror of yours in the environment variable {MIRROR_VARIABLE}"
        )

    def _urls(self) -> Iterator[str]:
        if own := os.environ.get(MIRROR_VARIABLE):
            if urlsplit(own).scheme not in ("https", "http", "file"):
                raise OptionError(
                    f"{MIRROR_VARIABLE}: expected an address that begins with https://, http:// "
                    f"or file:///, got {own!r}"
                )
            yield f"{own.rstrip('/')}/{self.dataset}/{self.name}"
        yield from self.mirrors

    def _identity(self) -> str:
        known = [f"{self.size:,} bytes"] if self.size else []
        known += [" ".join(checksum.split(":"))] if (checksum := self._expected()) else []
        return f" ({', '.join(known)})" if known else ""

    def _download(self, url: str, output_file: str, _pooch: Any) -> None:
        """Fetch the file, in the way that pooch asks its downloaders to."""
        place = Path(output_file)
        if urlsplit(url).scheme == "file":
            shutil.copyfile(url2pathname(urlsplit(url).path), place)
        else:
            self._download_http(url, place)
        with open(place, "rb") as file:
            if file.read(256).lstrip().startswith(b"<"):
                raise ValueError("an HTML or XML page instead of the file")
        if self.size is not None and place.stat().st_size != self.size:
            raise ValueError(f"{place.stat().st_size:,} bytes instead of {self.size:,}")
        self._refuse_wrong(place)
        # pooch makes a file that only its owner can read; a cache may be shared.
        place.chmod(0o644)

    def _download_http(self, url: str, place: Path) -> None:
        # A server that compresses the file on its way would send other bytes.
        headers = {"Accept-Encoding": "identity"}
        with (
            _ResponseGuard() as guard,
            tqdm(
                desc=self.name, total=self.size or 1, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            download = _import_pooch().HTTPDownloader(
                progressbar=bar,
                chunk_size=READ_BYTES,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                headers=headers,
                hooks={"response": guard.see},
            )
            download(url, str(place), None)


@dataclass(frozen=True)
class ArchiveMember(CachedFile):
    """A file inside a zip archive on the web; see :class:`CachedFile`.

    Attributes
    ----------
    archive : RemoteFile
        The archive, which is downloaded once for all its members.
    member : str
        The name inside the archive.
    """

    archive: RemoteFile
    member: str
    checksum: str | None = None

    @property
    def dataset(self) -> str:  # type: ignore[override]  # follows from the archive
        return self.archive.dataset

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.member.rpartition("/")[2]

    def is_here(self) -> bool:
        return super().is_here() or self.archive.is_here()

    def _make(self) -> None:
        path = self.archive.fetch()
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(self.member) as source,
                create_file(self.path, overwrite=True) as target,
            ):
                shutil.copyfileobj(source, target, READ_BYTES)
                target.flush()
                self._refuse_wrong(Path(target.name))
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            reason = error.args[0] if error.args else error
            raise DownloadError(f"{path}: member {self.member}: {reason}") from error


def hash_file(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class _ResponseGuard(contextlib.AbstractContextManager["_ResponseGuard"]):
    """Sees every response of a download: refuses a way from https to http, closes them all.

    It also keeps the bytes as they are sent.
    """

    def __init__(self) -> None:
        self._responses: list[Any] = []

    def see(self, response: Any, **_options: Any) -> None:
        """Be the hook ``response`` of requests, called before a redirect is followed."""
        self._responses.append(response)
        # Servers announce a .gz file as an encoding of what is in it; requests would decode it.
        response.raw.headers.pop("Content-Encoding", None)
        if response.is_redirect:
            target = urljoin(response.url, response.headers["location"])
            if response.url.startswith("https:") and not target.startswith("https:"):
                raise ValueError(f"redirects from https to {target}")

    def __exit__(self, *_error: object) -> None:
        for response in self._responses:
            response.close()


@contextlib.contextmanager
def _only_warnings(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code} {response.reason}"
    while cause := error.__cause__ or error.__context__:
        if not isinstance(cause, Exception):
            break
        error = cause
    return f"{str(error) or type(error).__name__}"


def _import_pooch() -> ModuleType:
    try:
        return importlib.import_module("pooch")
    except ImportError as error:
        raise missing_extra("downloads need pooch", "download") from error
