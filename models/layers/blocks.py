"""The convolution blocks of YOLOv5 v6+, with its submodule names, so that its state dicts fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Convolution without bias, BatchNorm, activation; padded by kernel // 2 unless `padding` is given.

    `models.fuse` folds `bn` into `conv` and leaves an identity in its place.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: bool = True,
    ):
        super().__init__()
        half = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
        same = half if padding is None else padding
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, same, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03)
        self.act: nn.Module = nn.SiLU(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride), rounded up for odd kernels."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 Conv, added to the input where `shortcut` and the channels allow it."""

    def __init__(self, c_in: int, c_out: int, shortcut: bool = True, groups: int = 1, expansion: float = 0.5):
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(hidden, c_out, 3, groups=groups)
        self.add = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage-partial block: `repeat` bottlenecks on one branch beside a 1x1 branch, then a 1x1 Conv."""

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
        self.cv2 = Conv(c_in, hidden)
        self.cv3 = Conv(2 * hidden, c_out)
        self.m: nn.Module = nn.Sequential(
            *(Bottleneck(hidden, hidden, shortcut, groups, 1.0) for _ in range(repeat))
        )
        self.merged = False  # run cv1 and cv2 as one while training; see models/fast_training.py

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        if self.merged and self.cv1.bn.training and self.cv2.bn.training:
            left, right = run_as_one(self.cv1, self.cv2, x)
        else:
            left, right = self.cv1(x), self.cv2(x)
        return self.cv3(torch.cat((self.m(left), right), 1))


def run_as_one(first: Conv, second: Conv, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run two 1x1 Convs of equal settings on one input in training, with the values that each gives alone.

    (B, c_in, H, W) -> (B, c_1, H, W), (B, c_2, H, W).
    """
    norms: list[Any] = [first.bn, second.bn]
    counts = [norm.num_features for norm in norms]
    mean, var, gain, bias = (
        torch.cat([getattr(norm, name) for norm in norms])
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    y = F.conv2d(x, torch.cat((first.conv.weight, second.conv.weight)))
    y = F.batch_norm(y, mean, var, gain, bias, True, norms[0].momentum, norms[0].eps)
    for norm, new_mean, new_var in zip(norms, mean.split(counts), var.split(counts), strict=True):
        norm.running_mean.copy_(new_mean)
        norm.running_var.copy_(new_var)
        norm.num_batches_tracked.add_(1)
    left, right = first.act(y).split(counts, 1)
    return left, right


class SPP(nn.Module):
    """Spatial pyramid pooling: max pools of several kernels side by side."""

    def __init__(self, c_in: int, c_out: int, kernels: Sequence[int] = (5, 9, 13)):
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(hidden * (len(kernels) + 1), c_out)
        self.m = nn.ModuleList(nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """SPP(5, 9, 13) as three successive pools of one kernel: the same result with less work."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 5):
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(hidden * 4, c_out)
        self.m = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        x = self.cv1(x)
        y = self.m(x)
        z = self.m(y)
        return self.cv2(torch.cat((x, y, z, self.m(z)), 1))


class Concat(nn.Module):
    """Join maps of one size along a dimension."""

    def __init__(self, dimension: int = 1):
        super().__init__()
        self.d = dimension

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, C_i, H, W) each -> (B, sum of C_i, H, W) for dimension 1."""
        return torch.cat(maps, self.d)
