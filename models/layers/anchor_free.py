"""An anchor-free detection head: each cell predicts the distances to the four sides of one box.

A branch of its own for boxes and for classes (YOLOX, arXiv:2107.08430); every distance is the mean of a
discrete distribution over whole strides (generalized focal loss, arXiv:2006.04388).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.blocks import Conv
from models.layers.head import DetectionHead

BINS = 16  # distances of 0 to 15 strides
START_DECAY = 0.5  # each bin starts with exp(-START_DECAY) of the share before it: 1.5 strides on average


class AnchorFreeDetect(DetectionHead):
    """Per level two branches of 3x3 convolutions, one for the box and one for the classes.

    A score is that of a box and its class together; there is no objectness of its own, and the column that
    YOLOv5's layout has for it is 1.

    Attributes:
        bins: values that a distance may have before the mean over them is taken.
    """

    def __init__(self, num_classes: int, channels: Sequence[int], bins: int = BINS):
        super().__init__(num_classes, len(channels))
        self.bins = bins
        box = max(16, channels[0] // 4, 4 * bins)
        score = max(channels[0], min(num_classes, 100))
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(c, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * bins, 1)) for c in channels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(
                Conv(c, c, 3, groups=c),
                Conv(c, score),
                Conv(score, score, 3, groups=score),
                Conv(score, score),
                nn.Conv2d(score, num_classes, 1),
            )
            for c in channels
        )

    @property
    def longest_side(self) -> float:
        """Pixels of the input: no box can be wider or higher, even one whose center is a cell's."""
        return 2 * (self.bins - 1) * float(self.stride.max())

    def initialize_bias(self) -> None:
        """Start from boxes of about three strides, and from 8 objects per 640-pixel image.

        Equal shares would start from boxes of `bins` - 1 strides, which overlap small objects so little that
        these hardly weigh in the loss.
        """
        with torch.no_grad():
            for box, score, stride in zip(self.boxes, self.scores, self.stride.tolist(), strict=True):
                _last_bias(box).copy_(torch.arange(self.bins).mul(-START_DECAY).repeat(4))
                _last_bias(score).fill_(math.log(8 / self.nc / (640 / stride) ** 2))

    def forward(self, maps: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Training: the raw maps, a list of (B, 1, H_i, W_i, 4·bins + nc). Eval: (decoded, raw maps)."""
        raw = []
        for box, score, x in zip(self.boxes, self.scores, maps, strict=True):
            y = torch.cat((box(x), score(x)), 1)  # (B, 4·bins + nc, H, W)
            raw.append(y.permute(0, 2, 3, 1).unsqueeze(1))  # (B, 1, H, W, 4·bins + nc)
        return raw if self.training else (self.decode(raw), raw)

    def distances(self, logits: Tensor) -> Tensor:
        """(..., 4·bins) logits -> (..., 4) distances to left, top, right and bottom, strides."""
        shares = logits.unflatten(-1, (4, self.bins)).softmax(-1)
        steps = torch.arange(self.bins, dtype=shares.dtype, device=shares.device)
        return (shares @ steps.unsqueeze(1)).squeeze(-1)  # not every runtime multiplies by a vector

    def _decode_level(self, level: int, raw: Tensor) -> Tensor:
        _, _, height, width, _ = raw.shape
        flat = raw.flatten(1, 3)  # (B, H·W, 4·bins + nc)
        low, high = self.distances(flat[..., : 4 * self.bins]).chunk(2, -1)
        center = cell_centers(height, width, raw) + (high - low) / 2  # (B, H·W, 2) strides
        boxes = torch.cat((center, low + high), -1) * self.stride[level]
        scores = flat[..., 4 * self.bins :].sigmoid()
        return torch.cat((boxes, torch.ones_like(scores[..., :1]), scores), -1)  # (B, H·W, 5 + nc)


def _last_bias(branch: nn.Module) -> Tensor:
    last = list(branch.children())[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    return last.bias


def cell_centers(height: int, width: int, like: Tensor) -> Tensor:
    """(H·W, 2) x, y of the centers of a level's cells, in strides, on the device of `like`."""
    columns = torch.arange(width, device=like.device, dtype=like.dtype) + 0.5
    rows = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).flatten(0, 1)
