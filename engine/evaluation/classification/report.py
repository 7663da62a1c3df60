"""Outputs of a classifier's evaluation: tables, metrics.json, predictions.csv, figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.classification.metrics import ClassificationResult
from engine.evaluation.metrics.tables import align
from engine.evaluation.report.plots import DPI, color_of, draw_confusion, make_figure, plain_text
from utils.files import save_figure, write_atomically

GALLERY = 40  # images
COLUMNS = 8  # of the gallery


def report(classified: ClassificationResult, per_class: bool = True) -> str:
    """Return the tables for the terminal."""
    values, counts = classified.values, np.bincount(classified.labels, minlength=len(classified.names))
    total = [f"{value:.4f}" for value in values.values() if value is not None]
    rows = [["class", "images", *values], ["all", str(len(classified.labels)), *total]]
    if per_class:
        for name, count, share in zip(classified.names, counts, classified.per_class(), strict=True):
            rows.append([name, str(count), "-" if share is None else f"{share:.4f}", "", ""])
    return f"{align(rows)}\n\nper image: {1000 * classified.seconds:.2f} ms in the network"


def write_metrics(classified: ClassificationResult, path: Path) -> None:
    """Write metrics.json."""
    content = {
        **classified.values,
        "per_class": dict(zip(classified.names, classified.per_class(), strict=True)),
        "confusion": classified.confusion.tolist(),
        "seconds_per_image": classified.seconds,
    }
    with write_atomically(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_predictions(classified: ClassificationResult, where: Sequence[str], path: Path) -> None:
    """Write predictions.csv, a line per image."""
    names, confidence = classified.names, np.exp(classified.log_probabilities.max(1))
    with write_atomically(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "true", "predicted", "confidence", "loss"))
        for i, place in enumerate(where):
            classes = [names[classified.labels[i]], names[classified.predicted[i]]]
            writer.writerow([place, *classes, f"{confidence[i]:.5f}", f"{classified.losses[i]:.5f}"])


def plot_images(pixels: NDArray[Any], captions: Sequence[str], png: Path, title: str) -> None:
    """Draw images, (n, S, S, 1 or 3) uint8, with captions."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(len(pixels), 1))
    rows = max(-(-len(pixels) // columns), 1)
    figure = Figure(figsize=(1.6 * columns + 0.4, 1.75 * rows + 0.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, pixels, captions, strict=False):
        axis.imshow(np.repeat(image, 3, 2) if image.shape[2] == 1 else image, interpolation="nearest")
        axis.set_title(plain_text(caption), fontsize=7)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, png)


def plot_mistakes(classified: ClassificationResult, pixels: NDArray[Any], png: Path) -> None:
    """Draw the wrongly classified images with the highest losses, with true and predicted class."""
    worst, names = classified.worst(GALLERY), classified.names
    confidence = np.exp(classified.log_probabilities.max(1))
    captions = [
        f"{names[classified.labels[i]]}, not {names[classified.predicted[i]]} ({confidence[i]:.0%})"
        for i in worst
    ]
    wrong = int((classified.predicted != classified.labels).sum())
    title = f"the worst {len(worst)} of {wrong} mistakes: true class, not predicted class (confidence)"
    plot_images(pixels[worst], captions, png, title)


def plot_strides(rows: Sequence[dict[str, str]], png: Path) -> None:
    """Draw the rows of strides.csv, a line per layer and axis."""
    figure, axes = make_figure(8, 5)
    axis = axes[0, 0]
    layers = sorted({name.rpartition(" ")[0] for name in rows[0] if name != "epoch"})
    epochs = [int(row["epoch"]) for row in rows]
    for number, layer in enumerate(layers):
        for way, style in (("rows", "-"), ("columns", "--")):
            values = [float(row[f"{layer} {way}"]) for row in rows]
            marker = "." if len(rows) < 40 else ""
            axis.plot(epochs, values, style, color=color_of(number), marker=marker, label=f"{layer} {way}")
    axis.set(xlabel="epoch", ylabel="stride", title="learned strides")
    axis.grid(color="0.9")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    save_figure(figure, png)


def write_evaluation(
    classified: ClassificationResult, pixels: NDArray[Any], where: Sequence[str], folder: Path, plots: bool
) -> None:
    """Write metrics.json, predictions.csv and, with `plots`, the figures into a run folder."""
    write_metrics(classified, folder / "metrics.json")
    write_predictions(classified, where, folder / "predictions.csv")
    if plots:
        names, title = classified.names, f"top-1 {classified.top(1):.2%}"
        draw_confusion(classified.confusion, names, names, title, folder / "confusion_matrix.png")
        plot_mistakes(classified, pixels, folder / "mistakes.png")
