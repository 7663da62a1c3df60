"""Metrics as a table for the terminal and as plain data for metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.metrics.protocols import Protocol
from utils.metrics.summary import Metrics


def sizes_line(protocol: Protocol) -> str:
    """Say what the size classes mean, and of which pixels."""
    return f"sizes are areas in original-image pixels: {', '.join(map(str, protocol.sizes))}"


def metrics_table(metrics: Metrics, per_class: bool = False) -> str:
    """One row for all classes and, if asked for, one for each; '-' where there are no objects."""
    rows = [["class", "images", "objects", *metrics.values]]
    rows.append(_row("all", metrics.images, metrics.objects.sum(), metrics.values.values()))
    if per_class:
        for k, name in enumerate(metrics.names):
            row = _row(name, metrics.images, metrics.objects[k], metrics.per_class[k].values())
            rows.append(row)
    return align(rows)


def metrics_dict(metrics: Metrics) -> dict[str, Any]:
    """Return the numbers in the order of metrics.json, then what they stand on."""
    return {
        **metrics.values,
        "images": metrics.images,
        "objects": int(metrics.objects.sum()),
        "protocol": metrics.protocol.name,
        "max_dets": list(metrics.protocol.max_dets),
        "classes": {
            name: {"objects": int(count), **values}
            for name, count, values in zip(metrics.names, metrics.objects, metrics.per_class, strict=True)
        },
    }


def _row(name: str, images: int, objects: int, values: Any) -> list[str]:
    shown = ["-" if value is None else f"{value:.3f}" for value in values]
    return [name, str(images), str(objects), *shown]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells -> lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)
