"""A dask cluster of processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.partners import partner


@contextmanager
def cluster_of_processes() -> Iterator[tuple[Any, Any]]:
    """Yield a cluster of two workers of one thread each, and a client of it.

    The client is not the default one: what shall run locally must not find it.
    """
    distributed = partner("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client
