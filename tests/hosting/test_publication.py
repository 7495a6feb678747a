"""Published stores: copied whole, read back from where readers find them, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import xarray as xr
import zarr
from pytest_httpserver import HTTPServer
from zarr.storage import FsspecStore, LocalStore

import mnist_zarr
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.errors import StoreError, StoreNotFoundError, TargetExistsError
from mnist_zarr.hosting.page import make_page
from mnist_zarr.hosting.publication import publish
from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import CARD, PAGE
from mnist_zarr.stores.object_reader import ObjectReader
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL
from tests.support.digits import square_digits
from tests.support.memory import traced_memory
from tests.support.object_server import BUCKET, S3Server
from tests.support.partners import partner
from tests.support.servers import free_port


def test_a_published_store_is_the_same_and_carries_a_card(s3: S3Server, titled_store: Path) -> None:
    published = publish(titled_store, URL, storage_options=s3.options)
    back = mnist_zarr.open_store(URL, storage_options=s3.options).load()
    xr.testing.assert_identical(back, mnist_zarr.open_store(titled_store).load())
    on_disk = {
        p.relative_to(titled_store).as_posix(): p for p in titled_store.rglob("*") if p.is_file()
    }
    assert published.objects.keys() == on_disk.keys() | {CARD, PAGE}
    assert {k: o.size for k, o in published.objects.items() if k in on_disk} == {
        k: p.stat().st_size for k, p in on_disk.items()
    }


def test_the_root_metadata_go_last_and_every_object_is_read_back(
    s3: S3Server, titled_store: Path
) -> None:
    published = publish(titled_store, URL, storage_options=s3.options)
    puts = [path.removeprefix(f"/{BUCKET}/deep/t.zarr/") for path in s3.asked("PUT")]
    assert puts[-1] in ("zarr.json", ".zgroup")
    last_put = max(i for i, (method, _) in enumerate(s3.requests) if method == "PUT")
    read = {path for method, path in s3.requests[last_put:] if method == "GET"}
    assert {f"/{BUCKET}/deep/t.zarr/{key}" for key in published.objects} <= read


def test_an_interrupted_publication_resumes(s3: S3Server, titled_store: Path) -> None:
    def chunks() -> list[str]:
        return [path for path in s3.asked("PUT") if path[-1].isdigit()]

    s3.fault = lambda method, path: "503" if path in chunks()[7:] else None
    with pytest.raises(StoreError, match="cannot be written"):
        publish(titled_store, URL, storage_options=s3.options)
    s3.fault = lambda method, path: None
    s3.requests.clear()
    publish(titled_store, URL, storage_options=s3.options)
    assert len(chunks()) <= 13 - 7
    with pytest.raises(TargetExistsError):
        publish(titled_store, URL, storage_options=s3.options)
    publish(titled_store, URL, storage_options=s3.options, overwrite=True)


def test_a_store_is_not_published_onto_itself(s3: S3Server, titled_store: Path) -> None:
    publish(titled_store, URL, storage_options=s3.options)
    place = BucketStore.from_url(URL, s3.options)
    for source, target in ((place, URL), (place, place)):
        options = None if target is place else s3.options
        with pytest.raises(StoreError, match=r"t\.zarr.*: is the store to publish itself"):
            publish(source, target, storage_options=options, overwrite=True)
    back = mnist_zarr.open_store(URL, storage_options=s3.options).load()
    xr.testing.assert_identical(back, mnist_zarr.open_store(titled_store).load())


def test_a_store_on_a_web_server_is_published(
    s3: S3Server, titled_store: Path, tmp_path: Path
) -> None:
    published = publish(titled_store, URL, storage_options=s3.options)
    again = publish(f"{s3.address}/{BUCKET}/deep/t.zarr", tmp_path / "again.zarr")
    assert again.objects.keys() == published.objects.keys()
    xr.testing.assert_identical(
        mnist_zarr.open_store(tmp_path / "again.zarr").load(),
        mnist_zarr.open_store(titled_store).load(),
    )


def test_a_store_in_a_private_bucket_is_published(
    s3: S3Server, titled_store: Path, tmp_path: Path
) -> None:
    publish(titled_store, URL, storage_options=s3.options)
    publish(URL, tmp_path / "again.zarr", source_options=s3.options)
    publish(URL, f"{URL}.zip", source_options=s3.options, storage_options=s3.options)
    xr.testing.assert_identical(
        mnist_zarr.open_store(tmp_path / "again.zarr").load(),
        mnist_zarr.open_store(titled_store).load(),
    )


def test_what_readers_get_is_compared_with_what_was_sent(
    s3: S3Server, titled_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ObjectReader.get

    async def get_out_of_an_old_cache(self: ObjectReader, key: str, *args: Any) -> Any:
        value: Any = await get(self, key, *args)
        is_old = self.read_only and key in ("label/c/0", "label/0")
        return type(value).from_bytes(value.to_bytes()[:-1] + b"?") if is_old else value

    monkeypatch.setattr(ObjectReader, "get", get_out_of_an_old_cache)
    with pytest.raises(StoreError, match=r"objects differ from what was sent, such as 'label/"):
        publish(titled_store, URL, storage_options=s3.options)


def test_the_address_of_readers_is_the_one_that_is_checked(
    s3: S3Server, titled_store: Path
) -> None:
    public = f"{s3.address}/{BUCKET}/deep/t.zarr"
    published = publish(titled_store, URL, storage_options=s3.options, public_url=public)
    assert published.url == public
    xr.testing.assert_equal(
        xr.open_zarr(public, chunks=None).image.load(),
        mnist_zarr.open_store(titled_store).image.load(),
    )
    with pytest.raises(StoreError, match=r"elsewhere"):
        publish(
            titled_store,
            URL,
            storage_options=s3.options,
            public_url=f"{s3.address}/elsewhere/t.zarr",
            overwrite=True,
        )


@pytest.mark.parametrize("immutable", [False, True])
def test_only_immutable_stores_get_chunks_that_caches_keep(
    s3: S3Server, titled_store: Path, immutable: bool
) -> None:
    published = publish(titled_store, URL, storage_options=s3.options, immutable=immutable)
    chunk = next(key for key in published.objects if key.startswith("image/") and key[-1] == "0")
    expected = "public, max-age=31536000, immutable" if immutable else "public, no-cache"
    assert s3.headers(f"deep/t.zarr/{chunk}")["Cache-Control"] == expected
    root = "zarr.json" if "zarr.json" in published.objects else ".zmetadata"
    assert s3.headers(f"deep/t.zarr/{root}")["Cache-Control"] == "public, no-cache"
    assert s3.headers(f"deep/t.zarr/{CARD}")["Content-Type"] == "application/json"
    page = s3.headers(f"deep/t.zarr/{PAGE}")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert page["Cache-Control"] == "public, no-cache"


def test_a_zip_file_gets_its_content_type_and_cache_header(
    s3: S3Server, titled_store: Path
) -> None:
    for immutable in (False, True):
        publish(
            titled_store,
            f"{URL}/t.zarr.zip",
            storage_options=s3.options,
            immutable=immutable,
            overwrite=True,
        )
        headers = s3.headers("deep/t.zarr/t.zarr.zip")
        assert headers["Content-Type"] == "application/zip"
        assert ("immutable" in headers["Cache-Control"]) == immutable


def test_a_page_that_is_not_wanted_is_removed(s3: S3Server, titled_store: Path) -> None:
    publish(titled_store, URL, storage_options=s3.options)
    assert s3.holds(f"deep/t.zarr/{PAGE}")
    shown = publish(
        titled_store, URL, storage_options=s3.options, overwrite=True, page=False
    ).to_text()
    assert not s3.holds(f"deep/t.zarr/{PAGE}")
    assert PAGE not in shown


def test_a_published_page_is_named_and_no_part_of_the_store(
    s3: S3Server, titled_store: Path
) -> None:
    published = publish(
        titled_store,
        URL,
        storage_options=s3.options,
        public_url=f"{s3.address}/{BUCKET}/deep/t.zarr",
    )
    page = f"{s3.address}/{BUCKET}/deep/t.zarr/{PAGE}"
    assert f"\n{page} shows it in a browser\n" in published.to_text()
    with urlopen(page) as answer:
        assert answer.read() == make_page()
    report = mnist_zarr.verify(URL, storage_options=s3.options)
    assert report.is_whole
    again = publish(URL, f"{URL}2", source_options=s3.options, storage_options=s3.options)
    assert again.objects.keys() == published.objects.keys()


def test_a_store_that_is_not_whole_is_not_published(tmp_path: Path) -> None:
    write_zarr(square_digits(100), tmp_path / "t.zarr", chunk_bytes=160)
    (tmp_path / "t.zarr" / "image" / "c" / "3" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=r"is not whole: it lacks 1 of 13 .* 'image/c/3/0/0'"):
        publish(tmp_path / "t.zarr", tmp_path / "published.zarr")
    with pytest.raises(StoreNotFoundError):
        publish(tmp_path / "nowhere.zarr", tmp_path / "published.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreNotFoundError, match="there is no Zarr store; make one"):
        publish(tmp_path / "empty", tmp_path / "published.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(4,), dtype="u1")
    (tmp_path / "empty" / "zarr.json").write_text("{")
    for name in ("array.zarr", "empty"):
        with pytest.raises(StoreError, match=rf"{name}: cannot be opened as a Zarr store: "):
            publish(tmp_path / name, tmp_path / "published.zarr")
    assert not (tmp_path / "published.zarr").exists()


@pytest.mark.parametrize("kind", ["zip", "icechunk"])
def test_a_zip_file_and_a_repository_are_targets_too(tmp_path: Path, kind: str) -> None:
    if kind == "icechunk":
        partner("icechunk")
    write_zarr(square_digits(100), tmp_path / "t.zarr")
    target = {
        "zip": str(tmp_path / "t.zarr.zip"),
        "icechunk": f"icechunk+file://{tmp_path}/repository",
    }[kind]
    published = publish(tmp_path / "t.zarr", target)
    assert (CARD in published.objects) == (kind == "zip")
    assert PAGE not in published.objects
    xr.testing.assert_identical(
        mnist_zarr.open_store(target).load(), mnist_zarr.open_store(tmp_path / "t.zarr").load()
    )


def test_memory_holds_a_few_objects(tmp_path: Path) -> None:
    chunk_bytes, n_chunks = 500_000, 200
    images = np.random.default_rng(0).integers(0, 256, (n_chunks, 500, 1000)).astype(np.uint8)
    ds = make_dataset(images)
    write_zarr(ds, tmp_path / "t.zarr", chunk_bytes=chunk_bytes, level=1)
    with traced_memory() as peak_bytes:
        publish(tmp_path / "t.zarr", tmp_path / "published.zarr")
        assert peak_bytes() < 3 * 16 * chunk_bytes < 0.4 * chunk_bytes * n_chunks


@pytest.mark.parametrize("kind", ["path", "store", "fsspec store"])
@pytest.mark.parametrize("linked", ["chunk", "folder", "document"])
def test_a_file_outside_of_the_store_is_not_published(
    titled_store: Path, tmp_path: Path, memory_url: str, linked: str, kind: str
) -> None:
    inside = max(titled_store.glob("label/**/*0")) if linked == "chunk" else titled_store / "label"
    if linked == "document":
        inside = next(path for path in inside.iterdir() if path.suffix or path.name == ".zarray")
    (tmp_path / "secrets").mkdir()
    inside.rename(tmp_path / "secrets" / "secret")
    inside.symlink_to(tmp_path / "secrets" / "secret")
    source: Any = {
        "path": titled_store,
        "store": LocalStore(titled_store, read_only=True),
        "fsspec store": FsspecStore.from_url(f"local://{titled_store}", read_only=True),
    }[kind]
    # fsspec itself does not list what is behind a linked folder.
    is_listed = (linked, kind) != ("folder", "fsspec store")
    reason = r"label.* is a link to .*secret.*cp -rL" if is_listed else "is not whole"
    with pytest.raises(StoreError, match=reason):
        publish(source, f"{memory_url}/t.zarr")
    assert mnist_zarr.verify(titled_store).is_whole


def test_a_store_behind_a_link_and_with_links_inside_of_it_is_published(
    titled_store: Path, tmp_path: Path, memory_url: str
) -> None:
    chunk = max(titled_store.glob("label/**/*0"))
    chunk.rename(titled_store / "moved")
    chunk.symlink_to(titled_store / "moved")
    (tmp_path / "link.zarr").symlink_to(titled_store)
    published = publish(tmp_path / "link.zarr", f"{memory_url}/t.zarr")
    assert any(key.startswith("label/") for key in published.objects)


def test_a_wrong_address_of_readers_is_not_called_damage(
    titled_store: Path, tmp_path: Path, httpserver: HTTPServer
) -> None:
    httpserver.no_handler_status_code = 404
    mnist_zarr.write_zarr(square_digits(), tmp_path / "other.zarr")
    unreachable = f"http://127.0.0.1:{free_port()}/t.zarr"
    for url, reason in (
        (httpserver.url_for("/wrong.zarr"), "there is no Zarr store"),
        (f"{tmp_path}/other.zarr", "another store is there"),
        (unreachable, "Cannot connect"),
    ):
        with pytest.raises(StoreError) as caught:
            publish(titled_store, tmp_path / "new.zarr", public_url=url, overwrite=True)
        for part in (f"{url}: readers do not get the store", reason, "`public_url`", "new.zarr"):
            assert part in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("target", ["http://host/t.zarr", "http://host/t.zarr.zip"])
def test_a_web_server_is_no_target(target: str, titled_store: Path) -> None:
    for write in (mnist_zarr.build, lambda place: publish(titled_store, place)):
        with pytest.raises(StoreError, match="a web server takes no files over HTTP"):
            write(target)
