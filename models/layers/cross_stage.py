"""YOLOv5's rarer blocks: the older cross-stage-partial block, and variants of C3; submodule names as there.

Wang et al., CVPR Workshops 2020, arXiv:1911.11929.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.blocks import C3, SPP, Bottleneck, Conv


class BottleneckCSP(nn.Module):
    """Bottlenecks beside a plain 1x1 convolution, joined before one BatchNorm, then a 1x1 Conv."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        repeat: int = 1,
        shortcut: bool = True,
        groups: int = 1,
        expansion: float = 0.5,
    ):
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = nn.Conv2d(c_in, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c_out)
        self.bn = nn.BatchNorm2d(2 * hidden, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, groups, 1.0) for _ in range(repeat)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))


class CrossConv(nn.Module):
    """A 1xk and a kx1 Conv, added to the input where `shortcut` and the channels allow it."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        expansion: float = 1.0,
        shortcut: bool = False,
    ):
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden, (1, kernel), (1, stride))
        self.cv2 = Conv(hidden, c_out, (kernel, 1), (stride, 1), groups=groups)
        self.add = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3x(C3):
    """A C3 of `CrossConv`s."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        repeat: int = 1,
        shortcut: bool = True,
        groups: int = 1,
        expansion: float = 0.5,
    ):
        super().__init__(c_in, c_out, 0, expansion=expansion)
        hidden = int(c_out * expansion)
        self.m = nn.Sequential(
            *(CrossConv(hidden, hidden, 3, 1, groups, 1.0, shortcut) for _ in range(repeat))
        )


class C3SPP(C3):
    """A C3 with one `SPP` in place of the bottlenecks."""

    def __init__(self, c_in: int, c_out: int, kernels: Sequence[int] = (5, 9, 13), expansion: float = 0.5):
        super().__init__(c_in, c_out, 0, expansion=expansion)
        hidden = int(c_out * expansion)
        self.m = SPP(hidden, hidden, kernels)


class Contract(nn.Module):
    """Move pixels into channels, without weights; channel group j*gain+i holds row offset j, column i."""

    def __init__(self, gain: int = 2):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, gain²·C, H/gain, W/gain)."""
        batch, channels, height, width = x.shape
        s = self.gain
        x = x.view(batch, channels, height // s, s, width // s, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, channels * s * s, height // s, width // s)


class Expand(nn.Module):
    """The inverse of `Contract`."""

    def __init__(self, gain: int = 2):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, gain²·C, H, W) -> (B, C, gain·H, gain·W)."""
        batch, channels, height, width = x.shape
        s = self.gain
        x = x.view(batch, s, s, channels // s**2, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, channels // s**2, height * s, width * s)
