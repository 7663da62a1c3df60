"""Ghost convolutions: half of the channels come from cheap depthwise filters of the other half.

Han et al., CVPR 2020, arXiv:1911.11907; submodule names as in YOLOv5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.blocks import C3, Conv


class GhostConv(nn.Module):
    """A Conv makes half of the channels; a depthwise 5x5 Conv of these makes the other half."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ):
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, hidden, kernel, stride, groups=groups, activation=activation)
        self.cv2 = Conv(hidden, hidden, 5, groups=hidden, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """Two 1x1 ghost convolutions beside a shortcut, at stride 1."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 2
        self.conv = nn.Sequential(
            GhostConv(channels, hidden), nn.Identity(), GhostConv(hidden, channels, activation=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.conv(x) + x


class C3Ghost(C3):
    """A C3 of ghost bottlenecks."""

    def __init__(self, c_in: int, c_out: int, repeat: int = 1):
        super().__init__(c_in, c_out, 0)
        self.m = nn.Sequential(*(GhostBottleneck(c_out // 2) for _ in range(repeat)))
