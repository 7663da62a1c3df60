"""YOLO label files, read and written.

Each line is a box, `class cx cy w h`, or a polygon, `class x1 y1 x2 y2 ...`, as fractions of the image's
width and height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from data.detection.plausibility import ROUNDING
from utils.errors import UserError, one_line
from utils.limits import LABEL_BYTES
from utils.reading import guarded, read_regular


@dataclass
class Labels:
    """The rows of one label file.

    Attributes:
        classes: (n,) int64.
        boxes_xyxy_norm: (n, 4) float64, fractions of width and height, inside 0..1.
        bad_rows: "file:line: what is wrong" for each row that cannot be used.
        notes: what was repaired, one line each.
        written: (m, 5) float64, line number and the four numbers of each row of a box, usable or not.
        missing: there is no such file.
    """

    classes: np.ndarray
    boxes_xyxy_norm: np.ndarray
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))
    missing: bool = False


def label_path(image: Path) -> Path:
    """Return labels/a/b.txt for images/a/b.jpg; an image outside `images` has its labels beside it."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, names: tuple[str, ...]) -> Labels:
    """Read and check a label file; where it is missing or empty, the image has no objects.

    Duplicate rows are dropped and noted; a row with any other fault is a bad row.
    """
    try:
        content = read_regular(path, "a label file", LABEL_BYTES)
        with guarded(path, "a label file"):
            text = content.decode("utf-8-sig")
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Labels(np.zeros(0, np.int64), np.zeros((0, 4)), missing=True)
        problem = f"{path}:1: cannot be read as text ({one_line(str(error))})"
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4)), [problem])
    classes, boxes, written, bad_rows, duplicates = [], [], [], [], []
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        try:
            values = _numbers(columns)
            if len(values) == 5:
                written.append([number, *values[1:]])
            label, box = _parse_row(values, columns[0], names)
        except ValueError as error:
            bad_rows.append(f"{path}:{number}: {error}")
            continue
        if (label, *box) in seen:
            duplicates.append(number)
            continue
        seen.add((label, *box))
        classes.append(label)
        boxes.append(box)
    notes = [f"{path}:{duplicates[0]}: {len(duplicates)} duplicate row(s) dropped"] if duplicates else []
    return Labels(
        np.array(classes, np.int64),
        np.array(boxes, float).reshape(-1, 4),
        bad_rows,
        notes,
        np.array(written, float).reshape(-1, 5),
    )


def _numbers(columns: list[str]) -> list[float]:
    """Return a row's columns as finite numbers.

    Raises:
        ValueError: one is no number, or there are too few or too many.
    """
    try:
        values = list(map(float, columns))
    except ValueError as error:
        bad = next(column for column in columns if not _is_number(column))
        raise ValueError(f"'{bad}' is not a number") from error
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        expected = "5 (class cx cy w h), or a class and at least 3 points x y"
        raise ValueError(f"{len(values)} columns; a row has {expected}")
    if not all(map(math.isfinite, values)):
        raise ValueError("holds nan or inf; coordinates are fractions from 0 to 1")
    return values


def _parse_row(values: list[float], written: str, names: tuple[str, ...]) -> tuple[int, tuple[float, ...]]:
    """Return class and x1, y1, x2, y2, clipped to 0..1.

    Raises:
        ValueError: the row cannot be used; the message says why.
    """
    label, coordinates = values[0], values[1:]
    if label != int(label) or not 0 <= label < len(names):
        raise ValueError(
            f"class {written} is not one of 0..{len(names) - 1} (the data set has {len(names)} names)"
        )
    if min(coordinates) < -ROUNDING or max(coordinates) > 1 + ROUNDING:
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
    if min(box) >= 0 and max(box) <= 1:
        return box
    return tuple(min(max(value, 0.0), 1.0) for value in box)


def label_text(
    class_ids: ArrayLike,
    boxes_xyxy: ArrayLike,
    width: int,
    height: int,
    scores: ArrayLike | None = None,
    track_ids: ArrayLike | None = None,
) -> str:
    """Return the text of a label file: class, cx, cy, w, h[, score][, track id] on each line.

    Numbers have nine significant digits. That is as many as float32 can need: scores read back exactly, and
    boxes to within a millionth of a pixel for every thousand pixels of the image.

    Args:
        class_ids: (n,) whole numbers.
        boxes_xyxy: (n, 4) pixels.
        width: of the image, pixels.
        height: of the image, pixels.
        scores: (n,), added as a column.
        track_ids: (n,) whole numbers, added as a column.
    """
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4).T
    columns = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if scores is not None:
        columns.append(np.asarray(scores, np.float64))
    classes = np.asarray(class_ids, np.int64).tolist()
    tracks = [""] * len(classes) if track_ids is None else [f" {track}" for track in np.asarray(track_ids)]
    return "".join(
        f"{class_id} " + " ".join(f"{value:.9g}" for value in values) + f"{track}\n"
        for class_id, values, track in zip(classes, np.column_stack(columns).tolist(), tracks, strict=True)
    )
