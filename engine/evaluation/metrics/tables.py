"""Metrics as tables and as plain data for metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.evaluation.metrics.protocols import Protocol
from engine.evaluation.metrics.summary import Metrics

Table = list[list[str]]  # rows of cells, the header first


def sizes_line(protocol: Protocol) -> str:
    """Say what the size classes mean, and of which pixels."""
    return f"sizes are areas in original-image pixels: {', '.join(map(str, protocol.sizes))}"


def class_table(metrics: Metrics, per_class: bool = False) -> Table:
    """One row for all classes and, if asked for, one for each; '-' where there are no objects.

    AP of a size at one IoU threshold, as TinyPerson has it, is left to `size_table`.
    """
    keys = [key for key in metrics.values if not _is_of_size_at_iou(key)]
    rows = [["class", "images", "objects", *keys]]
    lines = [("all", metrics.objects.sum(), metrics.values)]
    if per_class:
        lines += zip(metrics.names, metrics.objects, metrics.per_class, strict=True)
    for name, objects, values in lines:
        rows.append([name, str(metrics.images), str(objects), *(shown(values[key]) for key in keys)])
    return rows


def size_table(metrics: Metrics) -> Table:
    """One row a size class: its range, its objects, AP at the IoU thresholds that have one, AR."""
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
    """AP50_tiny1, not AP50, AP_tiny1 or AR100."""
    return key.startswith("AP") and "_" in key and not key.startswith("AP_")


def shown(value: float | None) -> str:
    """Three decimals; '-' for None."""
    return "-" if value is None else f"{value:.3f}"


def metrics_dict(metrics: Metrics) -> dict[str, Any]:
    """Return the numbers in the order of metrics.json, then what they stand on."""
    return {
        **metrics.values,
        "images": metrics.images,
        "objects": int(metrics.objects.sum()),
        "protocol": metrics.protocol.name,
        "max_dets": list(metrics.protocol.max_dets),
        "sizes": {
            size.name: {"px2": [size.low, size.high], "objects": int(objects)}
            for size, objects in zip(metrics.protocol.sizes, metrics.objects_of_size, strict=True)
        },
        "classes": {
            name: {"objects": int(count), **values}
            for name, count, values in zip(metrics.names, metrics.objects, metrics.per_class, strict=True)
        },
    }


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells -> lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)
