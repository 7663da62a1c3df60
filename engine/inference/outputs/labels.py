"""YOLO's label files."""

from __future__ import annotations

from pathlib import Path

from data.detection.yolo_labels import label_text
from engine.inference.outputs.result import FrameResult
from utils.detections import Detections


class Labels:
    """labels/*.txt, one for every frame: class, box[, confidence][, track id].

    Args:
        folder: is made.
        confidences: add them as a column.
        corners: boxes as x1, y1, x2, y2 in pixels instead of YOLO's cx, cy, w, h as fractions.
    """

    def __init__(self, folder: Path, confidences: bool, corners: bool = False):
        self.folder, self.confidences, self.corners = folder, confidences, corners
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file."""
        height, width = result.frame.image.shape[:2]
        detections = result.detections
        scores = detections.scores if self.confidences else None
        if self.corners:
            text = corner_text(detections, self.confidences)
        else:
            boxes, ids = detections.xyxy, detections.track_ids
            text = label_text(detections.class_ids, boxes, width, height, scores, ids)
        (self.folder / f"{result.frame_name}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


def corner_text(detections: Detections, confidences: bool) -> str:
    """Return a line per detection: class, x1, y1, x2, y2 in pixels[, confidence][, track id]."""
    lines = []
    for i, corners in enumerate(detections.xyxy.tolist()):
        values = [f"{value:.2f}" for value in corners]
        values += [f"{detections.scores[i]:.6f}"] if confidences else []
        values += [] if detections.track_ids is None else [str(detections.track_ids[i])]
        lines.append(" ".join([str(detections.class_ids[i]), *values]) + "\n")
    return "".join(lines)
