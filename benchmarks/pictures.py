"""The picture of the benchmarks, drawn from results.json."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks import building, selecting

OURS, THEIRS, LIMIT = "tab:blue", "0.45", "tab:orange"
LEGEND = {
    "stores of mnist_zarr": OURS,
    "alternatives": THEIRS,
    "the codec alone: a limit": LIMIT,
}
SELECT_SHOWN = {
    "open_store and select": "{}, open_store and select",
    "select again": "{}, opened before",
    "plain xarray": "{}, plain xarray",
    "limit: decode, then scale": "limit, {}: decode and scale",
}


def draw(results: dict[str, Any]) -> Figure:
    """Draw times as points on a log scale, and bytes as bars from zero."""
    figure = Figure(figsize=(10, 10), layout="constrained")
    built, chosen, sizes = figure.subplots(3, 1, height_ratios=[7, 13, 10])
    build_seconds = {
        name: value
        for name, value in results["build"]["seconds"].items()
        if "fsync" not in name and "SHA" not in name
    }
    draw_times(built, build_seconds, building.TUTORIAL, "build a store of the four gzip files")
    shown = dict[str, float]()
    for name, value in results["select"]["seconds"].items():
        order, is_ours, case = name.partition(" order, ")
        if not is_ours:
            shown[name] = value
        elif case in SELECT_SHOWN:
            shown[SELECT_SHOWN[case].format(f"{order} order")] = value
    title = "read all 7293 images of the digit 7 as float32, from disk"
    draw_times(chosen, shown, selecting.TUTORIAL, title)
    draw_sizes(sizes, results["sizes"]["bytes"])
    handles = [
        Line2D([], [], color=color, marker="o", linestyle="", label=name)
        for name, color in LEGEND.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(LEGEND), frameon=False)
    return figure


def color_of(name: str) -> str:
    if name.startswith("limit"):
        return LIMIT
    return OURS if name.startswith(("mnist_zarr", "label order", "source order")) else THEIRS


def draw_times(axes: Axes, seconds: dict[str, float], reference: str, title: str) -> None:
    """Mark each time, with its speed-up over the reference."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    for place, (name, value) in enumerate(ordered):
        axes.plot(value * 1e3, place, "o", color=color_of(name))
        ratio = seconds[reference] / value
        faster = "" if name == reference else f"   {ratio:.{0 if ratio >= 10 else 1}f} x"
        axes.annotate(
            f"{value * 1e3:,.{0 if value >= 0.01 else 1}f} ms{faster}",
            (value * 1e3, place),
            (9, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_title(f"{title} (x: times as fast as the tutorial)", loc="left", fontsize="medium")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, log scale")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.08)
    axes.set_xlim(right=axes.get_xlim()[1] * 1.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_sizes(axes: Axes, sizes: dict[str, int]) -> None:
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    names = [name for name, _ in ordered]
    bars = axes.barh(
        names, [size / 1e6 for _, size in ordered], color=[color_of(name) for name in names]
    )
    axes.bar_label(bars, [f"{size / 1e6:.2f}" for _, size in ordered], padding=3)
    axes.set_title("size on disk of the 70,000 images", loc="left", fontsize="medium")
    axes.set_xlabel("MB")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
