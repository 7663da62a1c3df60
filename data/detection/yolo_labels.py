"""YOLO label files: one row a box, `class cx cy w h`, or a polygon, `class x1 y1 x2 y2 ...`, as fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_ROUNDING = 1e-3  # a written fraction may exceed 0..1 by this much


@dataclass
class Labels:
    """The rows of one label file.

    Attributes:
        classes: (n,) int64.
        boxes_xyxy_norm: (n, 4) float64, fractions of width and height, inside 0..1.
        bad_rows: "file:line: what is wrong", one a bad row.
        notes: what was repaired, one line each.
    """

    classes: np.ndarray
    boxes_xyxy_norm: np.ndarray
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def label_path(image: Path) -> Path:
    """Return labels/a/b.txt for images/a/b.jpg; an image outside `images` has its label beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, names: tuple[str, ...]) -> Labels:
    """Read and check one label file; a missing or empty one is an image without objects.

    Duplicate rows are dropped and noted; every other fault is a bad row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = ""
    except (UnicodeDecodeError, OSError) as error:
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4)), [f"{path}:1: not a readable text ({error})"])
    classes, boxes, bad_rows, doubles = [], [], [], []
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        try:
            label, box = _parse_row(columns, names)
        except ValueError as error:
            bad_rows.append(f"{path}:{number}: {error}")
            continue
        if (label, *box) in seen:
            doubles.append(number)
            continue
        seen.add((label, *box))
        classes.append(label)
        boxes.append(box)
    notes = [f"{path}:{doubles[0]}: {len(doubles)} duplicate row(s) dropped"] if doubles else []
    return Labels(np.array(classes, np.int64), np.array(boxes, float).reshape(-1, 4), bad_rows, notes)


def _parse_row(columns: list[str], names: tuple[str, ...]) -> tuple[int, tuple[float, ...]]:
    """Return class and x1, y1, x2, y2, clipped to 0..1.

    Raises:
        ValueError: what is wrong with the row.
    """
    try:
        values = [float(column) for column in columns]
    except ValueError as error:
        bad = next(column for column in columns if not _is_number(column))
        raise ValueError(f"'{bad}' is not a number") from error
    label, coordinates = values[0], values[1:]
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        wanted = "5 (class cx cy w h), or a class and at least 3 points x y"
        raise ValueError(f"{len(values)} columns; a row has {wanted}")
    if not all(map(math.isfinite, values)):
        raise ValueError("holds nan or inf; coordinates are fractions from 0 to 1")
    if label != int(label) or not 0 <= label < len(names):
        raise ValueError(
            f"class {columns[0]} is not one of 0..{len(names) - 1} (the data set has {len(names)} names)"
        )
    if min(coordinates) < -_ROUNDING or max(coordinates) > 1 + _ROUNDING:
        worst = max(coordinates, key=lambda value: abs(value - 0.5))
        raise ValueError(
            f"box outside the image: {worst:g} is not a fraction from 0 to 1 of width and height"
        )
    box = _box_of(coordinates)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError("box of no size: its width or height is 0")
    return int(label), box


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _box_of(coordinates: list[float]) -> tuple[float, ...]:
    """x1, y1, x2, y2 of cx, cy, w, h or of a polygon's points, clipped to 0..1."""
    if len(coordinates) == 4:
        cx, cy, width, height = coordinates
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    else:
        x, y = coordinates[0::2], coordinates[1::2]
        box = (min(x), min(y), max(x), max(y))
    return tuple(min(max(value, 0.0), 1.0) for value in box)
