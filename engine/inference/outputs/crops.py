"""Crops of the detected objects."""

from __future__ import annotations

import re
from pathlib import Path

from engine.inference.outputs.media import write_image
from engine.inference.outputs.result import FrameResult


class Crops:
    """crops/<class>/<name>-<number>.jpg: each object with a small border."""

    BORDER = 10  # pixels on each side

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, result: FrameResult) -> None:
        """Write one file per object."""
        image = result.frame.image
        corners, classes = result.detections.xyxy.tolist(), result.detections.class_ids.tolist()
        for number, ((x1, y1, x2, y2), class_id) in enumerate(zip(corners, classes, strict=True), 1):
            left, top = max(int(x1) - self.BORDER, 0), max(int(y1) - self.BORDER, 0)
            crop = image[top : int(y2) + 1 + self.BORDER, left : int(x2) + 1 + self.BORDER]
            folder = self.folder / re.sub(r'[\\/:*?"<>|]|^\.+', "_", result.names[class_id])
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{result.frame_name}-{number}.jpg", crop)

    def close(self) -> None:
        """Nothing is open."""
