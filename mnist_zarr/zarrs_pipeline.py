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

from mnist_zarr.errors import StoreError

if TYPE_CHECKING or importlib.util.find_spec("zarrs"):
    from zarrs import ZarrsCodecPipeline
else:
    ZarrsCodecPipeline = None


def fast_pipeline(store: Store) -> dict[str, str]:
    """Return the Zarr configuration under which arrays of a store are decoded by zarrs.

    Empty where zarrs is not installed, or the store is not one whose every
    codec it knows: a local one of format 3.
    """
    if ZarrsCodecPipeline is None or not isinstance(store, LocalStore):
        return {}
    if not (store.root / "zarr.json").exists():
        return {}
    return {"codec_pipeline.path": f"{__name__}.CheckedZarrsPipeline"}


if ZarrsCodecPipeline is not None:

    class CheckedZarrsPipeline(ZarrsCodecPipeline):
        """zarrs' codecs; a chunk that is missing is an error."""

        async def read(
            self, batch_info: Iterable[tuple[Any, ...]], out: Any, drop_axes: tuple[int, ...] = ()
        ) -> Any:
            """Read chunks into ``out``.

            Raises
            ------
            StoreError
                If one is missing.
            """
            chunks = list(batch_info)
            for chunk, *_ in chunks:
                if isinstance(chunk.store, LocalStore):
                    path = chunk.store.root / chunk.path
                    if not path.exists():
                        raise StoreError(
                            f"{path}: this chunk is missing; the store is damaged: build it again"
                        )
            await super().read(chunks, out, drop_axes)
            return [{"status": "present"}] * len(chunks)  # zarr 3.2 and later ask for it

    register_pipeline(CheckedZarrsPipeline)
