"""The blocks a row of a model YAML can name, each answering for its own channels."""

from __future__ import annotations

import math

from torch import nn

from models.downsample import make_downsampler
from models.downsample.spd import Focus, SpaceToDepth
from models.layers.blocks import C3, SPP, SPPF, Bottleneck, Concat, Conv
from models.layers.cross_stage import C3SPP, BottleneckCSP, C3x, Contract, CrossConv, Expand
from models.layers.ghost import C3Ghost, GhostBottleneck, GhostConv
from models.layers.head import Detect
from models.layers.transformer import C3TR
from models.registry import Scale, block
from utils.errors import UserError

Made = tuple[nn.Module, int]


@block("Conv")
def _conv(
    c_in: list[int],
    scale: Scale,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
) -> Made:
    c_out = scale.channels(out)
    return Conv(c_in[0], c_out, kernel, stride, padding, groups), c_out


@block("DWConv")
def _depthwise_conv(c_in: list[int], scale: Scale, out: int, kernel: int = 1, stride: int = 1) -> Made:
    c_out = scale.channels(out)
    return Conv(c_in[0], c_out, kernel, stride, groups=math.gcd(c_in[0], c_out)), c_out


@block("Bottleneck")
def _bottleneck(
    c_in: list[int], scale: Scale, out: int, shortcut: bool = True, groups: int = 1, expansion: float = 0.5
) -> Made:
    c_out = scale.channels(out)
    return Bottleneck(c_in[0], c_out, shortcut, groups, expansion), c_out


@block("C3")
def _c3(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Made:
    c_out = scale.channels(out)
    return C3(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("GhostConv")
def _ghost_conv(
    c_in: list[int], scale: Scale, out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Made:
    c_out = scale.channels(out)
    return GhostConv(c_in[0], c_out, kernel, stride, groups), c_out


@block("GhostBottleneck")
def _ghost_bottleneck(c_in: list[int], scale: Scale, out: int, kernel: int = 3, stride: int = 1) -> Made:
    c_out = scale.channels(out)
    return GhostBottleneck(c_in[0], c_out, kernel, stride), c_out


@block("C3Ghost")
def _c3_ghost(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Made:
    c_out = scale.channels(out)  # YOLOv5 takes shortcut and groups here, and makes no use of them
    return C3Ghost(c_in[0], c_out, repeat, expansion), c_out


@block("BottleneckCSP")
def _bottleneck_csp(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Made:
    c_out = scale.channels(out)
    return BottleneckCSP(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("C3x")
def _c3x(
    c_in: list[int],
    scale: Scale,
    out: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    repeat: int,
) -> Made:
    c_out = scale.channels(out)
    return C3x(c_in[0], c_out, repeat, shortcut, groups, expansion), c_out


@block("C3SPP")
def _c3_spp(c_in: list[int], scale: Scale, out: int, kernels: list | None = None) -> Made:
    c_out = scale.channels(out)
    return C3SPP(c_in[0], c_out, kernels or (5, 9, 13)), c_out


@block("CrossConv")
def _cross_conv(
    c_in: list[int],
    scale: Scale,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    expansion: float = 1.0,
    shortcut: bool = False,
) -> Made:
    c_out = scale.channels(out)
    return CrossConv(c_in[0], c_out, kernel, stride, groups, expansion, shortcut), c_out


@block("Contract")
def _contract(c_in: list[int], scale: Scale, gain: int = 2) -> Made:
    return Contract(gain), c_in[0] * gain**2


@block("Expand")
def _expand(c_in: list[int], scale: Scale, gain: int = 2) -> Made:
    if c_in[0] % gain**2:
        raise UserError(f"{c_in[0]} channels cannot be divided by {gain}²")
    return Expand(gain), c_in[0] // gain**2


@block("nn.ConvTranspose2d")
def _conv_transpose(
    c_in: list[int], scale: Scale, out: int, kernel: int, stride: int = 1, padding: int = 0
) -> Made:
    c_out = scale.channels(out)
    return nn.ConvTranspose2d(c_in[0], c_out, kernel, stride, padding), c_out


@block("C3TR")
def _c3_transformer(c_in: list[int], scale: Scale, out: int, *, repeat: int) -> Made:
    c_out = scale.channels(out)
    return C3TR(c_in[0], c_out, repeat), c_out


@block("SPP")
def _spp(c_in: list[int], scale: Scale, out: int, kernels: list | None = None) -> Made:
    c_out = scale.channels(out)
    return SPP(c_in[0], c_out, kernels or (5, 9, 13)), c_out


@block("SPPF")
def _sppf(c_in: list[int], scale: Scale, out: int, kernel: int = 5) -> Made:
    c_out = scale.channels(out)
    return SPPF(c_in[0], c_out, kernel), c_out


@block("Focus")
def _focus(c_in: list[int], scale: Scale, out: int, kernel: int = 1) -> Made:
    c_out = scale.channels(out)
    return Focus(c_in[0], c_out, kernel), c_out


@block("space_to_depth", "SpaceToDepth")
def _space_to_depth(c_in: list[int], scale: Scale, dimension: int = 1) -> Made:
    if dimension != 1:
        raise UserError(f"stacks along dimension 1, the channels, not {dimension}")
    return SpaceToDepth(), 4 * c_in[0]


@block("Downsample")
def _downsample(c_in: list[int], scale: Scale, out: int, name: str) -> Made:
    c_out = scale.channels(out)
    return make_downsampler(name, c_in[0], c_out), c_out


@block("Concat", joins=True)
def _concat(c_in: list[int], scale: Scale, dimension: int = 1) -> Made:
    if dimension != 1:
        raise UserError(f"joins along dimension 1, the channels, not {dimension}")
    return Concat(dimension), sum(c_in)


@block("nn.Upsample", "Upsample")
def _upsample(
    c_in: list[int], scale: Scale, size: int | None, factor: int | float | None, mode: str = "nearest"
) -> Made:
    return nn.Upsample(size, factor, mode), c_in[0]


@block("nn.MaxPool2d")
def _max_pool(
    c_in: list[int], scale: Scale, kernel: int, stride: int | None = None, padding: int = 0
) -> Made:
    return nn.MaxPool2d(kernel, stride, padding), c_in[0]


@block("nn.ZeroPad2d")
def _zero_pad(c_in: list[int], scale: Scale, sides: int | list) -> Made:
    return nn.ZeroPad2d(sides if isinstance(sides, int) else tuple(sides)), c_in[0]


@block("Detect", joins=True)
def _detect(c_in: list[int], scale: Scale, num_classes: int, anchors: int | list) -> Made:
    per_level = anchors if isinstance(anchors, int) else len(anchors[0]) // 2
    if isinstance(anchors, list) and len(anchors) != len(c_in):
        raise UserError(f"has {len(c_in)} inputs, and there are anchors for {len(anchors)} levels")
    return Detect(num_classes, per_level, c_in), 0
