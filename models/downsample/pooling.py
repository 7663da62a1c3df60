"""Max and average pooling over 2x2 windows; the last window of an odd side covers what is left."""

from __future__ import annotations

from torch import nn


def max_pool() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the largest value of each window."""
    return nn.MaxPool2d(2, ceil_mode=True)


def average_pool() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the mean of the values inside each window."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
