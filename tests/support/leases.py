"""Leases that last a second, so that tests need not wait for builds that are dead."""

from __future__ import annotations

from collections.abc import Callable

from mnist_zarr.stores import lease

QUICK = {
    "LEASE_SECONDS": 1.2,
    "RENEW_SECONDS": 0.3,
    "TRUST_SECONDS": 0.6,
    "COPY_TRUST_SECONDS": 0.1,
    "LOOK_SECONDS": 0.1,
}


def make_quick(set_: Callable[[object, str, float], object] = setattr) -> None:
    """Shorten the times of :mod:`mnist_zarr.stores.lease` in this process."""
    for name, seconds in QUICK.items():
        set_(lease, name, seconds)
