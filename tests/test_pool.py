"""Tasks on threads: how many wait, and what becomes of their errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mnist_zarr.pool import Pool, active_client, open_pool, prefetch


def test_submitting_waits_while_too_many_tasks_are_pending() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    with ThreadPoolExecutor(16) as threads:
        pool = Pool(threads, max_pending=3)
        for _ in range(60):
            pool.submit(task)
        pool.finish()
    assert most == 3


def test_leaving_the_pool_waits_for_every_task() -> None:
    done: list[int] = []
    with open_pool(waiting_tasks=100) as pool:
        for number in range(50):
            pool.submit(done.append, number)
    assert sorted(done) == list(range(50))


def test_an_error_of_a_task_is_raised_where_tasks_are_submitted() -> None:
    def fail() -> None:
        raise OSError("no space left")

    def submit_until_it_is_raised() -> None:
        with open_pool(waiting_tasks=1) as pool:
            pool.submit(fail)
            for _ in range(100):
                pool.submit(int)

    with pytest.raises(OSError, match="no space left"):
        submit_until_it_is_raised()


def test_an_error_of_the_last_task_is_raised_too() -> None:
    def submit_and_leave() -> None:
        with open_pool(waiting_tasks=1) as pool:
            pool.submit(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        submit_and_leave()


def test_without_a_cluster_there_is_no_client() -> None:
    assert active_client() is None


def test_items_are_made_ahead_as_far_as_there_is_room() -> None:
    made = []

    def items() -> Iterator[bytes]:
        for number in range(10):
            made.append(number)
            yield bytes(100)

    ahead = prefetch(items(), 350, len)
    assert next(ahead) == bytes(100)
    wait_until(lambda: len(made) == 5)  # one taken, three ready, one that waits for room
    time.sleep(0.05)
    assert len(made) == 5
    assert len(list(ahead)) == 9


def test_two_items_are_ready_however_large_they_are() -> None:
    ahead = prefetch(iter([bytes(100)] * 5), 1, len)
    assert len(list(ahead)) == 5


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
