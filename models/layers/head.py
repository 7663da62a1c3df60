"""What detection heads share, and YOLOv5's anchor-based head."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class DetectionHead(nn.Module, ABC):
    """The last layer of a detector: from the maps of several levels to boxes and scores.

    Attributes:
        nc, nl: number of classes and of levels.
        stride: (nl,) pixels per cell of each level, always float32.
    """

    stride: Tensor

    def __init__(self, num_classes: int, num_levels: int):
        super().__init__()
        self.nc, self.nl = num_classes, num_levels
        self.register_buffer("stride", torch.ones(num_levels), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DetectionHead:
        """Move with the network, but keep strides, and anchors, in float32 when it goes to 16 bits."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    @abstractmethod
    def initialize_bias(self) -> None:
        """Start from few objects per image and equally likely classes; the strides are known by now."""

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Raw maps -> (B, N, 5 + nc) in float32: cx, cy, w, h in pixels, objectness, class scores."""
        return torch.cat([self._decode_level(i, level.float()) for i, level in enumerate(raw)], 1)

    @abstractmethod
    def _decode_level(self, level: int, raw: Tensor) -> Tensor: ...


class Detect(DetectionHead):
    """A 1x1 convolution per level; each anchor of each cell predicts a box, objectness and class scores.

    Attributes:
        na, no: number of anchors per level, of values per prediction (5 + nc).
        anchors: (nl, na, 2) widths and heights in strides of their level, always float32.
    """

    anchors: Tensor

    def __init__(self, num_classes: int, num_anchors: int, channels: Sequence[int]):
        super().__init__(num_classes, len(channels))
        self.na, self.no = num_anchors, num_classes + 5
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in channels)
        self.register_buffer("anchors", torch.ones(self.nl, self.na, 2))

    def initialize_bias(self) -> None:
        """Start from 8 objects per 640-pixel image and equally likely classes (arXiv:1708.02002, 3.3)."""
        with torch.no_grad():
            for conv, stride in zip(self.m, self.stride.tolist(), strict=True):
                assert isinstance(conv, nn.Conv2d) and conv.bias is not None
                bias = conv.bias.view(self.na, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (self.nc - 0.99999))

    def forward(self, maps: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Training: the raw maps, a list of (B, na, H_i, W_i, no). Eval: (decoded (B, N, no), raw maps)."""
        raw = []
        for conv, x in zip(self.m, maps, strict=True):
            y = conv(x)  # (B, na*no, H, W)
            batch, _, height, width = y.shape
            y = y.view(batch, self.na, self.no, height, width)
            raw.append(y.permute(0, 1, 3, 4, 2).contiguous())  # (B, na, H, W, no)
        return raw if self.training else (self.decode(raw), raw)

    def _decode_level(self, level: int, raw: Tensor) -> Tensor:
        batch, _, height, width, _ = raw.shape
        stride = self.stride[level]
        columns = torch.arange(width, device=raw.device, dtype=raw.dtype)
        rows = torch.arange(height, device=raw.device, dtype=raw.dtype)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2): x, y
        anchors = (self.anchors[level] * stride).view(self.na, 1, 1, 2)
        y = raw.sigmoid()
        xy = (y[..., :2] * 2 - 0.5 + grid) * stride
        sides = y[..., 2:4] * 2
        wh = sides * sides * anchors  # a power is no operator of every runtime
        return torch.cat((xy, wh, y[..., 4:]), -1).view(batch, -1, self.no)  # (B, na*H*W, no)
