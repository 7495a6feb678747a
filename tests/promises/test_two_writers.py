"""Two builds of one target in a bucket, of which one is killed or halted: no reader sees a mix.

Each build goes through a proxy of its own. When the first one has sent a random number of packets
it is killed, and the last packet arrives later; or it is halted, and goes on when the second one
has ended. The second one tries again until it gets the place.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mnist_zarr.errors import StoreError, TargetBusyError
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing.writer import write_zarr
from tests.support.clouds import (
    CONTAINER,
    GOOGLE_ENVIRONMENT,
    azure_options,
    google_options,
    running_azure,
    running_google,
)
from tests.support.digits import square_digits
from tests.support.forkserver import FORKS
from tests.support.leases import QUICK, make_quick
from tests.support.object_server import BUCKET, S3Server
from tests.support.proxy import Proxy

os.environ.update(GOOGLE_ENVIRONMENT)  # which gcsfs looks at when it is imported
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two writers")]

N_SAMPLES, CHUNK_BYTES = 100, 160
OLD, FIRST, SECOND = 0, 1, 2  # seeds
N_ROUNDS = {"s3": 16, "az": 10, "gs": 10}
SECONDS_TO_FINISH = 60


@dataclass(frozen=True)
class Cloud:
    protocol: str
    bucket: str
    port: int
    options: Callable[[int], dict[str, Any]]


@pytest.fixture(params=list(N_ROUNDS))
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")

        def options(port: int) -> dict[str, Any]:
            return {**s3.options, "endpoint_url": f"http://127.0.0.1:{port}"}

        yield Cloud("s3", BUCKET, s3.port, options)
    elif request.param == "az":
        azurite: Path = request.getfixturevalue("azurite")
        with running_azure(azurite) as port:
            yield Cloud("az", CONTAINER, port, azure_options)
    else:
        with running_google() as port:
            yield Cloud("gs", CONTAINER, port, google_options)


def samples(seed: int) -> xr.Dataset:
    return square_digits(N_SAMPLES, seed)


def which(ds: xr.Dataset) -> str:
    """Return which source a store has, all of whose values are compared."""
    for name, seed in (("old", OLD), ("first", FIRST), ("second", SECOND)):
        if ds.equals(samples(seed)):
            return name
    return "a mix"


def build(
    url: str, options: dict[str, Any], seed: int, overwrite: bool, tries: bool, says: Connection
) -> None:
    """Build, if need be again and again, and say how it ended."""
    make_quick()
    outcome, until = "", time.monotonic() + SECONDS_TO_FINISH
    while not outcome:
        try:
            write_zarr(
                samples(seed),
                url,
                chunk_bytes=CHUNK_BYTES,
                overwrite=overwrite,
                storage_options=options,
            )
            outcome = "done"
        except StoreError as error:
            if not tries or not isinstance(error, TargetBusyError) or time.monotonic() > until:
                outcome = f"{type(error).__name__}: {error}"
    says.send(outcome)
    os._exit(0)  # adlfs complains of zarr-python's event loop when Python exits


def poll(url: str, options: dict[str, Any], plainly: bool, asked: Connection) -> None:
    """Open the store again and again until asked what was there; say also what is there then."""
    seen: Counter[str] = Counter()
    # xarray looks for consolidated metadata first, and the store may appear after that.
    warnings.simplefilter("ignore", RuntimeWarning)
    while not asked.poll(0.01):
        try:
            if plainly:
                ds = xr.open_zarr(url, storage_options=options, chunks=None).load()
            else:
                ds = open_store(url, storage_options=options, chunks=None).load()
            seen[which(ds)] += 1
        except FileNotFoundError:
            seen["nothing"] += 1
        except StoreError as error:  # replaced, or gone, while it was read
            seen[type(error).__name__] += 1
        except Exception as error:
            seen[f"{type(error).__name__}: {error}"] += 1
    is_whole = verify(url, storage_options=options).is_whole
    found = which(xr.open_zarr(url, storage_options=options, chunks=None).load())
    asked.send((seen, is_whole, found))
    os._exit(0)


class Child:
    """A process, and the other end of its pipe."""

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        self.pipe, theirs = FORKS.Pipe()
        self.process = FORKS.Process(target=function, args=(*args, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def says(self) -> Any:
        """Wait for what it says; "killed" if it is dead."""
        try:
            assert self.pipe.poll(2 * SECONDS_TO_FINISH), "is too slow"
            said = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            said = "killed"
        self.process.join(60)
        return said


def race(cloud: Cloud, number: int, overwrite: bool, how: str, random: Any) -> list[str]:
    """Let two builds run; return how they ended, and which one is there."""
    url, options = f"{cloud.protocol}://{cloud.bucket}/{number}.zarr", cloud.options(cloud.port)
    if overwrite:
        assert Child(build, url, options, OLD, False, False).says() == "done"
    moment = int(random.integers(3, 40))
    delay = float(random.uniform(0, 2 * QUICK["LEASE_SECONDS"]))
    has_begun = threading.Event()

    def strike(n_packets: int) -> None:
        has_begun.set()
        if n_packets != moment:
            return
        pid = first.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        time.sleep(delay if how == "killed" else 0)

    proxies = Proxy(cloud.port, strike), Proxy(cloud.port, lambda n: None)
    reader = Child(poll, url, options, not overwrite)
    first = Child(build, url, cloud.options(proxies[0].port), FIRST, overwrite, False)
    assert has_begun.wait(SECONDS_TO_FINISH)
    time.sleep(random.uniform(0, 0.2))
    second = Child(build, url, cloud.options(proxies[1].port), SECOND, overwrite, True)
    said_by_second = second.says()
    while not first.pipe.poll(0.2):  # it may be halted only now
        os.kill(first.process.pid or 0, signal.SIGCONT)
    ended = [first.says(), said_by_second]
    for proxy in proxies:
        proxy.close()
    reader.pipe.send(None)
    seen, is_whole, found = reader.says()
    error_names = {"nothing"} if not overwrite else {"nothing", "StoreReplacedError", "StoreError"}
    assert set(seen) <= {"old", "first", "second", *error_names}, (ended, seen)
    assert is_whole, ended
    return [*ended, found]


@pytest.mark.parametrize("how", ["killed", "halted"])
def test_of_two_builds_only_one_is_ever_seen(cloud: Cloud, how: str) -> None:
    random = np.random.default_rng(list(f"{cloud.protocol} {how}".encode()))
    outcomes: Counter[tuple[str, ...]] = Counter()
    for number in range(N_ROUNDS[cloud.protocol] // 2):
        overwrite = number % 3 == 2
        ended = race(cloud, number, overwrite, how, random)
        first, second, found = (said.partition(":")[0] for said in ended)
        outcomes[first, second, found] += 1
        # The place is never left to nobody, and is whose build says so; the later one wins.
        assert first in ("done", "killed", "TargetBusyError", "TargetExistsError"), ended
        assert second in ("done", "TargetExistsError"), ended
        assert found == ("second" if second == "done" else "first"), ended
    # Many of the first builds do not get far, and the second ones take over.
    taken_over = sum(n for (first, _, _), n in outcomes.items() if first != "done")
    assert taken_over >= outcomes.total() // 4
