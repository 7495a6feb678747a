"""Our stores keep the contract of Zarr's, by Zarr's own suite of tests.

A test is overridden where a class departs from the contract on purpose; the docstring says why.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from packaging.version import Version
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.storage import LocalStore, MemoryStore
from zarr.testing.store import StoreTests

from mnist_zarr.errors import StoreError, TargetBusyError
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.files.zip_source import zip_members
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import ROOT, as_buffer, sync
from mnist_zarr.stores.snapshot import LocalSnapshot, OneVersion, root_identity
from mnist_zarr.stores.upload import Upload
from mnist_zarr.stores.zip_snapshot import ZipSnapshot
from tests.support.object_server import BUCKET, S3Server

VALUE = as_buffer(b"1234")
# What writes or removes, besides the `set` and `delete` that the suite tries of every store.
WRITES: dict[str, Callable[[Store], Awaitable[None]]] = {
    "set_if_not_exists": lambda store: store.set_if_not_exists("c/1", VALUE),
    "_set_many": lambda store: store._set_many([("c/1", VALUE)]),
    "delete_dir": lambda store: store.delete_dir("c"),
    "clear": lambda store: store.clear(),
}


class Contract(StoreTests[Any, CpuBuffer]):
    """What all have in common."""

    buffer_cls = CpuBuffer

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> Any:
        return sync(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> Any:
        return self.store_cls(**store_kwargs)

    def test_store_repr(self, store: Any) -> None:
        assert repr(store)

    def test_store_supports_writes(self, store: Any) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: Any) -> None:
        assert store.supports_listing


class Bucket(Contract):
    store_cls = BucketStore

    async def set(self, store: BucketStore, key: str, value: Buffer) -> None:
        await store.fs._pipe_file(f"{store.path}/{key}", value.to_bytes())

    async def get(self, store: BucketStore, key: str) -> Buffer:
        return CpuBuffer.from_bytes(await store.fs._cat_file(f"{store.path}/{key}"))

    async def test_get_raises(self, store: BucketStore) -> None:
        """Whatever fails is an error of ours, which names the object."""
        await self.set(store, "c/0", VALUE)
        unknown: Any = (0, 2)
        with pytest.raises(StoreError, match=r"c/0: cannot be read: Unexpected byte_range, got"):
            await store.get("c/0", default_buffer_prototype(), unknown)

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    async def test_what_else_writes_is_refused_by_a_store_to_read_from(
        self, store: BucketStore, write: Callable[[Store], Awaitable[None]]
    ) -> None:
        await self.set(store, "c/0", VALUE)
        with pytest.raises(ValueError, match="read-only"):
            await write(store.with_read_only(True))
        assert [key async for key in store.list()] == ["c/0"]

    async def test_a_part_of_an_object_is_not_written(self, store: BucketStore) -> None:
        with pytest.raises(NotImplementedError):
            await store.set("c/0", VALUE, (0, 2))

    def test_a_copy_knows_what_the_store_knew(self, store: BucketStore) -> None:
        store.supports_listing, store.is_immutable = False, True
        reader = store.with_read_only(True)
        assert (reader.supports_listing, reader.is_immutable) == (False, True)


class TestBucketStoreInMemory(Bucket):
    @pytest.fixture
    def store_kwargs(self, memory_url: str) -> dict[str, Any]:
        store = BucketStore.from_url(memory_url)
        return {"fs": store.fs, "path": store.path}

    async def test_serializable_store(self, store: BucketStore) -> None:
        """fsspec's wrapper of a file system that is not asynchronous equals no copy of itself."""
        there = pickle.loads(pickle.dumps(store))
        assert (there.path, there.read_only) == (store.path, store.read_only)


class TestBucketStoreOnS3(Bucket):
    @pytest.fixture
    def store_kwargs(self, s3: S3Server) -> dict[str, Any]:
        async def open_url() -> BucketStore:
            return BucketStore.from_url(f"s3://{BUCKET}/deep/t.zarr", s3.options)

        store = sync(open_url())  # in that thread, as to fsspec each has file systems of its own
        return {"fs": store.fs, "path": store.path}


class OnDisk(Contract):
    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"root": tmp_path}

    async def set(self, store: LocalStore, key: str, value: Buffer) -> None:
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: LocalStore, key: str) -> Buffer:
        return CpuBuffer.from_bytes((store.root / key).read_bytes())


class TestLocalSnapshot(OnDisk):
    store_cls = LocalSnapshot

    @pytest.fixture
    def open_kwargs(self, store_kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**store_kwargs, "read_only": True}

    async def set(self, store: LocalStore, key: str, value: Buffer) -> None:
        """Write into the version that is open."""
        await super().set(store, key, value)
        assert isinstance(store, LocalSnapshot)
        store._identity = root_identity(store.root)

    async def test_it_only_reads(self, store: LocalSnapshot) -> None:
        """A snapshot is one version of a store: nothing is written through it."""
        await self.set(store, "c/0", VALUE)
        for write in WRITES.values():
            with pytest.raises(ValueError, match="read-only"):
                await write(store)
        with pytest.raises(ValueError, match="read-only"):
            store.set_sync("c/1", VALUE)
        with pytest.raises(ValueError, match="read-only"):
            store.delete_sync("c/0")
        assert keys_in(store.root) == {"c/0"}


class TestZipSnapshot(Contract):
    store_cls = ZipSnapshot

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        with zipfile.ZipFile(tmp_path / "t.zarr.zip", "w"):
            return {"path": tmp_path / "t.zarr.zip"}

    @pytest.fixture
    def open_kwargs(self, store_kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**store_kwargs, "read_only": True}

    def test_store_supports_writes(self, store: Any) -> None:
        """A snapshot is one version of a store."""
        assert not store.supports_writes

    async def set(self, store: ZipSnapshot, key: str, value: Buffer) -> None:
        """Write into the version that is open."""
        with zipfile.ZipFile(store._path, "a") as archive:
            archive.writestr(key, value.to_bytes())
        store._members = zip_members(LocalSource(store._path))

    async def get(self, store: ZipSnapshot, key: str) -> Buffer:
        with zipfile.ZipFile(store._path) as archive:
            return CpuBuffer.from_bytes(archive.read(key))

    async def test_it_only_reads(self, store: ZipSnapshot) -> None:
        """Nothing is written through it."""
        await self.set(store, "c/0", VALUE)
        for write in WRITES.values():
            with pytest.raises((ValueError, NotImplementedError)):
                await write(store)
        assert [key async for key in store.list()] == ["c/0"]


def identify() -> int:
    return 1


class OpenedVersion(OneVersion):
    """It has no ``open`` of its own: who makes one knows the name and the identity."""

    @classmethod
    async def open(cls, store_cls: type[Store], *args: Any, **kwargs: Any) -> OneVersion:  # type: ignore[override]
        store = store_cls(*args, **kwargs)
        await store._open()
        return cls(store, "t.zarr", identify)


class TestOneVersion(Contract):
    store_cls = OpenedVersion

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"store": MemoryStore(), "name": "t.zarr", "identify": identify}

    @pytest.fixture
    def open_kwargs(self) -> dict[str, Any]:
        return {"store_cls": MemoryStore}

    @pytest.fixture
    def store(self, store_kwargs: dict[str, Any]) -> OneVersion:
        return OpenedVersion(**store_kwargs)

    async def set(self, store: OneVersion, key: str, value: Buffer) -> None:
        await store._store.set(key, value)

    async def get(self, store: OneVersion, key: str) -> Buffer:
        value = await store._store.get(key, default_buffer_prototype())
        assert value is not None
        return value


class OpenedUpload(Upload):
    """It has no ``open`` of its own: who makes one knows the name."""

    @classmethod
    async def open(cls, store_cls: type[Store], *args: Any, **kwargs: Any) -> Upload:  # type: ignore[override]
        store = store_cls(*args, **kwargs)
        await store._open()
        return cls(store, "t.zarr")


class TestUpload(Contract):
    store_cls = OpenedUpload

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"store": MemoryStore(), "name": "t.zarr"}

    @pytest.fixture
    def open_kwargs(self) -> dict[str, Any]:
        return {"store_cls": MemoryStore}

    @pytest.fixture
    def store(self, store_kwargs: dict[str, Any]) -> Iterator[Upload]:
        upload = OpenedUpload(**store_kwargs)
        upload.begin(overwrite=False)
        yield upload
        upload.give_up()

    async def set(self, store: Upload, key: str, value: Buffer) -> None:
        await store._store.set(key, value)

    async def get(self, store: Upload, key: str) -> Buffer:
        value = await store._store.get(key, default_buffer_prototype())
        assert value is not None
        return value

    async def test_documents_are_held_back(self, store: Upload) -> None:
        """Until the store is complete; the suite looks for ``zarr.json`` at once."""
        await store.set("zarr.json", VALUE)
        await store.set_if_not_exists("foo/zarr.json", VALUE)
        await store._set_many([("c/0", VALUE), ("bar/zarr.json", VALUE)])
        assert {key async for key in store.list()} == {"c/0", ROOT}

    @pytest.mark.skipif(Version(zarr.__version__) < Version("3.4"), reason="there is none")
    def test_zarrs_pipeline_of_threads_does_not_write_past_it(self, store: Upload) -> None:
        fused = "zarr.core.codec_pipeline.FusedCodecPipeline"
        with zarr.config.set({"codec_pipeline.path": fused}):
            array = zarr.create_array(store, shape=(4,), dtype="u1", zarr_format=3)
        sync(store._lease.give_up())
        with pytest.raises(TargetBusyError):
            array[:] = 1

    async def test_set_not_open(self, store_not_open: Upload) -> None:
        """Nothing is written to a place that has not been taken."""
        with pytest.raises(TargetBusyError):
            await store_not_open.set("c/0", VALUE)
        assert [key async for key in store_not_open.list()] == []

    async def test_is_empty(self, store: Upload) -> None:
        """The lease is there from the beginning."""
        assert not await store.is_empty("")
        assert await store.is_empty("fo")
        await self.set(store, "foo/bar", VALUE)
        assert not await store.is_empty("foo")

    async def test_a_copy_to_read_from_writes_nothing(self, store: Upload) -> None:
        """The suite does not begin the upload."""
        reader = store.with_read_only(True)
        for write in (reader.set("c/0", VALUE), reader.set("zarr.json", VALUE), reader.delete("c")):
            with pytest.raises(ValueError, match="read-only"):
                await write
        await reader.with_read_only(False).set("c/0", VALUE)
        assert await store.exists("c/0")

    def test_a_pickled_upload_goes_on(self, store: Upload) -> None:
        """Memory is not shared with other processes."""
        there = pickle.loads(pickle.dumps(store))
        sync(there.set("c/0", VALUE))
        assert sync(self.get(there, "c/0")).to_bytes() == VALUE.to_bytes()


def keys_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def override(tests: type[StoreTests[Any, Any]], words: str, test: Callable[..., Any]) -> None:
    """Put ``test`` in the place of those of the suite, as far as this version of Zarr has them."""
    for name in (f"test_{word}" for word in words.split()):
        if hasattr(StoreTests, name):
            setattr(tests, name, test)


override(
    TestLocalSnapshot,
    """store_read_only store_open_read_only serializable_store set set_not_open set_many
    set_if_not_exists set_sync delete delete_dir delete_nonexistent_key_does_not_raise delete_sync
    delete_sync_missing delete_sync_visible_to_async_get sync_async_set_get_parity
    get_sync_byte_range_parity clear exists getsize_prefix list list_prefix list_empty_path
    list_dir""",
    TestLocalSnapshot.test_it_only_reads,
)
override(
    TestZipSnapshot,
    """store_read_only store_open_read_only serializable_store set set_not_open set_many
    set_if_not_exists delete delete_dir delete_nonexistent_key_does_not_raise clear exists
    getsize_prefix list list_prefix list_empty_path list_dir""",
    TestZipSnapshot.test_it_only_reads,
)
override(
    TestUpload,
    "set set_many exists delete delete_dir list list_prefix list_empty_path list_dir",
    TestUpload.test_documents_are_held_back,
)
override(TestUpload, "with_read_only_store", TestUpload.test_a_copy_to_read_from_writes_nothing)
override(TestUpload, "serializable_store", TestUpload.test_a_pickled_upload_goes_on)
