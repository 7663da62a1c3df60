"""Figures of an evaluation: curves, confusion matrix, batches with their boxes.

Figures are made without pyplot, hence without global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.curves import ConfidenceCurves
from engine.evaluation.metrics.summary import Metrics
from utils.files import save_figure, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_CLASSES = 12  # more are drawn in gray, without a legend entry
MANY_CELLS = 30  # a confusion matrix of more classes shows colors only
COLORS = (
    *("#ff3b30", "#00c2ff", "#ffcc00", "#34e36b", "#ff2d92", "#a66bff", "#ff9500", "#00e5c3"),
    *("#c6ff00", "#5b8cff", "#ffa8d9", "#b08968"),
)
DPI = 120
STRIP = 256  # rows of a figure that are blended in one go
GAP = 4  # px between the images of a batch
LARGEST = 4096  # px, longer side of a figure of a batch


def color_of(k: int) -> str:
    """Return a bright color for class `k`."""
    return COLORS[k % len(COLORS)]


def plain_text(name: str) -> str:
    """Return a class name as matplotlib has to get it: dollar signs would make a formula of it."""
    return name.replace("$", r"\$")


def make_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure, width and height in inches, and its (rows, columns) axes; `heights` are relative."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, height_ratios=heights)


def plot_precision_recall(metrics: Metrics, png: Path, iou: float = 0.5) -> None:
    """Draw precision over recall at one IoU threshold, of each class and their mean."""
    t = int(np.argmin(np.abs(np.array(metrics.protocol.ious) - iou)))
    precision = metrics.accumulated.precision[t, :, :, 0, -1].T  # (K, R)
    there = precision[:, 0] > -1
    lines = np.where(there[:, None], precision, np.nan)
    mean = lines[there].mean(0) if there.any() else np.zeros(precision.shape[1])
    labels = [
        f"{plain_text(name)} {line.mean():.3f}" for name, line in zip(metrics.names, lines, strict=True)
    ]
    figure, axes = make_figure(8, 6)
    axis = axes[0, 0]
    recall = np.linspace(0, 1, precision.shape[1])
    _draw_lines(axis, recall, lines, mean, labels, f"all classes AP{100 * iou:.0f} {mean.mean():.3f}")
    axis.set(xlabel="recall", ylabel="precision", title=f"precision over recall at IoU {iou:g}")
    save_figure(figure, png)


def plot_confidence_curve(
    curves: ConfidenceCurves, values: NDArray[Any], label: str, names: Sequence[str], png: Path
) -> None:
    """Draw (K, P) values over confidence: `curves.f1`, `.precision` or `.recall`; `label` is the y axis."""
    figure, axes = make_figure(8, 6)
    axis = axes[0, 0]
    mean = curves.mean(values)
    best = curves.best_confidence
    at_best = mean[np.argmin(np.abs(curves.confidence - best))]
    summary = f"all classes {at_best:.2f} at {best:.3f}"
    _draw_lines(axis, curves.confidence, values, mean, [plain_text(name) for name in names], summary)
    axis.axvline(best, color="black", linewidth=1, linestyle=":")
    axis.set(xlabel="confidence", ylabel=label, title=f"{label} over confidence (dotted: best F1)")
    save_figure(figure, png)


def _draw_lines(
    axis: Axes, x: NDArray[Any], lines: NDArray[Any], mean: NDArray[Any], labels: Sequence[str], summary: str
) -> None:
    """Draw a line for each class and a thick one for their mean; both axes are 0 to 1."""
    there = np.flatnonzero(~np.isnan(lines[:, 0])).tolist()
    few = len(there) <= FEW_CLASSES
    if len(there) > 1:
        for k in there:
            style: dict[str, Any] = {"color": color_of(k), "label": labels[k]} if few else {"color": "0.8"}
            axis.plot(x, lines[k], linewidth=1, **style)
    axis.plot(x, mean, color="#1f4fd8", linewidth=2.5, label=summary)
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(color="0.9")
    axis.legend(loc="best", frameon=True)


def plot_confusion(counts: NDArray[Any], names: Sequence[str], conf: float, iou: float, png: Path) -> None:
    """Draw a (K + 1, K + 1) confusion matrix of detections; the last row and column are background."""
    title = f"confusion at confidence ≥ {conf:.3g}, IoU ≥ {iou:g}"
    draw_confusion(counts, [*names, "(missed)"], [*names, "(false alarm)"], title, png)


def draw_confusion(
    counts: NDArray[Any], predicted: Sequence[str], true: Sequence[str], title: str, png: Path
) -> None:
    """Draw counts (predicted, true) as shares of each true class, with numbers where they are legible."""
    size = len(true)
    share = counts / np.maximum(counts.sum(0, keepdims=True), 1)
    side = max(5.0, 2.5 + 0.7 * size) if size <= FEW_CLASSES else min(4 + 0.35 * size, 14.0)
    figure, axes = make_figure(side + 1, side)
    axis = axes[0, 0]
    image = axis.imshow(np.where(counts > 0, share, np.nan), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the column")
    if size <= MANY_CELLS:
        for row, column in np.argwhere(counts > 0):
            text = str(counts[row, column])
            if true[column] == predicted[column] and size <= FEW_CLASSES:  # a class, not the background
                text += f"\n{share[row, column]:.0%}"
            tone = "white" if share[row, column] > 0.5 else "black"
            fontsize = 10 if size <= FEW_CLASSES else 7
            axis.text(column, row, text, ha="center", va="center", color=tone, fontsize=fontsize)
    fontsize = 10 if size <= MANY_CELLS else 6
    columns, rows = [plain_text(name) for name in true], [plain_text(name) for name in predicted]
    axis.set_xticks(range(size), columns, rotation=90 if size > 4 else 0, fontsize=fontsize)
    axis.set_yticks(range(size), rows, fontsize=fontsize)
    axis.set(xlabel="true class", ylabel="predicted class", title=title)
    save_figure(figure, png, bbox_inches="tight")


def plot_batch(
    images: Any, targets: Any, names: Sequence[str], png: Path, title: str = "", most: int = 16
) -> None:
    """Draw the first images of a batch in a grid, with their boxes, at most 4096 px wide and high.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        targets: (n, 6) image, class, cx, cy, w, h as fractions[, confidence as a seventh column].
        names: the classes; a single one is not written beside its boxes.
        png: the file to write.
        title: one line above the grid.
        most: largest number of images.
    """
    import cv2

    images = np.asarray(images)[:most].transpose(0, 2, 3, 1)  # (B, H, W, 3)
    targets = np.asarray(targets)
    targets = targets[targets[:, 0] < len(images)]
    images = _shrunk(images)
    mosaic, corners = _grid(images)
    zoom = max(1.0, min(1600 / mosaic.shape[1], LARGEST / max(mosaic.shape[:2])))
    size = np.array([images.shape[2], images.shape[1]])
    center, half = targets[:, 2:4], targets[:, 4:6] / 2
    corner = corners[targets[:, 0].astype(int)]
    boxes = np.hstack([np.clip(center + side, 0, 1) * size + corner for side in (-half, half)])
    head = 30 if title else 0
    overlay = _overlay(mosaic.shape[:2], zoom, boxes, targets[:, 1], _captions(targets, names), title, head)
    canvas = np.full((*overlay.shape[:2], 3), 255, np.uint8)
    below = (overlay.shape[1], overlay.shape[0] - head)
    canvas[head:] = cv2.resize(mosaic, below, interpolation=cv2.INTER_NEAREST)
    for top in range(0, len(canvas), STRIP):  # Matplotlib's own drawing of the images takes gigabytes
        strip = overlay[top : top + STRIP]
        opaque = strip[..., 3:].astype(np.float32) / 255
        part = canvas[top : top + STRIP]
        part[:] = np.round(part * (1 - opaque) + strip[..., :3] * opaque)
    with write_atomically(png, "wb") as file:
        file.write(cv2.imencode(".png", canvas[..., ::-1])[1].tobytes())


def _overlay(
    shape: tuple[int, int],
    zoom: float,
    boxes_xyxy: NDArray[Any],
    classes: NDArray[Any],
    captions: Sequence[str],
    title: str,
    head: int,
) -> NDArray[np.uint8]:
    """Draw boxes, captions and, in the first `head` px, the title: (H, W, 4) uint8 RGBA, else transparent.

    Args:
        shape: height and width of what lies below.
        zoom: pixels of the drawing per pixel of it.
        boxes_xyxy: (n, 4) in its pixels.
        classes: (n,) of the boxes.
        captions: n texts.
        title: one line.
        head: height of the title, pixels of the drawing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    height, width = (round(side * zoom) for side in shape)
    figure = Figure(figsize=((width + 0.5) / 100, (height + head + 0.5) / 100), dpi=100, facecolor="none")
    axis = figure.add_axes((0, 0, 1, height / (height + head)))
    axis.set_axis_off()
    outline: Any = boxes_xyxy[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (n, 4, 2)
    colors = [color_of(int(k)) for k in classes]
    axis.add_collection(PolyCollection(outline, facecolors="none", edgecolors=colors, linewidths=1.5))
    for (x, y), text in zip(boxes_xyxy[:, :2], captions, strict=True):
        if text:
            box = {"facecolor": "black", "edgecolor": "none", "pad": 0.8, "alpha": 0.6}
            axis.text(x, y, text, fontsize=7, va="bottom", color="white", bbox=box, clip_on=True)
    axis.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
    if title:
        figure.text(0.005, 1 - head / 2 / (height + head), title, va="center", fontsize=11)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _shrunk(images: NDArray[Any]) -> NDArray[Any]:
    """(B, H, W, 3) -> the same, smaller where their grid would be larger than a figure may be."""
    import cv2

    count, height, width = images.shape[:3]
    columns, rows = _grid_shape(count)
    scale = LARGEST / max(columns * (width + GAP), rows * (height + GAP))
    if scale >= 1:
        return images
    size = (max(int(width * scale) - GAP, 1), max(int(height * scale) - GAP, 1))
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])


def _grid_shape(count: int) -> tuple[int, int]:
    """How many images stand beside and below each other."""
    columns = math.ceil(count**0.5)
    return columns, -(-count // columns)


def _grid(images: NDArray[Any], gap: int = GAP) -> tuple[NDArray[Any], NDArray[Any]]:
    """(B, H, W, 3) -> one image, and (B, 2) x, y of the top left corner of each image in it."""
    count, height, width = images.shape[:3]
    columns, rows = _grid_shape(count)
    mosaic = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    place = np.arange(count)
    corners = np.stack((place % columns * (width + gap), place // columns * (height + gap)), 1)
    for image, (x, y) in zip(images, corners, strict=True):
        mosaic[y : y + height, x : x + width] = image
    return mosaic, corners


def _captions(targets: NDArray[Any], names: Sequence[str], crowded: int = 25) -> list[str]:
    """Return class and confidence of each box; "" in images with more than `crowded` boxes."""
    per_image = np.bincount(targets[:, 0].astype(int), minlength=1)
    captions = []
    for row in targets:
        words = [plain_text(names[int(row[1])])] if len(names) > 1 else []
        words += [f"{row[6]:.2f}"] if len(row) > 6 else []
        captions.append(" ".join(words) if per_image[int(row[0])] <= crowded else "")
    return captions
