"""The builders of the blocks that a row of a model YAML can name; each computes its own output channels.

A docstring gives the arguments of the row; channels (`out`) are those before scaling.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from models.downsample import make_downsampler
from models.downsample.spd import Focus, SpaceToDepth
from models.layers.anchor_free import BINS, AnchorFreeDetect
from models.layers.blocks import C3, SPP, SPPF, Bottleneck, Concat, Conv
from models.layers.cross_stage import C3SPP, BottleneckCSP, C3x, Contract, CrossConv, Expand
from models.layers.ghost import C3Ghost, GhostBottleneck, GhostConv
from models.layers.head import Detect
from models.layers.transformer import C3TR
from models.registry import Scale, block
from utils.errors import UserError

Layer = tuple[nn.Module, int]  # the module, its output channels


@block("Conv")
def conv(
    c_in: list[int],
    scale: Scale,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
) -> Layer:
    """[out, kernel, stride, padding, groups]."""
    c_out = scale.channels(out)
    return Conv(c_in[0], c_out, kernel, stride, padding, groups), c_out


@block("DWConv")
def depthwise_conv(c_in: list[int], scale: Scale, out: int, kernel: int = 1, stride: int = 1) -> Layer:
    """[out, kernel, stride]; as many groups as the channels before and after allow."""
    c_out = scale.channels(out)
    return Conv(c_in[0], c_out, kernel, stride, groups=math.gcd(c_in[0], c_out)), c_out


@block("Bottleneck")
def bottleneck(
    c_in: list[int], scale: Scale, out: int, shortcut: bool = True, groups: int = 1, expansion: float = 0.5
) -> Layer:
    """[out, shortcut, groups, expansion]."""
    c_out = scale.channels(out)
    return Bottleneck(c_in[0], c_out, shortcut, groups, expansion), c_out


@block("C3")
def c3(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Layer:
    """[out, shortcut, groups, expansion]; the bottlenecks repeat."""
    c_out = scale.channels(out)
    return C3(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("GhostConv")
def ghost_conv(
    c_in: list[int], scale: Scale, out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Layer:
    """[out, kernel, stride, groups]."""
    c_out = scale.channels(out)
    return GhostConv(c_in[0], c_out, kernel, stride, groups), c_out


@block("GhostBottleneck")
def ghost_bottleneck(c_in: list[int], scale: Scale, out: int, kernel: int = 3, stride: int = 1) -> Layer:
    """[out, kernel, stride]."""
    c_out = scale.channels(out)
    return GhostBottleneck(c_in[0], c_out, kernel, stride), c_out


@block("C3Ghost")
def c3_ghost(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Layer:
    """[out, shortcut, groups, expansion]; the bottlenecks repeat."""
    c_out = scale.channels(out)  # YOLOv5 takes shortcut and groups here, and makes no use of them
    return C3Ghost(c_in[0], c_out, repeat, expansion), c_out


@block("BottleneckCSP")
def bottleneck_csp(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Layer:
    """[out, shortcut, groups, expansion]; the bottlenecks repeat."""
    c_out = scale.channels(out)
    return BottleneckCSP(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("C3x")
def c3x(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Layer:
    """[out, shortcut, groups, expansion]; the bottlenecks repeat."""
    c_out = scale.channels(out)
    return C3x(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("C3SPP")
def c3_spp(c_in: list[int], scale: Scale, out: int, kernels: list[int] | None = None) -> Layer:
    """[out, kernels]."""
    c_out = scale.channels(out)
    return C3SPP(c_in[0], c_out, kernels or (5, 9, 13)), c_out


@block("CrossConv")
def cross_conv(
    c_in: list[int],
    scale: Scale,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    expansion: float = 1.0,
    shortcut: bool = False,
) -> Layer:
    """[out, kernel, stride, groups, expansion, shortcut]."""
    c_out = scale.channels(out)
    return CrossConv(c_in[0], c_out, kernel, stride, groups, expansion, shortcut), c_out


@block("Contract")
def contract(c_in: list[int], scale: Scale, gain: int = 2) -> Layer:
    """[gain]."""
    return Contract(gain), c_in[0] * gain**2


@block("Expand")
def expand(c_in: list[int], scale: Scale, gain: int = 2) -> Layer:
    """[gain]."""
    if c_in[0] % gain**2:
        raise UserError(f"{c_in[0]} channels cannot be divided by {gain}²")
    return Expand(gain), c_in[0] // gain**2


@block("nn.ConvTranspose2d")
def conv_transpose(
    c_in: list[int], scale: Scale, out: int, kernel: int, stride: int = 1, padding: int = 0
) -> Layer:
    """[out, kernel, stride, padding]."""
    c_out = scale.channels(out)
    return nn.ConvTranspose2d(c_in[0], c_out, kernel, stride, padding), c_out


@block("C3TR")
def c3_transformer(c_in: list[int], scale: Scale, out: int, *, repeat: int) -> Layer:
    """[out]; the transformer layers repeat."""
    c_out = scale.channels(out)
    return C3TR(c_in[0], c_out, repeat), c_out


@block("SPP")
def spp(c_in: list[int], scale: Scale, out: int, kernels: list[int] | None = None) -> Layer:
    """[out, kernels]."""
    c_out = scale.channels(out)
    return SPP(c_in[0], c_out, kernels or (5, 9, 13)), c_out


@block("SPPF")
def sppf(c_in: list[int], scale: Scale, out: int, kernel: int = 5) -> Layer:
    """[out, kernel]."""
    c_out = scale.channels(out)
    return SPPF(c_in[0], c_out, kernel), c_out


@block("Focus")
def focus(c_in: list[int], scale: Scale, out: int, kernel: int = 1) -> Layer:
    """[out, kernel]."""
    c_out = scale.channels(out)
    return Focus(c_in[0], c_out, kernel), c_out


@block("space_to_depth", "SpaceToDepth")
def space_to_depth(c_in: list[int], scale: Scale, dimension: int = 1) -> Layer:
    """[dimension], which is 1 as in the released files."""
    if dimension != 1:
        raise UserError(f"stacks along dimension 1, the channels, not {dimension}")
    return SpaceToDepth(), 4 * c_in[0]


@block("Downsample")
def downsample(c_in: list[int], scale: Scale, out: int, name: str) -> Layer:
    """[out, name of the downsampler]."""
    c_out = scale.channels(out)
    return make_downsampler(name, c_in[0], c_out), c_out


@block("Concat", joins=True)
def concat(c_in: list[int], scale: Scale, dimension: int = 1) -> Layer:
    """[dimension], which is 1."""
    if dimension != 1:
        raise UserError(f"joins along dimension 1, the channels, not {dimension}")
    return Concat(dimension), sum(c_in)


@block("nn.Upsample", "Upsample")
def upsample(
    c_in: list[int], scale: Scale, size: int | None, factor: int | float | None, mode: str = "nearest"
) -> Layer:
    """[size, factor, mode]."""
    return nn.Upsample(size, factor, mode), c_in[0]


@block("nn.MaxPool2d")
def max_pool(
    c_in: list[int], scale: Scale, kernel: int, stride: int | None = None, padding: int = 0
) -> Layer:
    """[kernel, stride, padding]."""
    return nn.MaxPool2d(kernel, stride, padding), c_in[0]


@block("nn.ZeroPad2d")
def zero_pad(c_in: list[int], scale: Scale, sides: int | list[int]) -> Layer:
    """[sides]."""
    if isinstance(sides, int):
        return nn.ZeroPad2d(sides), c_in[0]
    left, right, top, bottom = sides
    return nn.ZeroPad2d((left, right, top, bottom)), c_in[0]


@block("Detect", joins=True)
def detect(c_in: list[int], scale: Scale, num_classes: int, anchors: int | list[Any]) -> Layer:
    """[num_classes, anchors]."""
    per_level = anchors if isinstance(anchors, int) else len(anchors[0]) // 2
    if isinstance(anchors, list) and len(anchors) != len(c_in):
        raise UserError(f"has {len(c_in)} inputs, and there are anchors for {len(anchors)} levels")
    return Detect(num_classes, per_level, c_in), 0


@block("AnchorFreeDetect", joins=True)
def anchor_free_detect(c_in: list[int], scale: Scale, num_classes: int, bins: int = BINS) -> Layer:
    """[num_classes, bins]."""
    if bins < 2:
        raise UserError(f"bins must be at least 2, got {bins}")
    return AnchorFreeDetect(num_classes, c_in, bins), 0
