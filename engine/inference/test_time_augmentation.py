"""Detecting on scaled and mirrored copies of each image as well."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.runtimes import Predictor

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # (scale, mirrored left to right), as in YOLOv5
_GRAY = 114 / 255


class TestTimeAugmentation:
    """A predictor that asks another one about several views; NMS then chooses among all their boxes.

    Costs about 2.1 times the arithmetic. Finds more of the large and the hard objects, and seldom more of the
    smallest, since no view is larger than the image.
    """

    __test__ = False  # not a test of pytest's, despite the name

    def __init__(self, predictor: Predictor, views: Sequence[tuple[float, bool]] = VIEWS):
        self.predictor, self.views = predictor, views
        self.names, self.task, self.config = predictor.names, predictor.task, predictor.config
        self.stride, self.imgsz, self.device = predictor.stride, predictor.imgsz, predictor.device
        self.overlaps = predictor.overlaps

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, about 2.1 N, 5 + classes), in pixels of the images."""
        return torch.cat([self._view(images, scale, mirror) for scale, mirror in self.views], 1)

    def _view(self, images: Tensor, scale: float, mirror: bool) -> Tensor:
        height, width = images.shape[2:]
        new_h, new_w = round(height * scale), round(width * scale)
        x = images.flip(3) if mirror else images
        if (new_h, new_w) != (height, width):
            x = F.interpolate(x, (new_h, new_w), mode="bilinear", align_corners=False, antialias=True)
            full_h, full_w = self.imgsz or (self._rounded(new_h), self._rounded(new_w))
            x = F.pad(x, (0, full_w - new_w, 0, full_h - new_h), value=_GRAY)
        rows = self.predictor(x).clone()
        rows[..., 0:4:2] *= width / new_w
        rows[..., 1:4:2] *= height / new_h
        if mirror:
            rows[..., 0] = width - rows[..., 0]
        return rows

    def _rounded(self, side: int) -> int:
        return math.ceil(side / self.stride) * self.stride
