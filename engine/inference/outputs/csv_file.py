"""predictions.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from engine.inference.outputs.result import FrameResult


class Csv:
    """One line per object: file, frame, track id, class, confidence, corners in pixels."""

    COLUMNS = ("file", "frame", "id", "class", "name", "confidence", "x1", "y1", "x2", "y2")

    def __init__(self, path: Path):
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Append this frame's objects."""
        detections, frame = result.detections, result.frame
        tracks = detections.track_ids
        for i, (corners, score) in enumerate(zip(detections.xyxy, detections.scores, strict=True)):
            class_id = int(detections.class_ids[i])
            track = "" if tracks is None else int(tracks[i])
            about = [frame.where, frame.number, track, class_id, result.names[class_id]]
            self._writer.writerow([*about, f"{score:.5f}", *(f"{value:.2f}" for value in corners)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
