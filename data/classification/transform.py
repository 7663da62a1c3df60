"""How an image becomes a classifier's input: its central square, resized, with zeros around it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class InputTransform:
    """Crops an image's central square, resizes it and centers it on zeros.

    Attributes:
        resize: side to which the central square is resized, px.
        imgsz: side of the input, px; pixels around the square are 0.
    """

    resize: int
    imgsz: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 -> (imgsz, imgsz, C) uint8."""
        height, width, channels = image.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[top : top + side, left : left + side]
        if side != self.resize:
            interpolation = cv2.INTER_AREA if side > self.resize else cv2.INTER_LINEAR
            square = cv2.resize(square, (self.resize, self.resize), interpolation=interpolation)
            square = square.reshape(self.resize, self.resize, channels)  # OpenCV drops a single channel
        before = (self.imgsz - self.resize) // 2
        canvas = np.zeros((self.imgsz, self.imgsz, channels), np.uint8)
        canvas[before : before + self.resize, before : before + self.resize] = square
        return canvas
