"""Metrics as tables and as plain data for metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.evaluation.metrics.curves import OperatingPoint
from engine.evaluation.metrics.protocols import Protocol
from engine.evaluation.metrics.summary import Metrics

Table = list[list[str]]  # rows of cells, the header first


def sizes_line(protocol: Protocol) -> str:
    """Return a line that says what the size classes are."""
    return f"sizes are areas in original-image pixels: {', '.join(map(str, protocol.sizes))}"


def class_table(metrics: Metrics, point: OperatingPoint, per_class: bool = False) -> Table:
    """Return a row for all classes and, with `per_class`, one for each; '-' where there are no objects.

    P and R are precision and recall at the operating point, see `point_line`.

    AP of a size at one IoU threshold, which TinyPerson has, is in `size_table`.
    """
    keys = [key for key in metrics.values if not _is_of_size_at_iou(key)]
    lines = [("all", metrics.objects.sum(), point.values() | metrics.values)]
    if per_class:
        classes = zip(metrics.names, metrics.objects, metrics.per_class, strict=True)
        lines += [(name, n, point.values(k) | values) for k, (name, n, values) in enumerate(classes)]
    keys = ["P", "R", *keys]
    table = [["class", "images", "objects", *keys]]
    for name, objects, values in lines:
        table.append([name, str(metrics.images), str(objects), *(shown(values[key]) for key in keys)])
    return table


def point_line(point: OperatingPoint) -> str:
    """Return a line that says at which confidence P and R are, and what F1 is there."""
    if point.confidence is None:
        return "P and R need objects, and there are none"
    f1 = shown(point.values()["F1"])
    return f"P and R: at confidence {point.confidence:.3f}, where the mean F1 is best ({f1}), and IoU 0.5"


def size_table(metrics: Metrics) -> Table:
    """Return a row for each size class: range, objects, AP overall and at the named IoU thresholds, AR."""
    sizes = metrics.protocol.sizes
    columns = {"AP": "AP_{}", "AR": "AR_{}"}
    if metrics.protocol.ap_of_sizes_at_each_iou:
        keys = [key.split("_")[0] for key in metrics.values if _is_of_size_at_iou(key)]
        columns = {"AP": "AP_{}", **{key: f"{key}_{{}}" for key in keys}, "AR": "AR_{}"}
    rows = [["size", "px²", "objects", *columns]]
    for size, objects in zip(sizes, metrics.objects_of_size, strict=True):
        cells = [shown(metrics.values[key.format(size.name)]) for key in columns.values()]
        rows.append([size.name, size.range, str(objects), *cells])
    return rows


def _is_of_size_at_iou(key: str) -> bool:
    """Whether a key is AP50_tiny1 or its like, not AP50, AP_tiny1 or AR100."""
    return key.startswith("AP") and "_" in key and not key.startswith("AP_")


def shown(value: float | None) -> str:
    """Three decimals; '-' for None."""
    return "-" if value is None else f"{value:.3f}"


def metrics_dict(metrics: Metrics, point: OperatingPoint) -> dict[str, Any]:
    """Return what metrics.json holds: AP and AR; P, R and F1 with their confidence; what was scored."""
    return {
        **metrics.values,
        **point.values(),
        "confidence": point.confidence,
        "images": metrics.images,
        "objects": int(metrics.objects.sum()),
        "protocol": metrics.protocol.name,
        "max_dets": list(metrics.protocol.max_dets),
        "sizes": {
            size.name: {"px2": [size.low, size.high], "objects": int(objects)}
            for size, objects in zip(metrics.protocol.sizes, metrics.objects_of_size, strict=True)
        },
        "classes": {
            name: {"objects": int(count), **values, **point.values(k)}
            for k, (name, count, values) in enumerate(
                zip(metrics.names, metrics.objects, metrics.per_class, strict=True)
            )
        },
    }


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)
