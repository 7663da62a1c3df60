"""predictions.csv."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from engine.inference.outputs.result import ClassifiedFrame, DetectedFrame, FrameResult
from utils.files import GrowingFile

Result = TypeVar("Result", bound=FrameResult)


class _Csv(ABC, Generic[Result]):
    """A CSV file with a line for everything that is in a frame."""

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path):
        self._file = GrowingFile(path)
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.columns)

    def add(self, result: Result) -> None:
        """Append this frame's lines."""
        self._writer.writerows(self.lines(result))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    @abstractmethod
    def lines(self, result: Result) -> Iterator[list[object]]:
        """Yield a line's values, as many as there are columns."""


class Csv(_Csv[DetectedFrame]):
    """One line per object: file, frame, track id, class, confidence, corners in pixels."""

    columns = ("file", "frame", "id", "class", "name", "confidence", "x1", "y1", "x2", "y2")

    def lines(self, result: DetectedFrame) -> Iterator[list[object]]:
        """Yield a line for each object."""
        detections, frame = result.detections, result.frame
        tracks = detections.track_ids
        for i, (corners, score) in enumerate(zip(detections.xyxy, detections.scores, strict=True)):
            class_id = int(detections.class_ids[i])
            track = "" if tracks is None else int(tracks[i])
            about = [frame.where, frame.number, track, class_id, result.names[class_id]]
            yield [*about, f"{score:.5f}", *(f"{value:.2f}" for value in corners)]


class ClassesCsv(_Csv[ClassifiedFrame]):
    """One line per class of a frame: file, frame, rank, class, name, probability."""

    columns = ("file", "frame", "rank", "class", "name", "confidence")

    def lines(self, result: ClassifiedFrame) -> Iterator[list[object]]:
        """Yield a line for each of the most probable classes."""
        for rank, (k, probability) in enumerate(result.best, 1):
            yield [
                result.frame.where,
                result.frame.number,
                rank,
                k,
                result.names[k],
                f"{probability:.5f}",
            ]
