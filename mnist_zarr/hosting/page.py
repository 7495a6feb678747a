"""The page that shows a store in the browser: one file that fetches nothing but the store.

It is built from ``page_source`` with ``npm ci && npm run build``, and finds the store in the
folder that it lies in.
"""

from __future__ import annotations

import html
import importlib.resources

PAGE_FILE = importlib.resources.files("mnist_zarr.hosting") / "page.html"
STORE_NAME = '<meta name="store" content="{}">'


def make_page(store_name: str = "") -> bytes:
    """Return the page as HTML.

    Parameters
    ----------
    store_name : str
        What the Python code on the page calls the store; by default the URL at
        which the browser finds the page.

    Examples
    --------
    >>> make_page()[:15]
    b'<!doctype html>'
    """
    text = PAGE_FILE.read_text(encoding="utf-8")
    return text.replace(STORE_NAME.format(""), STORE_NAME.format(html.escape(store_name))).encode()
