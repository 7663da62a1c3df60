"""Pooling by two: maximum, average, and blur (Zhang, ICML 2019, arXiv:1904.11486)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def max_pool() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the largest value of each window."""
    return nn.MaxPool2d(2, ceil_mode=True)


def average_pool() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the mean of the values inside each window."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


class BlurPool2d(nn.Module):
    """The binomial filter 1-2-1, then every second pixel; borders are mirrored."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, stride=2, groups=channels)
