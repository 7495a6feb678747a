"""Decoding chunks with zarrs, a Zarr implementation in Rust: the extra ``fast``.

zarrs reads the files itself, and fills the place of a chunk that is missing with zeros.
So what a :class:`~mnist_zarr.snapshot.LocalSnapshot` checks after a read is checked here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.store import Store
from zarr.core.metadata import ArrayMetadata
from zarr.registry import register_pipeline
from zarr.storage import LocalStore

from mnist_zarr.local_pipeline import ChunkInfo, ThreadedPipeline
from mnist_zarr.snapshot import LocalSnapshot

if TYPE_CHECKING or importlib.util.find_spec("zarrs"):
    from zarrs import ZarrsCodecPipeline
else:
    ZarrsCodecPipeline = None


def fast_pipeline(store: Store) -> dict[str, str]:
    """Return the Zarr configuration under which arrays of a store are decoded.

    Empty for stores that are not local; by zarrs only in format 3, of which it
    knows every codec.
    """
    if not isinstance(store, LocalSnapshot):
        return {}
    if ZarrsCodecPipeline is not None and (store.root / "zarr.json").exists():
        return {"codec_pipeline.path": f"{__name__}.CheckedZarrsPipeline"}
    return {"codec_pipeline.path": f"{ThreadedPipeline.__module__}.{ThreadedPipeline.__name__}"}


if ZarrsCodecPipeline is not None:

    class CheckedZarrsPipeline(ZarrsCodecPipeline):
        """zarrs' codecs; a chunk that is missing, or of another version, is an error."""

        @classmethod
        def from_array_metadata_and_store(cls, array_metadata: ArrayMetadata, store: Store) -> Self:
            # zarrs knows stores by the name of their class.
            plain = LocalStore(store.root) if isinstance(store, LocalSnapshot) else store
            pipeline: Self = super().from_array_metadata_and_store(array_metadata, plain)
            return pipeline

        async def read(
            self, batch_info: Iterable[ChunkInfo], out: Any, drop_axes: tuple[int, ...] = ()
        ) -> Any:
            """Read chunks into ``out``.

            Raises
            ------
            StoreReplacedError
                If another version of the store has taken its place.
            StoreError
                If a chunk is missing.
            """
            chunks = list(batch_info)
            await super().read(chunks, out, drop_axes)
            for chunk, *_ in chunks:
                if isinstance(snapshot := chunk.store, LocalSnapshot):
                    is_there = (snapshot.root / chunk.path).exists()
                    snapshot.check_read(chunk.path, is_there=is_there)
            return [{"status": "present"}] * len(chunks)  # zarr 3.2 and later ask for it

    register_pipeline(CheckedZarrsPipeline)
