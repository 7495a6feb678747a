"""The examples in the docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mnist_zarr
from tests.support.partners import partner

# Modules that need an extra: its only package.
NEEDED = {"mnist_zarr.torch": "torch"}
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(mnist_zarr.__path__, "mnist_zarr.")
    if name != "mnist_zarr.__main__"  # runs the command when it is imported
]


@pytest.mark.parametrize("name", ["mnist_zarr", *MODULES])
def test_the_examples_of_a_module_run(name: str) -> None:
    if name in NEEDED:
        partner(NEEDED[name], extra=NEEDED[name])
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES if name not in NEEDED]
    examples = [e for m in modules for test in finder.find(m) for e in test.examples]
    assert len(examples) > 20
