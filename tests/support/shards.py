"""Shards whose chunks are damaged or removed, with an index that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mnist_zarr.stores.shard_index import decode_index, encode_index, index_bytes


def edit_shard(path: Path, n_chunks: int, edit: Callable[[dict[int, bytes]], object]) -> None:
    """Let ``edit`` change the encoded chunks of a shard, by number, and write it anew."""
    data = path.read_bytes()
    places = decode_index(data[-index_bytes(n_chunks) :], n_chunks)
    chunks = {n: data[p[0] : p[0] + p[1]] for n, p in enumerate(places) if p is not None}
    edit(chunks)
    written, index = b"", {}
    for number, chunk in chunks.items():
        index[number] = len(written), len(chunk)
        written += chunk
    path.write_bytes(written + encode_index(index, n_chunks))
