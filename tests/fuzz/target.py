"""What a fuzz target is, and a run of one that is driven by a seed."""

from __future__ import annotations

import itertools
import random
import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mnist_zarr.errors import MnistZarrError

CORPUS = Path(__file__).parent / "corpus"
BASE_BYTES = 6 << 20
# What is decoded at once, or less where there is less.
MAX_STEP_BYTES = 8 << 20
BASE_SECONDS = 2.0
BYTES_A_SECOND = 1 << 20

# To trace memory takes three quarters of the time.
MEASURE_MEMORY_EVERY = 7
_turns = itertools.count()

T = TypeVar("T")
Havoc = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """One reader under test.

    Attributes
    ----------
    name : str
        Also the name of its folder of the corpus.
    seeds : function
        Returns the inputs to start from.
    mutate : function
        Makes another input of one; damages bytes with the Havoc that it is given.
    check : function
        Raises AssertionError if the reader does wrong with the input. Gets a folder
        to write the input to.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random, Havoc], bytes]
    check: Callable[[bytes, Path], None]

    def corpus(self) -> list[Path]:
        """Return the files of inputs that once were trouble."""
        return sorted((CORPUS / self.name).iterdir())


def explore(target: Target, *, runs: int, seed: int) -> Iterator[bytes]:
    """Yield inputs, each a mutation of a seed or of an earlier input."""
    rng = random.Random(seed)
    fixed = target.seeds() + [path.read_bytes() for path in target.corpus()]
    pool = list(fixed)
    for _ in range(runs):
        data = target.mutate(rng.choice(pool), rng, havoc)
        yield data
        if len(pool) < 4 * len(fixed):
            pool.append(data)
        else:
            pool[rng.randrange(len(fixed), len(pool))] = data


def result_within_limits(
    work: Callable[[], T], *, input_bytes: int, decoded_bytes: int
) -> T | MnistZarrError:
    """Do the work; return what comes out, an error of ours included.

    Raises
    ------
    AssertionError
        If the work warned, or took more time or memory than input and decoded bytes explain.
    Exception
        Any other error of the work, as it is.
    """
    is_measured = next(_turns) % MEASURE_MEMORY_EVERY == 0
    if is_measured:
        tracemalloc.start()
    started = time.thread_time()
    result: T | MnistZarrError
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = work()
    except MnistZarrError as error:
        result = error.with_traceback(None)
    finally:
        seconds = time.thread_time() - started
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert not warned, f"warned: {warned[0].message}"
    step = min(decoded_bytes, MAX_STEP_BYTES)
    most = BASE_BYTES + 3 * input_bytes + decoded_bytes * 5 // 4 + step
    assert used <= most, f"memory: {used:,} bytes, explained are {most:,}"
    most_seconds = BASE_SECONDS + (input_bytes + decoded_bytes) / BYTES_A_SECOND
    assert seconds <= most_seconds, f"time: {seconds:.1f} s, explained are {most_seconds:.1f} s"
    return result


# -- damage of any bytes -----------------------------------------------------------------

SIZES = (0, 1, 2, 3, 4, 7, 8, 28, 100, 255, 256, 784, 1000, 65535, 65536, 2**24, 2**31 - 1)
EDGES = (*SIZES, 2**31, 2**32 - 2, 2**32 - 1)
MAX_INPUT_BYTES = 1 << 14


def havoc(data: bytes, rng: random.Random) -> bytes:
    """Damage some bytes, as libFuzzer would."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(DAMAGES)(damaged, rng)
    return bytes(damaged[:MAX_INPUT_BYTES])


def likely_small(rng: random.Random) -> int:
    """Return how many bytes of data may be made: many cost time, few find little."""
    return rng.choices((2_000, 50_000, 20_000_000), (90, 10, 0.3))[0]


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _insert(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 1, 2, 4, 30)))


def _delete(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 1, 2, 4, 30, len(data)))]


def _copy(data: bytearray, rng: random.Random) -> None:
    start, place = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    data[place:place] = data[start : start + rng.randrange(1, 100)]


def _set_integer(data: bytearray, rng: random.Random) -> None:
    kind = rng.choice(("<H", ">H", "<I", ">I", "<Q"))
    size = struct.calcsize(kind)
    if len(data) >= size:
        value = rng.choice(EDGES) % 256**size
        struct.pack_into(kind, data, rng.randrange(len(data) - size + 1), value)


DAMAGES: Sequence[Callable[[bytearray, random.Random], None]] = (
    _flip,
    _set,
    _insert,
    _delete,
    _copy,
    _set_integer,
)
