"""COCO's results format: the only writer of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.inference.outputs.result import DetectedFrame
from utils.detections import Detections
from utils.files import GrowingFile
from utils.unique_names import ImageIds


class CocoWriter:
    """COCO's results format, written image by image, so that memory stays flat over a long video.

    Boxes and scores have all their digits: what is read back scores exactly like what was written.

    Args:
        path: the JSON file; it has this name once `close` was called.
        category_ids: COCO's id of each class; None takes the class numbers themselves.

    Attributes:
        count: detections written.
    """

    def __init__(self, path: Path, category_ids: Sequence[int] | None = None):
        self.path, self.category_ids, self.count = path, category_ids, 0
        self._file = GrowingFile(path)
        self._file.write("[")

    def write(self, image_id: int | str, detections: Detections) -> None:
        """Append the detections of an image.

        Raises:
            UserError: the file cannot be written.
        """
        image = json.dumps(image_id, ensure_ascii=False)
        low, high = np.hsplit(detections.xyxy.astype(np.float64), 2)
        boxes = np.hstack((low, high - low)).tolist()
        scores = detections.scores.astype(np.float64).tolist()
        tracks = None if detections.track_ids is None else detections.track_ids.tolist()
        for i, class_id in enumerate(detections.class_ids.tolist()):
            category = class_id if self.category_ids is None else self.category_ids[class_id]
            track = "" if tracks is None else f', "track_id": {tracks[i]}'
            self._file.write(
                f'{"," if self.count else ""}\n{{"image_id": {image}, "category_id": {category}, '
                f'"bbox": {boxes[i]}, "score": {scores[i]}{track}}}'
            )
            self.count += 1

    def close(self) -> None:
        """Close the list.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            self._file.write("\n]\n")
        finally:
            self._file.close()


class CocoResults:
    """predictions.json of a run, with an image id by each frame's name."""

    def __init__(self, path: Path, category_ids: Sequence[int] | None = None):
        self._writer, self._id_of = CocoWriter(path, category_ids), ImageIds()

    def add(self, result: DetectedFrame) -> None:
        """Append this frame's objects."""
        self._writer.write(self._id_of(result.frame_name), result.detections)

    def close(self) -> None:
        """Close the list."""
        self._writer.close()
