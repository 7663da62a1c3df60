"""SPD-Conv: space-to-depth, then a stride-1 convolution.

Sunkara & Luo, ECML PKDD 2022, arXiv:2208.03641. The paper's block is `SPDConv`; the released YOLOv5-SPD
networks instead run a stride-1 Conv, then a bare `SpaceToDepth` whose channels the next block mixes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Conv


def space_to_depth(x: Tensor, scale: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, scale²·C, H/scale, W/scale).

    Channel group j*scale+i holds row offset i, column offset j.

    Raises:
        ValueError: H or W is not divisible by `scale`, or `scale` is not a whole number above 0.
    """
    if type(scale) is not int or scale < 1:
        raise ValueError(f"space_to_depth: the scale must be a whole number above 0, got {scale!r}")
    height, width = x.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"space_to_depth: height {height} and width {width} must be divisible by {scale}")
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        batch, channels = x.shape[:2]
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C), one copy of whole pixels instead of strided slices
        x = x.reshape(batch, height // scale, scale, width // scale, scale, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # (B, H/scale, W/scale, scale²·C)
        return x.permute(0, 3, 1, 2)
    return torch.cat([x[..., i::scale, j::scale] for j in range(scale) for i in range(scale)], 1)


def strided_weight(weight: Tensor) -> Tensor:
    """(c_out, 4C, k, k) after a space-to-depth -> (c_out, C, 2k, 2k) of the equal stride-2 convolution.

    A padding of p pixels after the space-to-depth becomes 2p.
    """
    c_out, c_in, height, width = weight.shape
    grouped = weight.reshape(c_out, 2, 2, c_in // 4, height, width)  # column offset, row offset, channel
    return grouped.permute(0, 3, 4, 2, 5, 1).reshape(c_out, c_in // 4, 2 * height, 2 * width)


class SpaceToDepth(nn.Module):
    """`space_to_depth` as a layer; strict about odd sizes, unless `pad` adds a row or column of zeros."""

    def __init__(self, pad: bool = False):
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H/2, W/2)."""
        return space_to_depth(pad_to_even(x) if self.pad else x)


class Focus(nn.Module):
    """YOLOv5's old stem: space-to-depth, then a Conv."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1):
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/2, W/2)."""
        return self.conv(space_to_depth(x))


class SPDConv(Conv):
    """The paper's block; an odd side gets one row or column of zeros first."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3):
        super().__init__(4 * c_in, c_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, ceil(H/2), ceil(W/2))."""
        return super().forward(space_to_depth(pad_to_even(x)))


def pad_to_even(x: Tensor) -> Tensor:
    """Add a row of zeros below and a column at the right where H or W is odd."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
