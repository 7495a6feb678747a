"""The objects of a target, each of which is written only if it is as the writer knows it.

S3, Google Cloud Storage and Azure compare the version of an object with the one that a request
names, and write in the same step; obstore asks the same of them. Of two writers that know the
same version only one succeeds; the other learns of it.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html,
https://cloud.google.com/storage/docs/request-preconditions,
https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from fsspec.implementations.memory import MemoryFileSystem
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, MemoryStore, ObjectStore

from mnist_zarr.errors import TargetBusyError
from mnist_zarr.files.urls import hide_secrets, protocols_of, version_of
from mnist_zarr.stores.bucket import BucketStore, md5_of
from mnist_zarr.stores.keys import as_buffer

# What a store says of the version of an object; None where it says nothing.
Version = Any
# "Conflict" and "precondition failed"; and what servers say to conditions that they do not know.
CHANGED_STATUS, UNKNOWN_STATUS = (409, 412), 501


class ObjectChangedError(TargetBusyError):
    """An object is not as the writer knows it."""


class NotComparedError(TargetBusyError):
    """The server knows no conditions."""


@dataclass(frozen=True)
class Found:
    """An object that is there: its version, its size in bytes, its MD5 if that is known."""

    version: Version
    size: int
    md5: str | None


class Objects(ABC):
    """The objects of a store.

    Attributes
    ----------
    compares : bool
        Whether the store compares versions and writes in one step.
    is_private : bool
        Whether no other process can write to it.
    wrong_version : Version or None
        A version that no object has, for a server that may ignore what it is told of versions.
    """

    compares = True
    is_private = False
    wrong_version: Version | None = None

    def __init__(self, store: Store) -> None:
        self._store = store

    def without_conditions(self) -> Self:
        """Return the same objects, written without comparing."""
        plain = copy.copy(self)
        plain.compares = False
        return plain

    async def does_compare(self, key: str, data: bytes) -> bool:
        """Whether the store refuses to write an object that exists, on conditions that are false.

        If not, it has been written.
        """
        for wrong in (None, self.wrong_version) if self.wrong_version else ():
            with contextlib.suppress(ObjectChangedError):
                await self.put(key, data, wrong)
                return False
        return True

    async def list(self) -> dict[str, Found | None]:
        """Return every object by its key; None where one has to look for more than that."""
        return {key: None async for key in self._store.list()}

    @abstractmethod
    async def look(self, key: str) -> Found | None:
        """Return what is there now."""

    @abstractmethod
    async def put(self, key: str, data: bytes, known: Version | None) -> Version:
        """Write an object if it has this version, or does not exist; return its new version.

        A store that compares nothing writes it in any case, and returns None.

        Raises
        ------
        ObjectChangedError
            If it has another one.
        """

    @abstractmethod
    async def remove(self, key: str, known: Version | None) -> None:
        """Remove an object if it has this version; raises as :meth:`put` does."""

    async def read(self, key: str) -> bytes | None:
        """Return the content of an object; None if it is not there."""
        value = await self._store.get(key, default_buffer_prototype())
        return None if value is None else value.to_bytes()

    async def holds(self, key: str, found: Found | None, data: bytes | None) -> bool:
        """Whether what was found has this content: by MD5 if that is known, else read back."""
        if found is None or data is None:
            return found is None and data is None
        if found.size != len(data):
            return False
        if found.md5 is not None:
            return found.md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
        return await self.read(key) == data


def objects_of(store: Store) -> Objects:
    """Return the objects of a store."""
    if isinstance(store, BucketStore):
        return BucketObjects(store)
    return ObstoreObjects(store) if isinstance(store, ObjectStore) else PlainObjects(store)


def is_in_memory(store: Store) -> bool:
    """Whether no other process can write to the store."""
    if isinstance(store, FsspecStore):
        return isinstance(getattr(store.fs, "sync_fs", store.fs), MemoryFileSystem)
    return isinstance(store, MemoryStore)


class PlainObjects(Objects):
    """Those of a store that compares nothing. Whoever writes may look first."""

    compares = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_private = is_in_memory(store)

    async def look(self, key: str) -> Found | None:
        data = await self.read(key)
        if data is None:
            return None
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return Found(md5, len(data), md5)

    async def put(self, key: str, data: bytes, known: Version | None) -> Version:
        await self._store.set(key, as_buffer(data))

    async def remove(self, key: str, known: Version | None) -> None:
        await self._store.delete(key)


class BucketObjects(Objects):
    """Those at an fsspec URL."""

    _store: BucketStore

    def __init__(self, store: BucketStore) -> None:
        super().__init__(store)
        known = [CLOUDS[name] for name in protocols_of(store.fs) if name in CLOUDS]
        self._cloud = known[0] if known else None
        self.compares, self.is_private = self._cloud is not None, is_in_memory(store)
        self.wrong_version = self._cloud and self._cloud.wrong_version

    async def list(self) -> dict[str, Found | None]:
        return {key: found_in(info) for key, info in (await self._store.infos()).items()}

    async def look(self, key: str) -> Found | None:
        info = await self._store.info(key)
        return None if info is None else found_in(info)

    async def put(self, key: str, data: bytes, known: Version | None) -> Version:
        if self._cloud is None or not self.compares:
            await self._store.set(key, as_buffer(data))
            return None
        with self._store.reported("written", key), _conflicts(is_there=known is not None):
            path, headers = f"{self._store.path}/{key}", self._store.headers(key)
            return await self._cloud.put(self._store.fs, path, data, known, headers)

    async def remove(self, key: str, known: Version | None) -> None:
        if self._cloud is None or known is None or not self.compares:
            await self._store.delete(key)
            return
        with self._store.reported("removed", key), _conflicts(is_there=True):
            await self._cloud.remove(self._store.fs, f"{self._store.path}/{key}", known)


def found_in(info: Mapping[str, Any]) -> Found:
    """Return what a file system of fsspec says of an object."""
    return Found(version_of(info), info["size"], md5_of(info))


@dataclass(frozen=True)
class _Cloud:
    """The requests with conditions of one kind of object store."""

    put: Callable[[Any, str, bytes, Version | None, dict[str, Any]], Awaitable[Version]]
    remove: Callable[[Any, str, Version], Awaitable[object]]
    wrong_version: Version | None = None


async def _put_s3(
    fs: Any, path: str, data: bytes, known: Version | None, headers: dict[str, Any]
) -> Version:
    # In one part, whatever the size: the condition holds for a part, and the ETag is the MD5.
    bucket, key, _ = fs.split_path(path)
    condition = {"IfNoneMatch": "*"} if known is None else {"IfMatch": known}
    answer = await fs._call_s3(
        "put_object", Bucket=bucket, Key=key, Body=data, **headers, **condition
    )
    return answer["ETag"]


async def _remove_s3(fs: Any, path: str, known: Version) -> None:
    bucket, key, _ = fs.split_path(path)
    await fs._call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=known)


async def _put_google(
    fs: Any, path: str, data: bytes, known: Version | None, headers: dict[str, Any]
) -> Version:
    # gcsfs itself knows no other condition than that there is no object.
    bucket, key, _ = fs.split_path(path)
    content_type, cache_control = headers["content_type"], headers["fixed_key_metadata"]
    described = {"name": key, "cacheControl": cache_control["cache_control"]}
    edge = secrets.token_hex(16)
    parts = (
        f"--{edge}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(described)}"
        f"\r\n--{edge}\r\nContent-Type: {content_type}\r\n\r\n"
    )
    answer = await fs._call(
        "POST",
        f"{fs._location}/upload/storage/v1/b/{quote(bucket, safe='')}/o",
        uploadType="multipart",
        ifGenerationMatch=known or "0",
        headers={"Content-Type": f'multipart/related; boundary="{edge}"'},
        data=b"".join([parts.encode(), data, f"\r\n--{edge}--".encode()]),
        json_out=True,
    )
    return answer["generation"]


async def _remove_google(fs: Any, path: str, known: Version) -> None:
    bucket, key, _ = fs.split_path(path)
    await fs._call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=known)


def _azure_condition(known: Version) -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": known, "match_condition": MatchConditions.IfNotModified}


async def _put_azure(
    fs: Any, path: str, data: bytes, known: Version | None, headers: dict[str, Any]
) -> Version:
    container, blob, _ = fs.split_path(path)
    condition = {} if known is None else _azure_condition(known)
    async with fs.service_client.get_blob_client(container=container, blob=blob) as client:
        answer = await client.upload_blob(
            data,
            overwrite=known is not None,
            metadata={"is_directory": "false"},  # as adlfs writes files
            **headers,
            **condition,
        )
    return answer["etag"]


async def _remove_azure(fs: Any, path: str, known: Version) -> None:
    container, blob, _ = fs.split_path(path)
    async with fs.service_client.get_blob_client(container=container, blob=blob) as client:
        await client.delete_blob(**_azure_condition(known))


CLOUDS = {
    # Services that speak its language may ignore conditions; the two others have one vendor.
    "s3": _Cloud(_put_s3, _remove_s3, wrong_version=f'"{0:032}"'),
    "gs": _Cloud(_put_google, _remove_google),
    "abfs": _Cloud(_put_azure, _remove_azure),
}


@contextlib.contextmanager
def _conflicts(*, is_there: bool) -> Iterator[None]:
    """Turn what file systems raise of a condition that does not hold into one error of ours."""
    try:
        yield
    except Exception as error:
        status = _status_of(error)
        is_gone = is_there and (isinstance(error, FileNotFoundError) or status == 404)
        if is_gone or isinstance(error, FileExistsError) or status in CHANGED_STATUS:
            raise ObjectChangedError(hide_secrets(str(error))) from error
        if status == UNKNOWN_STATUS:
            raise NotComparedError(hide_secrets(str(error))) from error
        raise


def _status_of(error: BaseException | None) -> object:
    """Return the status of the answer of a server: botocore, Azure or gcsfs has it."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, Mapping):
            return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if (status := getattr(error, "status_code", getattr(error, "code", None))) is not None:
            return status
        error = error.__cause__
    return None


class ObstoreObjects(Objects):
    """Those of a store of obstore, which compares whatever service is behind it."""

    _store: ObjectStore[Any]
    wrong_version = (("e_tag", f'"{0:032}"'), ("version", "1"))

    async def look(self, key: str) -> Found | None:
        import obstore

        try:
            info = await obstore.head_async(self._store.store, key)
        except FileNotFoundError:
            return None
        return Found(_version_of_obstore(info), info["size"], md5_of({"ETag": info["e_tag"]}))

    async def put(self, key: str, data: bytes, known: Version | None) -> Version:
        import obstore
        from obstore import exceptions

        mode: Any = "create" if known is None else dict(known)
        if not self.compares:
            mode = "overwrite"
        try:
            return _version_of_obstore(
                await obstore.put_async(self._store.store, key, data, mode=mode)
            )
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ObjectChangedError(hide_secrets(str(error))) from error
        except FileNotFoundError as error:
            if known is None:
                raise
            raise ObjectChangedError(hide_secrets(str(error))) from error
        except (exceptions.NotSupportedError, NotImplementedError) as error:
            raise NotComparedError(hide_secrets(str(error))) from error

    async def remove(self, key: str, known: Version | None) -> None:
        # obstore compares nothing before it removes.
        await self._store.delete(key)


def _version_of_obstore(info: Mapping[str, Any]) -> Version:
    return tuple((name, info[name]) for name in ("e_tag", "version") if info.get(name))
