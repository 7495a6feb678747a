"""Passwords and tokens in addresses are used, and appear in no store, card, result or message."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from zarr.storage import FsspecStore

import mnist_zarr
from mnist_zarr.errors import MnistZarrError
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.hosting.publication import publish
from mnist_zarr.reading.reader import open_store
from mnist_zarr.stores.keys import CARD
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

SECRET = "hunter2"


def with_password(address: str) -> str:
    return address.replace("://", f"://me:{SECRET}@")


def test_a_store_does_not_record_how_its_source_was_fetched(
    tmp_path: Path, web_address: str
) -> None:
    write_idx(digits(10).image.values, tmp_path / "x-images-idx3-ubyte")
    source = with_password(f"{web_address}/x-images-idx3-ubyte?token={SECRET}#{SECRET}")
    mnist_zarr.build(tmp_path / "t.zarr", source, labels=False)
    attrs = open_store(tmp_path / "t.zarr").attrs
    assert attrs["source"] == "x-images-idx3-ubyte"
    assert attrs["source_sha256"][0].endswith("  x-images-idx3-ubyte")
    written = [path for path in (tmp_path / "t.zarr").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    again = pickle.loads(pickle.dumps(open_bytes(source)))
    assert again.read(0, 4) == b"\0\0\x08\x03"


def test_what_is_published_or_told_of_a_store_has_no_password(
    tmp_path: Path, web_address: str
) -> None:
    write_zarr(digits(10), tmp_path / "t.zarr")
    url = with_password(f"{web_address}/p.zarr")
    published = publish(tmp_path / "t.zarr", tmp_path / "p.zarr", public_url=url)
    report = mnist_zarr.verify(url)
    assert report.is_whole
    card = json.loads((tmp_path / "p.zarr" / CARD).read_text())
    assert card["url"] == published.url == report.store == f"{web_address}/p.zarr"
    said = [card, published, report.to_text(), mnist_zarr.summarize(url), open_store(url).attrs]
    assert SECRET not in str(said)


@pytest.mark.parametrize(
    "address",
    ["{}/no.zarr", "{}/no.zarr?sig=hunter2", "{}/no.zip?sig=hunter2", "simplecache::{}/no"],
)
def test_errors_have_no_secret(address: str, tmp_path: Path, web_address: str) -> None:
    url = address.format(with_password(web_address))
    for fail in (
        lambda: open_store(url),
        lambda: mnist_zarr.verify(url),
        lambda: open_bytes(url),
        lambda: write_zarr(digits(10), url),
        lambda: mnist_zarr.build(tmp_path / "t.zarr", f"{url}/"),
        lambda: mnist_zarr.open_idx(f"{url}/train-images-idx3-ubyte.gz"),
        lambda: mnist_zarr.open_idx(url.replace("http://", "hxxp://")),
    ):
        with pytest.raises(MnistZarrError) as caught:
            fail()
        assert SECRET not in str(caught.value)


def test_errors_of_a_store_object_have_no_secret(web_address: str) -> None:
    store = FsspecStore.from_url(with_password(f"{web_address}/no.zarr"), read_only=True)
    for fail in (mnist_zarr.verify, open_store):
        with pytest.raises(MnistZarrError) as caught:
            fail(store)
        assert SECRET not in str(caught.value)
