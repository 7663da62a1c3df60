"""Tracking objects through videos: an id for each, and how many there were of each class."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data.media.frame import Frame
from engine.inference.outputs.result import DetectedFrame
from engine.inference.settings import TRACKED_FROM
from utils.detections import Detections
from utils.errors import UserError
from utils.files import write_atomically
from utils.ultralytics_adapter import TrackerKind, make_tracker


class Tracking:
    """One tracker for each video or stream."""

    def __init__(self, kind: TrackerKind, conf_thres: float):
        self.kind, self.conf_thres = kind, conf_thres
        self._trackers: dict[Path, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {}

    def __call__(self, frame: Frame, detections: Detections) -> Detections:
        """Detections of the next frame -> tracked objects with their track ids, inside the frame.

        Raises:
            UserError: the frame is an image.
        """
        if not frame.is_video or not isinstance(frame.image, np.ndarray):
            raise UserError(f"{frame.where}: objects are tracked through videos and streams, not images")
        if frame.path not in self._trackers:
            if not frame.side_by_side:
                self._trackers.clear()
            self._trackers[frame.path] = make_tracker(self.kind, self.conf_thres, TRACKED_FROM)
        tracks, ids = self._trackers[frame.path](detections.to_array(), frame.image)
        height, width = frame.image.shape[:2]
        tracked = replace(Detections.from_array(tracks), track_ids=ids.astype(np.int64))
        return tracked.clipped(width, height)  # a track may predict beyond the frame


@dataclass
class _Track:
    first: int
    last: int = 0
    frames: int = 0
    classes: Counter[int] = field(default_factory=Counter)


class Tracks:
    """tracks.csv: a line per track, with its most frequent class.

    Args:
        names: the classes.

    Attributes:
        path: the file that `close` writes; None for none.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.path: Path | None = None
        self._tracks: dict[tuple[str, int], _Track] = {}

    def add(self, result: DetectedFrame) -> None:
        """Count the tracks of a frame."""
        ids, classes = result.detections.track_ids, result.detections.class_ids
        if ids is None:
            return
        for track_id, class_id in zip(ids.tolist(), classes.tolist(), strict=True):
            track = self._tracks.setdefault((result.frame.where, track_id), _Track(result.frame.number))
            track.last = result.frame.number
            track.frames += 1
            track.classes[class_id] += 1

    def counts(self) -> dict[str, int]:
        """How many different objects there were of each class."""
        classes = Counter(track.classes.most_common(1)[0][0] for track in self._tracks.values())
        return {self.names[index]: count for index, count in sorted(classes.items())}

    def close(self) -> None:
        """Write the file.

        Raises:
            UserError: it cannot be written.
        """
        if self.path is None:
            return
        with write_atomically(self.path, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "id", "class", "name", "first_frame", "last_frame", "frames"])
            for (where, number), track in self._tracks.items():
                index = track.classes.most_common(1)[0][0]
                writer.writerow(
                    [where, number, index, self.names[index], track.first, track.last, track.frames]
                )
