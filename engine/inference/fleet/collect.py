"""From the rows of tiles, in any order and perhaps twice, to files whose frames are complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.inference.fleet.tiles import END
from engine.inference.pipeline import merge_image
from engine.inference.settings import DetectSettings
from utils.detections import Detections

TILE = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """The detections of an image, or of a frame of a video.

    Attributes:
        number: of the frame, from 1.
        width: pixels.
        height: pixels.
        tiles: how many inputs it took.
        detections: in pixels of the image, best first.
    """

    number: int
    width: int
    height: int
    tiles: int
    detections: Detections


@dataclass(frozen=True, eq=False)
class DetectedFile:
    """A file that is done.

    Attributes:
        index: its number in the listing.
        images: those of its frames that could be read, in order.
        error: what is wrong with it; None for nothing.
    """

    index: int
    images: Sequence[DetectedImage]
    error: str | None = None


@dataclass
class _Frame:
    width: int
    height: int
    boxes: np.ndarray  # (T, 4) of the tiles
    done: dict[int, Detections] = field(default_factory=dict)


@dataclass
class _File:
    frames: int | None = None  # None until it is known
    error: str | None = None
    started: dict[int, _Frame] = field(default_factory=dict)
    finished: dict[int, DetectedImage] = field(default_factory=dict)


class Collector:
    """Puts tiles together; holds only files that have begun to arrive and are not complete.

    Args:
        settings: how the detections of tiles are merged.
    """

    def __init__(self, settings: DetectSettings):
        self.settings = settings
        self._files: dict[int, _File] = {}

    def add(self, table: Any) -> Iterator[DetectedFile]:
        """Take a table of an actor; yield the files that are complete with it, which may come twice."""
        for row in table.to_pylist():
            complete = self._add(row)
            if complete is not None:
                yield complete

    def _add(self, row: dict[str, Any]) -> DetectedFile | None:
        index = row["index"]
        if row["tile"] != END and row["tiles"] == row["frames"] == 1:  # most files there are
            return DetectedFile(index, [self._merged(row, [_boxes(row)], _tile(row)[None])])
        file = self._files.setdefault(index, _File())
        if row["tile"] == END:
            file.frames, file.error = row["frames"], row["error"]
        else:
            file.frames = row["frames"] or file.frames
            self._add_tile(file, row)
        images = [file.finished[number] for number in sorted(file.finished)]
        if file.frames is None or len(images) < file.frames:
            return None
        del self._files[index]
        return DetectedFile(index, images, file.error)

    def _add_tile(self, file: _File, row: dict[str, Any]) -> None:
        number = row["frame"]
        if number in file.finished:
            return
        frame = file.started.get(number)
        if frame is None:
            frame = _Frame(row["width"], row["height"], np.zeros((row["tiles"], 4), np.int64))
            file.started[number] = frame
        frame.boxes[row["tile"]] = _tile(row)
        frame.done[row["tile"]] = _boxes(row)
        if len(frame.done) == row["tiles"]:
            done = [frame.done[tile] for tile in range(row["tiles"])]
            file.finished[number] = self._merged(row, done, frame.boxes)
            del file.started[number]

    def _merged(self, row: dict[str, Any], done: Sequence[Detections], tiles: np.ndarray) -> DetectedImage:
        detections = merge_image(done, tiles, self.settings)
        return DetectedImage(row["frame"], row["width"], row["height"], len(tiles), detections)


def _tile(row: dict[str, Any]) -> np.ndarray:
    return np.array([row[key] for key in TILE])


def _boxes(row: dict[str, Any]) -> Detections:
    return Detections.from_array(np.frombuffer(row["boxes"], np.float32))
