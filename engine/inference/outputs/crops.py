"""Crops of the detected objects."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data.media.large_image import LargeImage
from engine.inference.outputs.media import write_image
from engine.inference.outputs.result import DRAWN_SIDE, DetectedFrame


class Crops:
    """crops/<class>/<name>-<number>.jpg: each object with a small border."""

    BORDER = 10  # pixels on each side

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, result: DetectedFrame) -> None:
        """Write one file per object."""
        image = result.frame.image
        corners, classes = result.detections.xyxy.tolist(), result.detections.class_ids.tolist()
        for number, ((x1, y1, x2, y2), class_id) in enumerate(zip(corners, classes, strict=True), 1):
            left, top = max(int(x1) - self.BORDER, 0), max(int(y1) - self.BORDER, 0)
            crop = _cut(image, left, top, int(x2) + 1 + self.BORDER, int(y2) + 1 + self.BORDER)
            folder = self.folder / re.sub(r'[\\/:*?"<>|]|^\.+', "_", result.names[class_id])
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{result.frame_name}-{number}.jpg", crop)

    def close(self) -> None:
        """Nothing is open."""


def _cut(image: np.ndarray | LargeImage, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """(h, w, 3) uint8 BGR; what is too large to be drawn is cut out of an overview of the image."""
    if isinstance(image, LargeImage) and max(x1 - x0, y1 - y0) > DRAWN_SIDE:
        small = image.overview(DRAWN_SIDE)
        height, width = small.shape[:2]
        x0, x1 = (x * width // image.shape[1] for x in (x0, x1))
        y0, y1 = (y * height // image.shape[0] for y in (y0, y1))
        return small[min(y0, height - 1) : max(y1, y0 + 1), min(x0, width - 1) : max(x1, x0 + 1)]
    return image[y0:y1, x0:x1]
