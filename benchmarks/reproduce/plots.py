"""Plots of a suite: AP over object size, and AP_S (or top-1) over latency."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

from benchmarks.reproduce.results import BY_SIZE, SIDES, Row, number

Groups = dict[str, list[Row]]


def _mean(rows: list[Row], name: str) -> float | None:
    values = [value for row in rows if (value := number(row, name)) is not None]
    return statistics.fmean(values) if values else None


def plot_sizes(groups: Groups, png: Path) -> bool:
    """Draw each network's AP over the side of objects, mean of its seeds; False where no row has it."""
    from engine.evaluation.report.plots import color_of, make_figure

    ends = [*(f"{low}-{high}" for low, high in itertools.pairwise(SIDES)), f"{SIDES[-1]}+"]
    curves = {network: [_mean(rows, name) for name in BY_SIZE] for network, rows in groups.items()}
    used = [i for i in range(len(ends)) if any(curve[i] is not None for curve in curves.values())]
    if not used:
        return False
    figure, axes = make_figure(8.0, 4.5)
    axis = axes[0, 0]
    for index, (network, curve) in enumerate(curves.items()):
        points = [(x, value) for x, i in enumerate(used) if (value := curve[i]) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color=color_of(index), label=network, markersize=4)
    axis.set_xticks(range(len(used)), [ends[i] for i in used])
    axis.set(
        xlabel="side of objects (square root of the area), px of the full image", ylabel="AP", ylim=(0, None)
    )
    axis.grid(axis="y", color="0.9")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(png, bbox_inches="tight")
    return True


def plot_latency(groups: Groups, png: Path) -> bool:
    """Draw each network as a dot: AP_S over milliseconds in ONNX Runtime; False where no row has both."""
    from engine.evaluation.report.plots import color_of, make_figure

    metric, label = (
        ("AP_S", "AP_S")
        if any(_mean(rows, "AP_S") is not None for rows in groups.values())
        else ("top1", "top-1")
    )
    dots = {}
    for index, (network, rows) in enumerate(groups.items()):
        x, y = _mean(rows, "ms_onnx"), _mean(rows, metric)
        if x is not None and y is not None:
            dots[network] = (x, y, color_of(index))
    if not dots:
        return False
    figure, axes = make_figure(8.0, 4.5)
    axis = axes[0, 0]
    for network, (x, y, color) in dots.items():
        axis.plot(x, y, "o", color=color, markersize=7)
        axis.annotate(network, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axis.set(xlabel="ms an image in ONNX Runtime, network alone, CPU", ylabel=label)
    right, top = (max(values) for values in zip(*((x, y) for x, y, _ in dots.values()), strict=True))
    axis.set(xlim=(0, 1.2 * right or 1), ylim=(0, 1.15 * top or 1))  # room for the names
    axis.grid(color="0.9")
    figure.savefig(png, bbox_inches="tight")
    return True
