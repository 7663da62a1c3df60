"""Detections as files: COCO's results JSON and YOLO's label rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_coco_results(
    path: Path, detections: Iterable[tuple[int | str, NDArray]], category_ids: Sequence[int] | None = None
) -> int:
    """Write COCO's results format, one detection a line, and return their number.

    Args:
        path: the JSON file.
        detections: image id and (n, 6) x1, y1, x2, y2, confidence, class of each image, in its pixels.
        category_ids: the id of each class; None takes the class numbers themselves.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for image_id, rows in detections:
            image = json.dumps(image_id)
            for x1, y1, x2, y2, score, k in np.asarray(rows, np.float64).tolist():
                category = int(k) if category_ids is None else category_ids[int(k)]
                box = f"{x1:.3f}, {y1:.3f}, {x2 - x1:.3f}, {y2 - y1:.3f}"
                file.write(",\n" if count else "\n")
                file.write(f'{{"image_id": {image}, "category_id": {category}, ')
                file.write(f'"bbox": [{box}], "score": {score:.6f}}}')
                count += 1
        file.write("\n]\n")
    return count


def write_yolo_labels(
    path: Path, rows: NDArray, width: int, height: int, with_confidence: bool = False
) -> None:
    """Write YOLO's rows: class, center x, center y, width, height as fractions[, confidence].

    Args:
        path: the text file.
        rows: (n, 6) x1, y1, x2, y2, confidence, class in pixels.
        width: of the image, pixels.
        height: of the image, pixels.
        with_confidence: add it as the last column.
    """
    lines = []
    for x1, y1, x2, y2, score, k in np.asarray(rows, np.float64).tolist():
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        values = [*box, score] if with_confidence else box
        lines.append(" ".join([str(int(k)), *(f"{value:.6f}" for value in values)]) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
