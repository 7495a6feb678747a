"""Packages that only some tests need.

Where one is missing, as in an environment of the core alone, those tests are skipped with
the reason; with ``pytest --strict-partners``, which CI gives where all are installed, they fail.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

STRICT_OPTION = "--strict-partners"
_is_strict = False


def set_strict(strict: bool) -> None:
    """Let a missing partner fail instead of skip."""
    global _is_strict
    _is_strict = strict


def is_strict() -> bool:
    """Whether a missing partner fails."""
    return _is_strict


def partner(name: str, *, extra: str = "test") -> Any:
    """Import a package, or skip the module or test that asks for it.

    Without PyTorch, which is too large for the extra ``test``, a test is always skipped.
    """
    if _is_strict and extra == "test":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"needs {name}, which the extra {extra!r} installs")
