"""SPD-Conv: space-to-depth, then a stride-1 convolution.

Sunkara & Luo, ECML PKDD 2022, arXiv:2208.03641. The paper's block is `SPDConv`; the released YOLOv5-SPD
networks instead run a stride-1 Conv and then a bare `SpaceToDepth`, whose channels the next block mixes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import Conv


def space_to_depth(x: Tensor, scale: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, scale²·C, H/scale, W/scale).

    Channel group j*scale+i holds row offset i, column offset j.

    Raises:
        ValueError: H or W is not divisible by `scale`.
    """
    height, width = x.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"space_to_depth: height {height} and width {width} must be divisible by {scale}")
    return torch.cat([x[..., i::scale, j::scale] for j in range(scale) for i in range(scale)], 1)


class SpaceToDepth(nn.Module):
    """`space_to_depth` as a layer, strict about odd sizes: (B, C, H, W) -> (B, 4C, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        return space_to_depth(x)


class Focus(nn.Module):
    """YOLOv5's stem, space-to-depth and a Conv: (B, c_in, H, W) -> (B, c_out, H/2, W/2)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1):
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(space_to_depth(x))


class SPDConv(Conv):
    """The paper's block: (B, c_in, H, W) -> (B, c_out, ceil(H/2), ceil(W/2)); odd sides get a row of zeros."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3):
        super().__init__(4 * c_in, c_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        return super().forward(space_to_depth(x))
