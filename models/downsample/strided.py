"""Strided convolution: the baseline, exactly YOLOv5's Conv k3 s2."""

from __future__ import annotations

from models.layers.blocks import Conv


def strided(c_in: int, c_out: int) -> Conv:
    """(B, c_in, H, W) -> (B, c_out, ceil(H/2), ceil(W/2))."""
    return Conv(c_in, c_out, 3, 2)
