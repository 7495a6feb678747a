"""Checks of options that are whole numbers: Python's or NumPy's."""

from __future__ import annotations

import numbers
from typing import TypeGuard

from mnist_zarr.errors import OptionError


def is_whole(value: object) -> TypeGuard[int]:
    """Whether this is an integer, and no truth value."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def whole_number(name: str, value: object, least: int) -> int:
    """Return a whole number as Python's: JSON holds none of NumPy.

    Parameters
    ----------
    name : str
        What the message calls it.
    value : object
        What the caller gave.
    least : int
        The lowest that is taken.

    Raises
    ------
    OptionError
        If it is something else or less.

    Examples
    --------
    >>> import numpy as np
    >>> whole_number("`size`", np.int64(3), least=1)
    3
    """
    if not is_whole(value) or value < least:
        raise OptionError(f"{name}: expected a whole number of {least} or more, got {value!r}")
    return int(value)
