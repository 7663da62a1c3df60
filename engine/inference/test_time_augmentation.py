"""Test-time augmentation: detecting on scaled and mirrored copies of each image as well."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.runtimes import Predictor

COPIES = ((1.0, False), (0.83, True), (0.67, False))  # (scale, mirrored left to right), as in YOLOv5
GRAY = 0.447  # YOLOv5's border of a scaled copy
BOXES = (3, 1)  # per cell, with anchors and without; from them the number of levels is recognized


class TestTimeAugmentation:
    """A predictor that runs another one on several copies of an image; NMS chooses among all their boxes.

    As YOLOv5's `--augment`: the coarsest level of the full-size copy and the finest of the smallest one are
    left out, since each is better seen in another copy. Costs about 2.1 times the arithmetic. Finds more
    large and hard objects, seldom more of the smallest, since no copy is larger than the image.
    """

    __test__ = False  # not a test of pytest's, despite the name

    def __init__(self, predictor: Predictor, copies: Sequence[tuple[float, bool]] = COPIES):
        self.predictor, self.copies = predictor, copies
        self.names, self.task, self.config = predictor.names, predictor.task, predictor.config
        self.stride, self.imgsz, self.device = predictor.stride, predictor.imgsz, predictor.device

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, about 1.7 N, 5 + classes), in pixels of the images."""
        outputs = []
        last = len(self.copies) - 1
        for number, (scale, mirrored) in enumerate(self.copies):
            decoded, shape = self._copy(images, scale, mirrored)
            sizes = level_sizes(decoded.shape[1], shape, self.stride)
            if len(sizes) > 1 and last:
                start = sizes[0] if number == last else 0
                stop = decoded.shape[1] - (sizes[-1] if number == 0 else 0)
                decoded = decoded[:, start:stop]
            outputs.append(decoded)
        return torch.cat(outputs, 1)

    def _copy(self, images: Tensor, scale: float, mirrored: bool) -> tuple[Tensor, tuple[int, int]]:
        """The output for one copy, in pixels of the images, and the height and width of its input."""
        height, width = images.shape[2:]
        new_h, new_w = int(height * scale), int(width * scale)
        x = images.flip(3) if mirrored else images
        if scale != 1:
            x = F.interpolate(x, (new_h, new_w), mode="bilinear", align_corners=False)
            full_h, full_w = self.imgsz or (self._rounded(height * scale), self._rounded(width * scale))
            x = F.pad(x, (0, full_w - new_w, 0, full_h - new_h), value=GRAY)
        decoded = self.predictor(x).clone()
        ratios = (width / new_w, height / new_h)  # whole pixels: not quite those of `scale`
        decoded[..., :4] *= decoded.new_tensor(ratios * 2)
        if mirrored:
            decoded[..., 0] = width - decoded[..., 0]
        return decoded, (x.shape[2], x.shape[3])

    def _rounded(self, side: float) -> int:
        return math.ceil(side / self.stride) * self.stride


def level_sizes(boxes: int, shape: tuple[int, int], stride: int) -> list[int]:
    """Return how many of a detector's boxes belong to each level, finest first.

    Args:
        boxes: of the decoded output.
        shape: height and width of the input, pixels.
        stride: of the coarsest level, pixels; each finer one has half of it.

    Returns:
        One number per level; [boxes] where the levels cannot be told.
    """
    coarsest = (shape[0] // stride) * (shape[1] // stride)
    for per_cell, levels in itertools.product(BOXES, range(1, 6)):
        sizes = [per_cell * coarsest * 4**level for level in reversed(range(levels))]
        if sum(sizes) == boxes:
            return sizes
    return [boxes]
