"""Label files: labels/*.txt, one for every frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from data.detection.yolo_labels import label_text
from engine.inference.outputs.result import ClassifiedFrame, DetectedFrame, FrameResult
from utils.detections import Detections
from utils.files import write_atomically

Result = TypeVar("Result", bound=FrameResult)


class _TextFiles(ABC, Generic[Result]):
    """A text file for every frame, in a folder that is made."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, result: Result) -> None:
        """Write one file."""
        with write_atomically(self.folder / f"{result.frame_name}.txt") as file:
            file.write(self.text(result))

    def close(self) -> None:
        """Nothing is open."""

    @abstractmethod
    def text(self, result: Result) -> str:
        """Return the content of a frame's file."""


class Labels(_TextFiles[DetectedFrame]):
    """A line per object: class, box[, confidence][, track id].

    Args:
        folder: is made.
        confidences: add them as a column.
        corners: boxes as x1, y1, x2, y2 in pixels instead of YOLO's cx, cy, w, h as fractions.
    """

    def __init__(self, folder: Path, confidences: bool, corners: bool = False):
        super().__init__(folder)
        self.confidences, self.corners = confidences, corners

    def text(self, result: DetectedFrame) -> str:
        """Return a line for each object."""
        detections = result.detections
        if self.corners:
            return corner_text(detections, self.confidences)
        height, width = result.frame.image.shape[:2]
        scores = detections.scores if self.confidences else None
        return label_text(detections.class_ids, detections.xyxy, width, height, scores, detections.track_ids)


class ClassLabels(_TextFiles[ClassifiedFrame]):
    """A line per class: its probability and its name, the most probable first."""

    def text(self, result: ClassifiedFrame) -> str:
        """Return a line for each of the most probable classes."""
        return "".join(f"{probability:.5f} {result.names[k]}\n" for k, probability in result.best)


def corner_text(detections: Detections, confidences: bool) -> str:
    """Return a line per detection: class, x1, y1, x2, y2 in pixels[, confidence][, track id]."""
    lines = []
    for i, corners in enumerate(detections.xyxy.tolist()):
        values = [f"{value:.2f}" for value in corners]
        values += [f"{detections.scores[i]:.6f}"] if confidences else []
        values += [] if detections.track_ids is None else [str(detections.track_ids[i])]
        lines.append(" ".join([str(detections.class_ids[i]), *values]) + "\n")
    return "".join(lines)
