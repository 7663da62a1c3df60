"""A figure of a data set: objects against strides, boxes against anchors, classes, crowding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.checkup.advice import Facts
from data.checkup.sizes import share, sides
from utils.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN_CLASSES = 30
_SHOWN_BOXES = 5000


def plot_facts(facts: Facts, png: Path) -> None:
    """Draw four panels into a PNG file, without pyplot and so without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2)
    _draw_sides(panels[0, 0], facts)
    _draw_anchors(panels[0, 1], facts)
    _draw_classes(panels[1, 0], facts)
    _draw_crowding(panels[1, 1], facts)
    save_figure(figure, png)


def _draw_sides(axis: Axes, facts: Facts) -> None:
    """Histograms of the sides in the file and at the input, and the strides."""
    at_input, in_file = sides(facts.sizes.at_input), sides(facts.sizes.in_file)
    edges = np.geomspace(1, max(64.0, in_file.max(), at_input.max()) * 1.01, 50).tolist()
    axis.hist(in_file.clip(1), edges, color="#b8c4ce", label="in the file")
    axis.hist(at_input.clip(1), edges, histtype="step", color="#d6336c", lw=2, label=f"at {facts.imgsz} px")
    top = axis.get_ylim()[1]
    for stride in sorted({4, 8, 16, 32, *facts.strides}):
        used = stride in facts.strides
        axis.axvline(stride, color="#1c7ed6" if used else "#adb5bd", ls="-" if used else ":", lw=1)
        under = f"{share(at_input < stride):.0%}"
        axis.text(stride, top * 1.01, f"{stride:g}\n{under}", ha="center", va="bottom", fontsize=8)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="side of the object (square root of its area), px", ylabel="objects")
    axis.set_title("objects against strides (share under each)", pad=30)
    axis.legend(loc="upper left")


def _draw_anchors(axis: Axes, facts: Facts) -> None:
    """Boxes at the input as dots, anchors as crosses."""
    boxes = facts.trained_sizes
    if len(boxes) > _SHOWN_BOXES:
        boxes = boxes[np.random.default_rng(0).choice(len(boxes), _SHOWN_BOXES, replace=False)]
    axis.plot(*boxes.clip(1).T, ".", ms=3, alpha=0.3, color="#495057", label="boxes as trained on")
    per_level = len(facts.anchors) // len(facts.strides)
    shown = "boxes and anchors" if per_level else "boxes"
    colors = ("#1c7ed6", "#2f9e44", "#f08c00", "#e03131", "#862e9c")
    for level, stride in enumerate(facts.strides if per_level else ()):
        own = facts.anchors[level * per_level : (level + 1) * per_level]
        color = colors[level % len(colors)]
        axis.plot(*own.T, "x", ms=9, mew=2.5, color=color, label=f"anchors, stride {stride:g}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="width, px", ylabel="height, px", title=f"{shown} at {facts.imgsz} px")
    axis.legend(loc="upper left", fontsize=8)


def _draw_classes(axis: Axes, facts: Facts) -> None:
    """Objects of each class, the most frequent at the top."""
    counts = np.bincount(facts.sizes.classes, minlength=len(facts.names))
    order = np.argsort(-counts, kind="stable")[:_SHOWN_CLASSES][::-1]
    bars = axis.barh(
        [facts.names[k] for k in order], counts[order], min(0.8, 0.1 + 0.1 * len(order)), color="#4dabf7"
    )
    axis.bar_label(bars, fontsize=7, padding=2)
    hidden = len(facts.names) - len(order)
    axis.set(xlabel="objects", title="classes" + (f" ({hidden} more)" if hidden else ""))
    axis.tick_params(axis="y", labelsize=8 if len(order) > 15 else 10)
    axis.margins(x=0.12, y=0.05 + 1 / (1 + len(order)))


def _draw_crowding(axis: Axes, facts: Facts) -> None:
    """Histogram of the objects per image or tile."""
    what = "tile" if facts.tiling else "image"
    axis.hist(facts.counts, bins=min(40, int(facts.counts.max()) + 1), color="#63e6be")
    middle = np.median(facts.counts)
    axis.axvline(middle, color="#087f5b", label=f"median {middle:g}")
    axis.set(xlabel=f"objects per {what}", ylabel=f"{what}s", title=f"{len(facts.counts):,} {what}s")
    axis.legend()
