"""Figures of a training run: its results by epoch, and the statistics of its labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from engine.evaluation.report.plots import color_of, make_figure, plain_text
from utils.files import save_figure
from utils.reading import reading


def plot_results(csv_file: Path, png: Path) -> None:
    """Draw every column of a results.csv that holds numbers over its column `epoch`."""
    with reading(csv_file, "the results of a run"), csv_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        values = {
            name: [float(row[name]) if row[name] else np.nan for row in rows]
            for name in (rows[0] if rows else {})
        }
    epochs = values.pop("epoch", [])
    columns = [name for name, column in values.items() if not np.isnan(column).all()]
    if not columns:
        return
    width = min(4, len(columns))
    height = -(-len(columns) // width)
    figure, axes = make_figure(3.2 * width, 2.5 * height, height, width)
    for axis, name in zip(axes.flat, columns, strict=False):
        axis.plot(epochs, values[name], color="#1f4fd8", marker="." if len(rows) < 40 else "", linewidth=1.5)
        axis.set_title(name, fontsize=10)
        axis.grid(color="0.9")
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    save_figure(figure, png)


def plot_labels(
    classes: ArrayLike, boxes_xywh_norm: ArrayLike, names: Sequence[str], imgsz: int, png: Path
) -> None:
    """Draw how many boxes each class has, where they lie and how large they are.

    Args:
        classes: (n,) of the boxes.
        boxes_xywh_norm: (n, 4) center and size as fractions of the network's input.
        names: the classes.
        imgsz: side of the network's input, pixels.
        png: the image to write.
    """
    classes, boxes = np.asarray(classes, np.int64).reshape(-1), np.asarray(boxes_xywh_norm).reshape(-1, 4)
    figure, axes = make_figure(11, 9, 2, 2)
    counts = np.bincount(classes, minlength=len(names))
    most = np.argsort(-counts, kind="stable")[:20][::-1]
    axes[0, 0].barh([plain_text(names[k]) for k in most], counts[most], color=[color_of(k) for k in most])
    axes[0, 0].bar_label(axes[0, 0].containers[0], padding=3)
    axes[0, 0].margins(x=0.15)
    shown = f", the {len(most)} most frequent classes" if len(most) < len(names) else ""
    axes[0, 0].set(xlabel="boxes", title=f"{len(classes)} boxes{shown}")

    axes[0, 1].hist2d(boxes[:, 0], boxes[:, 1], bins=40, range=((0, 1), (0, 1)), cmap="Blues")
    axes[0, 1].set(title="centers in the image", aspect="equal", ylim=(1, 0))

    side = np.maximum(boxes[:, 2:] * imgsz, 0.5)
    axes[1, 0].loglog(side[:, 0], side[:, 1], ".", markersize=3, alpha=0.3, color="#1f4fd8")
    axes[1, 0].set(
        xlabel="width, px", ylabel="height, px", title=f"at an input of {imgsz} px", aspect="equal"
    )
    axes[1, 0].grid(color="0.9")

    bins = np.geomspace(1, max(imgsz, 2), 40)
    axes[1, 1].hist(side.prod(1) ** 0.5, bins=bins, color="#1f4fd8")
    axes[1, 1].set(xscale="log", xlabel="√(width·height), px", ylabel="boxes", title="sizes, and the strides")
    for stride in (4, 8, 16, 32):
        axes[1, 1].axvline(stride, color="0.3", linewidth=1, linestyle=":")
    for axis in (axes[1, 0].xaxis, axes[1, 0].yaxis, axes[1, 1].xaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    save_figure(figure, png)
