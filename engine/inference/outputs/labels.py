"""YOLO's label files."""

from __future__ import annotations

from pathlib import Path

from data.detection.yolo_labels import label_text
from engine.inference.outputs.result import FrameResult


class Labels:
    """YOLO's labels/*.txt: class, cx, cy, w, h as fractions[, confidence][, id]; a file for every frame."""

    def __init__(self, folder: Path, confidences: bool):
        self.folder, self.confidences = folder, confidences
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file."""
        height, width = result.frame.image.shape[:2]
        detections = result.detections
        scores = detections.scores if self.confidences else None
        text = label_text(detections.class_ids, detections.xyxy, width, height, scores, detections.track_ids)
        (self.folder / f"{result.frame_name}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""
