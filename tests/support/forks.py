"""Calls in a forked process, with a time limit."""

from __future__ import annotations

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable
from typing import Any

SECONDS = 15


def in_fork(function: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Return what the function returns in a forked child of this process.

    Raises
    ------
    TimeoutError
        If it takes longer, as if it waits for a thread that only the parent has.
    RuntimeError
        That says what the function raises.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn that threads are not there in the child: that is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _answer(function, writing)
    os.close(writing)
    answer = b""
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while select.select([pipe], [], [], seconds)[0]:
                part = pipe.read(1 << 16)
                if not part:
                    break
                answer += part
            else:
                raise TimeoutError(f"the child has not answered within {seconds} s")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    is_error, value = pickle.loads(answer)
    if is_error:
        raise value
    return value


def _answer(function: Callable[[], Any], writing: int) -> None:
    try:
        try:
            answer = pickle.dumps((False, function()))
        except BaseException as error:  # all of it belongs to the parent
            answer = pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}")))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
