"""Draw the pictures of a store's layout, and take the picture of the page.

    python -m docs.tools.draw

Writes docs/images/store.png, orders.png and shuffle.png from MNIST as it is stored by default,
and, with Chromium and Playwright, page.png.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import zarr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import mnist_zarr
from benchmarks.training import draw_shuffles
from benchmarks.web import serve
from mnist_zarr.hosting.page import make_page
from tests.support.browser import Tab, running_browser

IMAGES = Path(__file__).parent.parent / "images"
DIGIT = 7
COLORS = matplotlib.colormaps["tab10"].colors
PALE, READ, INK = "0.88", "0.2", "0.25"
ORDERS = {
    "source": 'order="source": as in the source files',
    "label": 'order="label": one class after the other',
    "shuffled": 'order="shuffled": at random, once',
}


def main() -> None:
    """Write the pictures."""
    draw_store().savefig(IMAGES / "store.png", dpi=110)
    with tempfile.TemporaryDirectory() as folder:
        for order in ORDERS:
            mnist_zarr.build(f"{folder}/{order}.zarr", order=order)
        draw_orders(Path(folder)).savefig(IMAGES / "orders.png", dpi=110)
        shuffles, _ = draw_shuffles(Path(folder))
        shuffles.savefig(IMAGES / "shuffle.png", dpi=80)
        (Path(folder) / "label.zarr").rename(Path(folder) / "mnist.zarr")
        photograph_page(Path(folder) / "mnist.zarr", IMAGES / "page.png")


def draw_orders(folder: Path) -> Figure:
    """Show the classes along each store, and the chunks that one digit needs."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(len(ORDERS), 1, sharex=True)
    for axes, (order, title) in zip(panels, ORDERS.items(), strict=True):
        label = mnist_zarr.open_store(folder / f"{order}.zarr").label.values
        chunk_samples = zarr.open_group(folder / f"{order}.zarr", mode="r")["image"].chunks[0]
        starts = range(0, len(label), chunk_samples)
        is_read = [DIGIT in label[start : start + chunk_samples] for start in starts]
        shown = label[:: len(label) // 1400]
        axes.imshow(
            shown[None],
            cmap="tab10",
            vmin=-0.5,
            vmax=9.5,
            aspect="auto",
            extent=(0, len(label), 0.45, 1),
            interpolation="nearest",
        )
        for start, read in zip(starts, is_read, strict=True):
            end = min(start + chunk_samples, len(label))
            axes.add_patch(
                Rectangle(
                    (start, 0),
                    end - start,
                    0.36,
                    facecolor=READ if read else PALE,
                    edgecolor="white",
                    linewidth=0.6,
                )
            )
        axes.set_title(
            f"{title}   |   .sel(label={DIGIT}) reads {sum(is_read)} of {len(is_read)} chunks",
            loc="left",
            fontsize="medium",
        )
        axes.set(ylim=(0, 1), yticks=(0.18, 0.72), yticklabels=("chunks", "labels"))
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    panels[-1].set_xlabel("sample")
    handles = [Rectangle((0, 0), 1, 1, color=COLORS[digit]) for digit in range(10)]
    figure.legend(
        [*handles, Rectangle((0, 0), 1, 1, color=READ), Rectangle((0, 0), 1, 1, color=PALE)],
        [*map(str, range(10)), "chunk that is read", "chunk that is not"],
        loc="outside lower center",
        ncols=12,
        frameon=False,
        fontsize="small",
        handlelength=1,
        handletextpad=0.4,
        columnspacing=1.1,
    )
    return figure


def draw_store() -> Figure:
    """Show which object of a store holds which part of which array."""
    figure = Figure(figsize=(9, 4.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 9), ylim=(0, 4.4))
    axes.axis("off")
    axes.text(0.3, 4.08, "the Dataset", weight="bold", color=INK)
    axes.text(6.0, 4.08, "the objects of the store", weight="bold", color=INK)

    _box(axes, 0.3, 3.42, 4.6, 0.4, "attributes: title, licence, SHA-256 of sources, ...", "0.95")
    _box(axes, 6.0, 3.42, 2.7, 0.4, "zarr.json  (written last)", "0.95")
    _arrow(axes, 3.62)

    axes.text(0.3, 3.1, "image (sample, row, col)", color=INK)
    for number in range(4):
        left = 0.3 + 1.15 * number
        name = f"chunk {number}" if number < 3 else "..."
        _box(axes, left, 2.3, 1.15, 0.66, name, COLORS[0] + (0.25,))
        key = f"image/c/{number}/0/0" if number < 3 else "..."
        _box(axes, 6.0, 2.78 - 0.26 * number, 2.7, 0.22, key, COLORS[0] + (0.25,))
    _arrow(axes, 2.6)
    axes.text(5.44, 2.33, "zstd +\nchecksum", fontsize="x-small", ha="center", va="top", color=INK)

    for place, name in enumerate(("label", "split", "source_index")):
        bottom = 1.42 - 0.52 * place
        color = COLORS[place + 1] + (0.25,)
        axes.text(0.3, bottom + 0.27, f"{name} (sample)", color=INK)
        _box(axes, 0.3, bottom, 4.6, 0.2, "", color)
        _box(axes, 6.0, bottom, 2.7, 0.22, f"{name}/c/0", color)
        _arrow(axes, bottom + 0.1)
    axes.annotate(
        "", (4.9, 0.16), (0.3, 0.16), arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.8}
    )
    axes.text(2.6, 0.2, "sample", ha="center", fontsize="small", color=INK)
    return figure


def _box(
    axes: Any, left: float, bottom: float, width: float, height: float, text: str, color: Any
) -> None:
    axes.add_patch(
        Rectangle((left, bottom), width, height, facecolor=color, edgecolor="0.5", linewidth=0.8)
    )
    size = "small" if height > 0.3 else "x-small"
    axes.text(
        left + width / 2,
        bottom + height / 2,
        text,
        ha="center",
        va="center",
        fontsize=size,
        color=INK,
    )


def _arrow(axes: Any, height: float) -> None:
    axes.annotate("", (5.9, height), (5.0, height), arrowprops={"arrowstyle": "->", "color": INK})


def photograph_page(store: Path, picture: Path) -> None:
    """Take a picture of the page that shows a store, as a web server gives it."""
    (store / "index.html").write_bytes(make_page(f"https://example.org/{store.name}"))
    with serve(store.parent) as (address, _), running_browser() as browser:
        tab = Tab(browser, viewport={"width": 1240, "height": 760})
        tab.open(f"{address}/{store.name}/index.html")
        tab.page.wait_for_timeout(1000)  # more samples arrive
        data = tab.page.screenshot()
        tab.close()
    Image.open(io.BytesIO(data)).quantize().save(picture, optimize=True)


if __name__ == "__main__":
    main()
