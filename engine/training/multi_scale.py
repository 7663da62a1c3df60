"""Multi-scale training: another input size for each batch, resized on the training device."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

SMALLEST, LARGEST = 0.5, 1.5  # as shares of --imgsz


def scaled_side(imgsz: int, stride: int, seed: int, epoch: int, batch: int) -> int:
    """Return the input side of a batch: a multiple of `stride` from half to one and a half `imgsz`.

    It depends on the arguments alone, so that every process of a run gets the same.
    """
    low, high = -(-int(SMALLEST * imgsz) // stride), int(LARGEST * imgsz) // stride
    return int(np.random.default_rng((seed, epoch, batch)).integers(low, high + 1)) * stride


def rescaled(images: Tensor, side: int) -> Tensor:
    """Resize square images (B, 3, H, H), floating point, to (B, 3, side, side).

    Targets and regions are fractions of the image and need no change. Shrinking averages over the pixels, so
    that small objects are not lost between them.
    """
    if images.shape[2:] == (side, side):
        return images
    shrinks = side < images.shape[2]
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=shrinks)
