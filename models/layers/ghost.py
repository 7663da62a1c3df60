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
    """Two 1x1 ghost convolutions beside a shortcut; at stride 2 both branches halve the map depthwise."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        if stride not in (1, 2) or (stride == 1 and c_in != c_out):
            raise ValueError(f"a ghost bottleneck of stride {stride} cannot map {c_in} channels to {c_out}")
        hidden = c_out // 2
        halve: nn.Module = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            halve = Conv(hidden, hidden, kernel, stride, groups=hidden, activation=False)
            self.shortcut = nn.Sequential(
                Conv(c_in, c_in, kernel, stride, groups=c_in, activation=False),
                Conv(c_in, c_out, activation=False),
            )
        self.conv = nn.Sequential(GhostConv(c_in, hidden), halve, GhostConv(hidden, c_out, activation=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""
        return self.conv(x) + self.shortcut(x)


class C3Ghost(C3):
    """A C3 of ghost bottlenecks; as in YOLOv5, they always have their shortcut."""

    def __init__(self, c_in: int, c_out: int, repeat: int = 1, expansion: float = 0.5):
        super().__init__(c_in, c_out, 0, expansion=expansion)
        hidden = int(c_out * expansion)
        self.m = nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(repeat)))
