"""The card of a published store."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xarray as xr
import zarr

from mnist_zarr.hosting.croissant import make_address
from mnist_zarr.hosting.publication import publish
from mnist_zarr.stores.keys import CARD, PAGE
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits
from tests.support.partners import partner


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlcroissant")
def test_mlcroissant_accepts_the_card_and_it_says_licence_citation_and_hashes(
    titled_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published = publish(titled_store, tmp_path / "published.zarr")
    card = json.loads((tmp_path / "published.zarr" / CARD).read_text())
    dataset = partner("mlcroissant").Dataset(jsonld=card)
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    assert caplog.messages == []
    assert (dataset.metadata.name, dataset.metadata.license) == ("Ten digits", ["MIT"])
    assert dataset.metadata.cite_as == "Somebody: Digits. 1998."
    listed = {file.id: file.sha256 for file in dataset.metadata.distribution}
    beside = (CARD, PAGE)
    assert listed == {k: o.sha256 for k, o in published.objects.items() if k not in beside}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlcroissant")
@pytest.mark.parametrize("attrs", [{}, {"title": "", "license": 5, "references": ["a", "b"]}])
def test_mlcroissant_accepts_the_card_of_a_store_with_other_attributes(
    tmp_path: Path, attrs: dict[str, Any]
) -> None:
    write_zarr(digits().assign_attrs(attrs), tmp_path / "t.zarr")
    publish(tmp_path / "t.zarr", tmp_path / "published.zarr")
    card = json.loads((tmp_path / "published.zarr" / CARD).read_text())
    dataset = partner("mlcroissant").Dataset(jsonld=card)
    assert dataset.metadata.name == "published.zarr"
    assert not {"license", "citeAs"} & card.keys()


@pytest.mark.parametrize("name", ["t.zarr", "t.zarr/", "{t}.zarr", "t.zarr.zip"])
def test_the_card_has_addresses_from_which_the_objects_are_read(
    titled_store: Path, tmp_path: Path, name: str
) -> None:
    url = f"file://{tmp_path}/published/{name}"
    publish(titled_store, url)
    with fsspec.open(make_address(url, CARD)) as file:
        card = json.load(file)
    assert card["url"] == url.rstrip("/")
    for entry in card["distribution"]:
        with fsspec.open(entry["contentUrl"]) as file:
            assert hashlib.sha256(file.read()).hexdigest() == entry["sha256"]
            assert "//" not in entry["contentUrl"].rpartition("://")[2]


def test_readers_do_not_see_the_card(titled_store: Path, tmp_path: Path) -> None:
    publish(titled_store, tmp_path / "published.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.open_zarr(tmp_path / "published.zarr").load()
        assert len(list(zarr.open_group(tmp_path / "published.zarr", mode="r").members())) == 4
