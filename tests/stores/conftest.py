"""How the asynchronous tests of Zarr's own suite are run."""

from __future__ import annotations

import inspect

import pytest

from mnist_zarr.stores.keys import sync


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine on the event loop of Zarr, where stores run in real use too."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    sync(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
