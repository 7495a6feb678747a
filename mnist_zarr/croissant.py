"""Dataset cards in the Croissant format: https://docs.mlcommons.org/croissant/docs/croissant-spec.html.

Croissant 1.0 has no reader of Zarr, so a card names the objects of a store, with size and
SHA-256, and describes the data set, but has no record sets.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CARD = "croissant.json"

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
}
# Where the attributes of a store (ACDD 1.3) go.
PROPERTY_OF_ATTRIBUTE = {"title": "name", "license": "license", "references": "citeAs"}


@dataclass(frozen=True)
class StoredObject:
    """Size in bytes and SHA-256, in hexadecimal, of one object."""

    size: int
    sha256: str


def make_card(
    url: str, attrs: Mapping[str, Any], objects: Mapping[str, StoredObject]
) -> dict[str, Any]:
    """Return the card of a store as JSON-LD.

    Parameters
    ----------
    url : str
        Where readers find the store.
    attrs : mapping
        Its root attributes.
    objects : mapping
        From the key of each object to its size and hash.

    Examples
    --------
    >>> card = make_card("https://example.org/m.zarr", {"title": "M"}, {})
    >>> card["name"], card["url"]
    ('M', 'https://example.org/m.zarr')
    """
    card: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": url.rstrip("/").rpartition("/")[2],
        "description": _description(attrs),
        "url": url,
        "datePublished": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": "1.0.0",
    }
    card |= {
        name: attrs[attribute]
        for attribute, name in PROPERTY_OF_ATTRIBUTE.items()
        if attribute in attrs
    }
    card["distribution"] = [
        {
            "@type": "cr:FileObject",
            "@id": key,
            "name": key,
            "contentUrl": f"{url}/{key}",
            "contentSize": f"{stored.size} B",
            "encodingFormat": (
                "application/json" if key.endswith(".json") else "application/octet-stream"
            ),
            "sha256": stored.sha256,
        }
        for key, stored in sorted(objects.items())
    ]
    return card


def _description(attrs: Mapping[str, Any]) -> str:
    said = [f"{attrs.get('title', 'Labelled images')}, as a Zarr store for xarray."]
    said += [
        f"SHA-256 of all values of {name[: -len('_sha256')]} in the order of the source: {value}."
        for name, value in sorted(attrs.items())
        if name in ("image_sha256", "label_sha256")
    ]
    return " ".join(said)
