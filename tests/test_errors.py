"""The tree of errors: what a caller can catch."""

from __future__ import annotations

import builtins
import inspect
import pickle
import re

import pytest

from mnist_zarr import errors
from mnist_zarr.errors import MnistZarrError, SelectionError

CLASSES: list[type[MnistZarrError]] = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, MnistZarrError)
]
TREE_LINE = re.compile(
    r"^ {4}(?P<branch>[│ ]*(?:[├└]── )?)(?P<name>[A-Z]\w+)(?: +\((?P<builtin>[A-Z]\w+)\))?"
)


def tree_of_docstring() -> dict[str, tuple[str | None, str | None]]:
    """Return parent and built-in of each class that the docstring draws."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := TREE_LINE.match(line):
            depth = len(match["branch"]) // 4
            del above[depth:]
            tree[match["name"]] = (above[-1] if above else None, match["builtin"])
            above.append(match["name"])
    return tree


def test_the_docstring_draws_every_class_and_no_other() -> None:
    assert set(tree_of_docstring()) == {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize("name", list(tree_of_docstring()))
def test_a_class_inherits_the_parent_and_the_built_in_that_the_docstring_draws(name: str) -> None:
    parent, builtin = tree_of_docstring()[name]
    bases = {base.__name__ for base in getattr(errors, name).__bases__}
    assert bases == ({parent or "Exception"} | ({builtin} if builtin else set()))
    assert builtin is None or issubclass(getattr(errors, name), getattr(builtins, builtin))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_pickling_with_its_class_and_message(cls: type[MnistZarrError]) -> None:
    back = pickle.loads(pickle.dumps(cls("a.idx: byte 0: wrong")))
    assert type(back) is cls
    assert str(back) == "a.idx: byte 0: wrong"
    assert back.args == ("a.idx: byte 0: wrong",)


@pytest.mark.parametrize("cls", CLASSES)
def test_no_error_quotes_its_message(cls: type[MnistZarrError]) -> None:
    assert str(cls("there is no class 'cat'")) == "there is no class 'cat'"


def test_a_selection_error_without_message_is_empty_text() -> None:
    assert str(SelectionError()) == ""
