"""Peak resident memory of building and verifying does not grow with the data.

The small sibling of ``python -m benchmarks.out_of_core``, with its tools.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FEW, MANY = 100_000, 400_000
RAW_BYTES_OF_MANY = MANY * 784
# One byte for each of label, split and source_index.
COORDINATE_BYTES_PER_SAMPLE = 3
# ``source_index``, its order, and what sorting takes.
ORDER_BYTES_PER_SAMPLE = 25
# The benchmark, with twenty times the difference, allows 10 %; here the allocator's
# whims weigh more.
MAX_GROWTH = 1.15


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks.{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["raw", "gzip"])
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    places = []
    for n_samples in (FEW, MANY):
        folder = tmp_path_factory.mktemp(f"{request.param}-{n_samples}")
        places.append(
            load("digits").write_digits(folder, n_samples, packed=request.param == "gzip")
        )
    return places


@pytest.mark.parametrize("order", ["source", "label"])
def test_four_times_the_samples_build_in_the_same_memory(
    sources: list[Path], order: str, tmp_path: Path
) -> None:
    few, many = (
        load("memory")
        .measure_build(tmp_path / f"{place.parent.name}.zarr", place, order=order, level=1)
        .peak_bytes
        for place in sources
    )
    assert many < MAX_GROWTH * few + COORDINATE_BYTES_PER_SAMPLE * (MANY - FEW)
    assert many < RAW_BYTES_OF_MANY  # what holding the images would take at the least


@pytest.mark.parametrize("order", ["source", "label"])
def test_four_times_the_samples_are_verified_in_the_same_memory(order: str, tmp_path: Path) -> None:
    memory = load("memory")
    peaks = []
    for n_samples in (FEW, MANY):
        folder = tmp_path / str(n_samples)
        folder.mkdir()
        source = load("digits").write_digits(folder, n_samples, packed=False)
        memory.measure_build(folder / "d.zarr", source, order=order, level=1)
        peaks.append(memory.measure_verify(folder / "d.zarr").peak_bytes)
    few, many = peaks
    assert many < MAX_GROWTH * few + ORDER_BYTES_PER_SAMPLE * (MANY - FEW)
    assert many < RAW_BYTES_OF_MANY
