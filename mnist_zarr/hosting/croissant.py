"""Dataset cards in the Croissant format: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.

Croissant 1.1 cannot read Zarr: a card describes the data set and lists the objects of the store
with their sizes and SHA-256, but has no record sets.
"""

from __future__ import annotations

import datetime
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# From the appendix of the specification; readers warn if a part of it is missing.
CONTEXT = importlib.resources.files("mnist_zarr.hosting") / "croissant_context.json"
# From attributes of a store (ACDD 1.3) to properties of a card.
PROPERTY_OF_ATTRIBUTE = {"title": "name", "license": "license", "references": "citeAs"}


@dataclass(frozen=True)
class StoredObject:
    """The size of an object in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def make_card(
    url: str, attrs: Mapping[str, Any], objects: Mapping[str, StoredObject]
) -> dict[str, Any]:
    """Return the card of a store as JSON-LD.

    Parameters
    ----------
    url : str
        Where readers find the store, a folder or a zip file.
    attrs : mapping
        The root attributes of the store.
    objects : mapping
        From the key of each object to its size and hash.

    Returns
    -------
    dict
        What ``json.dumps`` takes.

    Examples
    --------
    >>> card = make_card("https://example.org/m.zarr", {"title": "M"}, {})
    >>> card["name"], card["url"]
    ('M', 'https://example.org/m.zarr')
    """
    url = url.rstrip("/")
    texts = {name: value for name, value in attrs.items() if value and isinstance(value, str)}
    card: dict[str, Any] = {
        "@context": json.loads(CONTEXT.read_text(encoding="utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": url.rpartition("/")[2],
        "description": _description(texts),
        "url": url,
        "datePublished": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": "1.0.0",
    }
    card |= {
        name: texts[attribute]
        for attribute, name in PROPERTY_OF_ATTRIBUTE.items()
        if attribute in texts
    }
    card["distribution"] = [
        {
            "@type": "cr:FileObject",
            "@id": key,
            "name": key,
            "contentUrl": make_address(url, key),
            "contentSize": f"{stored.size} B",
            "encodingFormat": (
                "application/json" if key.endswith(".json") else "application/octet-stream"
            ),
            "sha256": stored.sha256,
        }
        for key, stored in sorted(objects.items())
    ]
    return card


def make_address(url: str, key: str) -> str:
    """Return the URL of an object; for an entry of a zip file a chained URL of fsspec."""
    return f"zip://{key}::{url}" if url.endswith(".zip") else f"{url}/{key}"


def _description(texts: Mapping[str, str]) -> str:
    sentences = [f"{texts.get('title', 'Labelled images')}, as a Zarr store for xarray."]
    sentences += [
        f"SHA-256 of all values of {name[: -len('_sha256')]} in the order of the source: {value}."
        for name, value in sorted(texts.items())
        if name in ("image_sha256", "label_sha256")
    ]
    return " ".join(sentences)
