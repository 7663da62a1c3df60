"""Where the objects are: heatmaps/<name>.jpg, for crowds and for whole videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from data.media.large_image import overview
from engine.inference.outputs.media import write_image
from engine.inference.outputs.result import DRAWN_SIDE, DetectedFrame

GRID = 512  # cells along the longer side, in which objects are counted
STRIP = 256  # rows of the image that are colored in one go
SPREAD = 1.0  # standard deviation of an object's warmth, in mean sides of all objects


class HeatMap:
    """The density of objects over each image, and over the last frame of each video."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._grids: dict[Path, _Grid] = {}
        folder.mkdir(exist_ok=True)

    def add(self, result: DetectedFrame) -> None:
        """Count the objects of a frame."""
        path = result.frame.path
        if path not in self._grids:
            if not result.frame.side_by_side:
                self.close()
            self._grids[path] = _Grid(result)
        self._grids[path].add(result)

    def close(self) -> None:
        """Write what has been counted."""
        for grid in self._grids.values():
            write_image(self.folder / f"{grid.last.name}.jpg", grid.image())
        self._grids.clear()


class _Grid:
    """Objects of one file, counted in cells."""

    def __init__(self, first: DetectedFrame):
        height, width = first.frame.image.shape[:2]
        self.scale = GRID / max(height, width)
        self.counts = np.zeros(
            (max(round(height * self.scale), 1), max(round(width * self.scale), 1)), np.float32
        )
        self.sides, self.objects = 0.0, 0
        self.last = first

    def add(self, result: DetectedFrame) -> None:
        """Count every object where its center is."""
        boxes = result.detections.xyxy * self.scale
        centers = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
        height, width = self.counts.shape
        np.add.at(self.counts, (centers[:, 1].clip(0, height - 1), centers[:, 0].clip(0, width - 1)), 1)
        self.sides += float(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)).sum())
        self.objects += len(boxes)
        self.last = result

    def image(self) -> np.ndarray:
        """The last frame, darkened, and warm where objects are; (H, W, 3) uint8 BGR."""
        image, _ = overview(self.last.frame.image, DRAWN_SIDE)
        if not self.objects:
            return image
        spread = max(SPREAD * self.sides / self.objects, 1.0)
        heat = cv2.GaussianBlur(self.counts, (0, 0), spread)
        heat = cv2.resize(heat / heat.max(), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        warm = np.empty_like(image)
        for top in range(0, len(image), STRIP):  # floats of a large image would take gigabytes
            strip, part = heat[top : top + STRIP], image[top : top + STRIP]
            colors = cv2.applyColorMap((strip * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
            weight = np.sqrt(strip)[..., None] * 0.7
            warm[top : top + STRIP] = part * (1 - weight) + colors * weight
        return warm
