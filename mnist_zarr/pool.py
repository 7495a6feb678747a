"""Where tasks run: threads of this process, or the workers of a dask cluster."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from distributed import Client


T = TypeVar("T")
OnResult = Callable[[Any], object]

PREFETCH_THREAD = "mnist_zarr-prefetch"
# How often a task is retried elsewhere if its worker dies.
RETRIES = 5
# How long to wait for running tasks when the others are cancelled.
PATIENCE_SECONDS = 10


class Pool:
    """Runs tasks on an executor, a bounded number at a time, and raises their errors.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        What runs them; of a :class:`ClusterPool` the client of a cluster.
    max_pending : int
        How many tasks may run or wait.
    on_result : callable, optional
        Called with what each task returns.

    Attributes
    ----------
    on_cluster : bool
        Whether tasks run in other processes.
    """

    on_cluster = False

    def __init__(
        self, executor: Executor | Client, max_pending: int, on_result: OnResult | None = None
    ) -> None:
        self._executor: Any = executor
        self._max_pending = max_pending
        self._on_result = on_result
        self._pending: set[Any] = set()

    def submit(self, task: Callable[..., object], *args: Any) -> None:
        """Submit ``task(*args)``; block while too many tasks are pending."""
        while len(self._pending) >= self._max_pending:
            done, self._pending = self._wait_for_one()
            for future in done:
                self._take_result(future)
        self._pending.add(self._begin(task, *args))

    def finish(self) -> None:
        """Wait for all tasks."""
        while self._pending:
            self._take_result(self._pending.pop())

    def _take_result(self, future: Any) -> None:
        result = future.result()
        if self._on_result:
            self._on_result(result)

    def cancel(self) -> None:
        """Cancel pending tasks; wait for running ones."""
        begun = [future for future in self._pending if not future.cancel()]
        wait(begun, timeout=PATIENCE_SECONDS)
        self._pending.clear()

    def _begin(self, task: Callable[..., object], *args: Any) -> Any:
        return self._executor.submit(task, *args)

    def _wait_for_one(self) -> tuple[set[Any], set[Any]]:
        done, pending = wait(self._pending, return_when=FIRST_COMPLETED)
        return done, pending


class ClusterPool(Pool):
    """The same on the workers of a cluster.

    Does not use the client's own executor, which fails if a worker dies after finishing a task
    and before reporting it.
    """

    on_cluster = True

    def cancel(self) -> None:
        """Cancel all tasks. Running ones continue; nobody waits for them."""
        self._executor.cancel(list(self._pending))
        self._pending.clear()

    def _begin(self, task: Callable[..., object], *args: Any) -> Any:
        # A pure task would be named by a hash of its arguments, for which dask would read lazy
        # ones in this process.
        return self._executor.submit(task, *args, retries=RETRIES, pure=False)

    def _wait_for_one(self) -> tuple[set[Any], set[Any]]:
        distributed: Any = sys.modules["distributed"]
        done, pending = distributed.wait(self._pending, return_when="FIRST_COMPLETED")
        return done, pending


@contextlib.contextmanager
def open_pool(
    waiting_tasks: int,
    client: Client | None = None,
    *,
    n_threads: int | None = None,
    on_result: OnResult | None = None,
) -> Iterator[Pool]:
    """Open a pool on the cluster of ``client``, or on threads.

    Parameters
    ----------
    waiting_tasks : int
        How many tasks may wait, in addition to those running.
    client : distributed.Client, optional
        A client of the cluster to run on.
    n_threads : int, optional
        Number of threads without a cluster; one per core by default.
    on_result : callable, optional
        Called in this process with what each task returns.
    """
    if client is None:
        n_threads = n_threads or os.cpu_count() or 1
        with ThreadPoolExecutor(n_threads) as threads:
            yield from _run(Pool(threads, n_threads + waiting_tasks, on_result))
    else:
        n_threads = sum(cast(Any, client).nthreads().values()) or 1
        yield from _run(ClusterPool(client, n_threads + waiting_tasks, on_result))


def _run(pool: Pool) -> Iterator[Pool]:
    try:
        yield pool
        pool.finish()
    finally:
        pool.cancel()


def active_client() -> Client | None:
    """Return the default dask client of this process, if there is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:  # not imported, so there is no client
        return None
    try:
        client: Client = distributed.default_client()
    except ValueError:
        return None
    return client


def prefetch(
    items: Iterator[T], max_bytes: int, size_of: Callable[[T], int]
) -> Generator[T, None, None]:
    """Yield the items, which a thread makes ahead.

    Parameters
    ----------
    items : iterator
        Its error is raised after the items before it.
    max_bytes : int
        How much of them may be ready, if that is more than one.
    size_of : callable
        Returns the size of an item.

    Examples
    --------
    >>> list(prefetch(iter([b"one", b"two"]), 1000, len))
    [b'one', b'two']
    """
    ahead = _Ahead(items, max_bytes, size_of)
    thread = threading.Thread(target=ahead.make, name=PREFETCH_THREAD, daemon=True)
    thread.start()
    try:
        yield from ahead.take()
    finally:
        ahead.stop()
        thread.join()


class _Ahead:
    """Items that one thread makes and another takes."""

    def __init__(self, items: Iterator[Any], max_bytes: int, size_of: Callable[[Any], int]) -> None:
        self._items = items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._ready: deque[Any] = deque()
        self._ready_bytes = 0
        self._is_over = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def make(self) -> None:
        """Make items until there are no more, or nobody wants them."""
        try:
            for item in self._items:
                size = self._size_of(item)
                with self._changed:
                    while not (self._is_over or self._has_room(size)):
                        self._changed.wait()
                    if self._is_over:
                        return
                    self._ready.append(item)
                    self._ready_bytes += size
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, it belongs to who takes the items
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return len(self._ready) < 2 or self._ready_bytes + size <= self._max_bytes

    def take(self) -> Iterator[Any]:
        """Yield the items."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._is_over)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._ready_bytes -= self._size_of(item)
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let the thread end."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
