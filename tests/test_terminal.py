"""Progress bars: what they say and count, and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mnist_zarr.terminal import progress_bar, sample_bar
from mnist_zarr.writing.plan import Order
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits


def counts(shown: str) -> tuple[str, str]:
    """What a bar has counted in the end, and of how many."""
    done, total = re.findall(r"([\d.]+[kM]?)/([\d.]+[kM]?) ", shown)[-1]
    return done, total


def test_a_bar_is_silent_off_a_terminal_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for progress in (None, False):
        with progress_bar("writing x.zarr", 3, " samples", progress) as bar:
            bar.update(3)
    assert capsys.readouterr() == ("", "")
    with progress_bar("writing x.zarr", 3, " samples", True) as bar:
        bar.update(3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "writing x.zarr: 100%" in shown.err
    assert counts(shown.err) == ("3", "3")


@pytest.mark.parametrize("n_samples", [7, 70_000])
def test_samples_of_several_variables_are_counted_once(
    n_samples: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"image": 784, "label": 1, "split": 16}
    with sample_bar("verifying x.zarr", n_samples, sizes, progress=True) as advance:
        for name in sizes:
            for _ in range(7):
                advance(name, n_samples // 7)
        advance("of which nobody spoke", 1_000_000)
    done, total = counts(capsys.readouterr().err)
    assert done == total == ("7" if n_samples == 7 else "70.0k")


def test_a_label_can_neither_fill_the_line_nor_control_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar(f"writing {'x' * 500}\x1b[2J/mnist.zarr", 1, " samples", True):
        pass
    label = capsys.readouterr().err.strip().split(": ")[0]
    assert len(label) == 40
    assert label.startswith("writing xxx")
    assert label.endswith("\\x1b[2J/mnist.zarr")


@pytest.mark.parametrize("order", ["source", "label"])
@pytest.mark.parametrize("is_dask", [True, False])
def test_a_store_is_written_when_the_bar_has_counted_all_samples(
    order: Order, is_dask: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ds = digits(60)
    write_zarr(
        ds.chunk(sample=7) if is_dask else ds,
        tmp_path / "d.zarr",
        order=order,
        chunk_bytes=120,
        progress=True,
    )
    shown = capsys.readouterr().err
    assert counts(shown) == ("60", "60")
    assert "writing" in shown
