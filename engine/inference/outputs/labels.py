"""YOLO's label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.inference.outputs.result import FrameResult
from utils.detections import Detections


class Labels:
    """YOLO's labels/*.txt: class, cx, cy, w, h as fractions[, confidence][, id]; a file for every frame."""

    def __init__(self, folder: Path, confidences: bool):
        self.folder, self.confidences = folder, confidences
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file."""
        height, width = result.frame.image.shape[:2]
        text = yolo_lines(result.detections, width, height, self.confidences)
        (self.folder / f"{result.frame_name}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


def yolo_lines(detections: Detections, width: int, height: int, confidences: bool = False) -> str:
    """Return YOLO's label rows: class, center x, center y, width, height as fractions[, confidence][, id].

    Args:
        detections: of one image.
        width: of the image, pixels.
        height: of the image, pixels.
        confidences: add them as a column.
    """
    x1, y1, x2, y2 = detections.xyxy.astype(np.float64).T
    columns = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    columns += [detections.scores] if confidences else []
    tracks = None if detections.track_ids is None else detections.track_ids.tolist()
    lines = []
    for i, (class_id, values) in enumerate(zip(detections.class_ids, np.column_stack(columns), strict=True)):
        number = "" if tracks is None else f" {tracks[i]}"
        lines.append(f"{class_id} " + " ".join(f"{value:.6g}" for value in values) + number + "\n")
    return "".join(lines)
