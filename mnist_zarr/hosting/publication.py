"""Copying finished stores to where others read them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store

from mnist_zarr.errors import StoreError, StoreNotFoundError, StoreReplacedError
from mnist_zarr.files.urls import name_failures, path_or_url, shown_url
from mnist_zarr.hosting.cors import cors_rule
from mnist_zarr.hosting.croissant import StoredObject, make_card
from mnist_zarr.hosting.page import make_page
from mnist_zarr.stores.inventory import (
    Inventory,
    Promises,
    arrays_in,
    check_links,
    open_documents,
    read_documents,
    read_root,
    take_inventory,
)
from mnist_zarr.stores.keys import (
    CARD,
    METADATA_NAMES,
    PAGE,
    as_buffer,
    read_object,
    run_on_objects,
    sync,
)
from mnist_zarr.stores.place import Place
from mnist_zarr.stores.targets import Target, parse_target
from mnist_zarr.terminal import printable, progress_bar


@dataclass(frozen=True)
class Publication:
    """What was published.

    Attributes
    ----------
    url : str
        Where readers find the store, without passwords and tokens.
    objects : dict
        From the key of each object to its size and SHA-256; the key of the page is
        ``index.html``.
    cors : str
        The rule that lets pages of other sites read the store in a browser,
        to be set on the bucket or web server.
    """

    url: str
    objects: dict[str, StoredObject]
    cors: str

    def to_text(self) -> str:
        """Return the result as lines for a terminal."""
        n_bytes = sum(stored.size for stored in self.objects.values())
        url = printable(self.url)
        page = f"{url.rstrip('/')}/{PAGE} shows it in a browser\n" if PAGE in self.objects else ""
        return (
            f"{url}: {len(self.objects):,} objects, {n_bytes:,} bytes, each read back and equal to "
            f"what was sent\n{page}\nFor readers in a browser:\n{self.cors}"
        )


def publish(
    store: Target,
    target: Target,
    *,
    overwrite: bool = False,
    progress: bool | None = None,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
    public_url: str | None = None,
    immutable: bool = False,
    page: bool = True,
) -> Publication:
    """Copy a finished store to where others read it, and check what they get.

    Objects are copied in parallel, the root metadata last, and beside them are
    placed a dataset card (``croissant.json``) and a page (``index.html``) that
    shows the store in the browser. An interrupted copy is resumed by the same
    call. Finally every object is fetched from the URL that readers use, and its
    hash compared.

    Parameters
    ----------
    store : str, os.PathLike or zarr store
        The finished store.
    target : str, os.PathLike or zarr store
        Where to copy it, as in :func:`mnist_zarr.build`. An Icechunk repository
        gets no card and no page, as it can only hold Zarr, and a zip file no page,
        which a browser could not open in there.
    overwrite : bool
        Whether to replace an existing store.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal only.
    storage_options : dict, optional
        Passed to the fsspec file system of ``target``, or to Icechunk.
    source_options : dict, optional
        The same for ``store``.
    public_url : str, optional
        The URL that readers use, such as
        ``https://bucket.s3.amazonaws.com/mnist.zarr``; by default the target.
    immutable : bool
        Whether caches may keep chunks for ever, because the content at this URL
        never changes. By default caches revalidate every chunk.
    page : bool
        Whether to write the page.

    Returns
    -------
    Publication
        The URL, the size and hash of each object, and the CORS rule to set.

    Raises
    ------
    StoreNotFoundError
        If there is no store to publish.
    TargetExistsError
        If the target exists and ``overwrite`` is false.
    TargetBusyError
        If another process is building or publishing the same target.
    StoreReplacedError
        If ``store`` is replaced while it is copied.
    StoreError
        If the store lacks objects, has links to files outside of it, or is the
        target itself, if the target cannot be written, or if readers do not get
        what was sent.
    OptionError
        If ``store`` or ``target`` takes no options, or is neither a path, a URL
        nor a store object.
    MissingExtraError
        If the package that can open one of the URLs is not installed.

    Examples
    --------
    >>> import tempfile, mnist_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mnist_zarr.build(f"{folder}/mnist.zarr", level=1)
    ...     published = publish(f"{folder}/mnist.zarr", "memory://published.zarr")
    >>> len(published.objects)
    29
    """
    origin = parse_target(store, source_options, "source_options")
    place = parse_target(target, storage_options)
    if public_url is not None:
        public_url = path_or_url(public_url)
    source = origin.open()
    if place.changes_under(source):
        raise StoreError(f"{place.name}: is the store to publish itself; choose another target")
    version = origin.identity()
    documents, attrs, inventory = _inspect(origin, source)
    url = shown_url(public_url or place.name)
    beside = [key for key in place.beside if page or key != PAGE]
    n_sent = inventory.n_promised + len(documents)
    # All of them are read back, and so are the card and the page.
    total = 2 * n_sent + len(beside)
    with progress_bar(f"publishing {url}", total, " objects", progress) as bar:
        with place.create(overwrite=overwrite, immutable=immutable) as fresh:
            objects = _send(source, inventory.promised(), documents, fresh, bar)
            card = json.dumps(make_card(url, attrs, objects), indent=1, ensure_ascii=False)
            made = {CARD: card.encode(), PAGE: make_page()}
            for key in beside:
                data = made[key]
                objects[key] = _summarize(data)
                sync(fresh.set(key, as_buffer(data)))
            if origin.identity() != version:
                raise StoreReplacedError(
                    f"{origin.name}: the store was replaced while it was being copied; publish it "
                    "again"
                )
        public = parse_target(public_url) if public_url else place
        if public_url:
            _check_is_public_url(public, url, place.name, objects)
        _compare(public.open(), url, objects, bar)
    return Publication(url, dict(sorted(objects.items())), cors_rule(place.name))


def _inspect(
    origin: Place, source: Store
) -> tuple[dict[str, Buffer], Mapping[str, Any], Inventory]:
    """Return the metadata documents, the root attributes and the inventory of a store."""
    root = read_root(source)
    if root.keys().isdisjoint(METADATA_NAMES):
        raise origin.not_found(source)
    with name_failures(origin.name, "opened as a Zarr store"):
        documents = read_documents(source, root)
        group = open_documents(documents)
        inventory = take_inventory(arrays_in(group), source, Promises(root))
    if missing := inventory.describe_missing():
        raise StoreError(f"{origin.name}: is not whole: it lacks {missing}")
    check_links(source, itertools.chain(documents, inventory.promised()))
    return documents, group.attrs.asdict(), inventory


def _send(
    source: Store,
    chunks: Iterable[str],
    documents: Mapping[str, Buffer],
    fresh: Store,
    bar: tqdm[Any],
) -> dict[str, StoredObject]:
    """Copy objects; return the size and hash of each."""
    sent: dict[str, StoredObject] = {}

    def send(key: str) -> None:
        value = documents[key] if key in documents else read_object(source, key)
        sent[key] = _summarize(value.to_bytes())
        sync(fresh.set(key, value))
        _count(bar)

    run_on_objects(send, itertools.chain(chunks, documents))
    return sent


def _check_is_public_url(
    public: Place, url: str, target: str, sent: Mapping[str, StoredObject]
) -> None:
    """Check that the root document that was sent is at the URL that readers use."""
    try:
        root = read_root(public.open())
        reason = "another store is there" if root else "there is no Zarr store"
    except StoreNotFoundError:
        root, reason = {}, "there is no Zarr store"
    except StoreError as error:
        root, reason = {}, str(error)
    if not root or any(_summarize(root[key].to_bytes()) != sent.get(key) for key in root):
        raise StoreError(
            f"{url}: readers do not get the store, which is whole at {target}: {reason}; is this "
            "`public_url` the URL of that place, and may everybody read it?"
        )


def _compare(reader: Store, url: str, sent: Mapping[str, StoredObject], bar: tqdm[Any]) -> None:
    """Check that readers get what was sent."""
    different: list[str] = []

    def fetch(key: str) -> None:
        if _summarize(read_object(reader, key).to_bytes()) != sent[key]:
            different.append(key)
        _count(bar)

    run_on_objects(fetch, sent)
    if different:
        raise StoreError(
            f"{url}: {len(different):,} of {len(sent):,} objects differ from what was sent, such "
            f"as {min(different)!r}; does a cache hold an old copy?"
        )


def _count(bar: tqdm[Any]) -> None:
    with bar.get_lock():  # threads that add at the same time would lose some
        bar.update()


def _summarize(data: bytes) -> StoredObject:
    return StoredObject(len(data), hashlib.sha256(data).hexdigest())
