"""Decoding chunks with zarrs, a Zarr implementation in Rust: the extra ``fast``.

zarrs fills the place of a chunk that is missing with zeros, silently. Here that
is an error, and so a damaged store does not pass for one of black pictures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.registry import register_pipeline
from zarr.storage import LocalStore

from mnist_zarr.local_pipeline import ChunkInfo, ThreadedPipeline, check_present

if TYPE_CHECKING or importlib.util.find_spec("zarrs"):
    from zarrs import ZarrsCodecPipeline
else:
    ZarrsCodecPipeline = None


def fast_pipeline(store: Store) -> dict[str, str]:
    """Return the Zarr configuration under which arrays of a store are decoded.

    Empty for stores that are not local; by zarrs only in format 3, of which it
    knows every codec.
    """
    if not isinstance(store, LocalStore):
        return {}
    if ZarrsCodecPipeline is not None and (store.root / "zarr.json").exists():
        return {"codec_pipeline.path": f"{__name__}.CheckedZarrsPipeline"}
    return {"codec_pipeline.path": f"{ThreadedPipeline.__module__}.{ThreadedPipeline.__name__}"}


if ZarrsCodecPipeline is not None:

    class CheckedZarrsPipeline(ZarrsCodecPipeline):
        """zarrs' codecs; a chunk that is missing is an error."""

        async def read(
            self, batch_info: Iterable[ChunkInfo], out: Any, drop_axes: tuple[int, ...] = ()
        ) -> Any:
            """Read chunks into ``out``.

            Raises
            ------
            StoreError
                If one is missing.
            """
            chunks = list(batch_info)
            check_present(chunks)
            await super().read(chunks, out, drop_axes)
            return [{"status": "present"}] * len(chunks)  # zarr 3.2 and later ask for it

    register_pipeline(CheckedZarrsPipeline)
