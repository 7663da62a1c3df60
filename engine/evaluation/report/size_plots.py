"""Figures over object size: AP and recall, and errors, on a logarithmic axis of √area."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.evaluation.metrics.by_size import SizeCurves
from engine.evaluation.metrics.protocols import Protocol
from engine.evaluation.report.plots import make_figure
from utils.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOR_OF_ERROR = {
    "localization": "#ffb000",
    "classification": "#8e6bff",
    "both": "#c8a2ff",
    "duplicate": "#00b3a4",
    "background": "#d7263d",
    "missed": "#5f6b7a",
}


def plot_by_size(curves: SizeCurves, protocol: Protocol, confidence: float, png: Path) -> None:
    """Draw AP and recall over size, above the number of objects."""
    figure, axes = make_figure(9, 6.4, 2, 1, heights=(3, 1))
    upper, lower = axes[:, 0]
    ious = f"{protocol.ious[0]:g}:{protocol.ious[-1]:g}"
    best = f"share detected at confidence {confidence:.2f}"
    for values, label, color in (
        (curves.detected, best, "#111111"),
        (curves.recall, "recall at any confidence", "#8a8a8a"),
        (curves.ap50, "AP50", "#1f4fd8"),
        (curves.ap, f"AP {ious}", "#7aa0ff"),
    ):
        style = "--" if color == "#8a8a8a" else "-"
        upper.plot(curves.middles, values, style, color=color, marker="o", markersize=4, label=label)
    upper.set(ylim=(0, 1.02), title="detection of objects of each size")
    upper.legend(loc="best")
    bars = lower.bar(
        curves.edges[:-1],
        curves.objects,
        np.diff(curves.edges),
        align="edge",
        color="#9db4e8",
        edgecolor="white",
    )
    lower.bar_label(bars, [str(count) if count else "" for count in curves.objects], fontsize=7)
    lower.set(ylabel="objects", xlabel="√area, px of the original image")
    lower.margins(y=0.2)
    for axis in (upper, lower):
        _size_axis(axis, curves, protocol)
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
    save_figure(figure, png)


def plot_errors_by_size(curves: SizeCurves, protocol: Protocol, confidence: float, png: Path) -> None:
    """Draw the share of each kind of error over size, and the number of errors."""
    figure, axes = make_figure(9, 6.4, 1, 1)
    axis = axes[0, 0]
    counts = np.array([curves.errors[name] for name in COLOR_OF_ERROR])  # (kinds, B)
    total = counts.sum(0)
    share = counts / np.maximum(total, 1)
    bottom = np.zeros(len(total))
    for (name, color), height, count in zip(COLOR_OF_ERROR.items(), share, counts.sum(1), strict=True):
        axis.bar(
            curves.edges[:-1],
            height,
            np.diff(curves.edges),
            bottom,
            align="edge",
            color=color,
            edgecolor="white",
            label=f"{name} ({count})",
        )
        bottom += height
    for middle, number in zip(curves.middles, total, strict=True):
        if number:
            axis.text(middle, 1.01, str(number), ha="center", fontsize=7)
    axis.set(ylim=(0, 1.08), ylabel="share of the errors", xlabel="√area, px of the original image")
    axis.set_title(f"errors at confidence {confidence:.2f}, their number above the bars")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3)
    _size_axis(axis, curves, protocol)
    save_figure(figure, png)


def _size_axis(axis: Axes, curves: SizeCurves, protocol: Protocol) -> None:
    """Make the x axis logarithmic, in powers of two, with the protocol's size classes as dotted lines."""
    axis.set_xscale("log", base=2)
    axis.set_xlim(curves.edges[0], curves.edges[-1])
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for side in _inner_sides(protocol, curves.edges):
        axis.axvline(side, color="0.45", linewidth=1, linestyle=":")


def _inner_sides(protocol: Protocol, edges: Sequence[float] | np.ndarray) -> list[float]:
    """Return the boundaries of size classes, px, within the axis."""
    return sorted({low for size in protocol.sizes if edges[0] < (low := size.low**0.5) < edges[-1]})
