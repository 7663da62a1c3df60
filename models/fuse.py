"""Exact rewrites of a detector for inference: same outputs to float rounding, fewer and larger operations.

1. BatchNorm is folded into the convolution before it.
2. The two 1x1 convolutions at the entry of a C3 become one.
3. Space-to-depth and the convolution after it become one strided convolution (see `strided_weight`):
   in `Focus`, `SPDConv` and surgery's `SPDConv2d`; and in the released YOLOv5-SPD layout, where the entry
   convolution of the C3 after a bare `SpaceToDepth` moves into it, also through a `Concat` between the two.

When 3 applies was measured on a CPU by benchmarks/spd.py: with weights in channels_last, always in `Focus`,
`SPDConv` and `SPDConv2d`; for a bare `SpaceToDepth` up to STRIDED_CHANNELS channels. Contiguous weights are
slower on small maps, and a 2x2 convolution of 512 or more channels takes 1.1 to 2.7 times the time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.detection_model import DetectionModel
from models.downsample.spd import Focus, SpaceToDepth, SPDConv, pad_to_even, strided_weight
from models.downsample.spd_conv2d import SPDConv2d
from models.fast_training import fast_training
from models.layers.blocks import C3, Concat, Conv

STRIDED_CHANNELS = 256  # the most channels before a space-to-depth that is rewritten


def fuse_detector(detector: DetectionModel) -> DetectionModel:
    """Apply every rewrite in place, set eval mode and return the network; a second call does nothing."""
    if not detector.fused:
        detector.eval().requires_grad_(False)
        fast_training(detector, on=False)  # without autograd, in place costs nothing
        for module in detector.modules():
            if isinstance(module, Conv):
                fold_batchnorm(module)
        _replace_blocks(detector)
        _move_entries_into_space_to_depth(detector)
        for module in detector.modules():
            if isinstance(module, nn.Conv2d):  # strided convolutions are faster in this layout
                module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
        detector.fused = True
    return detector


def fold_batchnorm(block: Conv) -> None:
    """Fold `block.bn`, with its running statistics, into `block.conv`, computed in float64.

    w' = w * gamma / sqrt(var + eps); b' = beta - mean * gamma / sqrt(var + eps).
    """
    conv, norm = block.conv, block.bn
    if not isinstance(norm, nn.BatchNorm2d):
        return
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - norm.running_mean.double() * gain
    weight = conv.weight.double() * gain.view(-1, 1, 1, 1)
    conv.weight = _frozen(weight.to(conv.weight.dtype))
    conv.bias = _frozen(bias.to(conv.weight.dtype))
    block.bn = nn.Identity()


class MergedC3(nn.Module):
    """A C3 whose two entry convolutions are one, or an identity if that moved into an earlier layer."""

    def __init__(self, block: C3):
        super().__init__()
        first, second = block.cv1.conv, block.cv2.conv
        assert first.bias is not None and second.bias is not None
        self.entry: nn.Module = _conv(
            torch.cat((first.weight, second.weight)), torch.cat((first.bias, second.bias))
        )
        self.act, self.m, self.cv3 = block.cv1.act, block.m, block.cv3

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W)."""
        left, right = self.act(self.entry(x)).chunk(2, 1)
        return self.cv3(torch.cat((self.m(left), right), 1))


class StridedSPD(nn.Module):
    """An SPD block as one strided convolution."""

    def __init__(self, block: Conv):
        super().__init__()
        conv = block.conv
        assert isinstance(conv.padding[0], int)
        self.conv = _conv(strided_weight(conv.weight), conv.bias, stride=2, padding=2 * conv.padding[0])
        self.act = block.act

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, ceil(H/2), ceil(W/2))."""
        return self.act(self.conv(pad_to_even(x)))


class StridedWindow(nn.Module):
    """An `SPDConv2d` as one strided convolution."""

    def __init__(self, layer: SPDConv2d):
        super().__init__()
        self.window = layer.window
        self.conv = _conv(layer.strided_weight(), layer.bias, layer.window.stride, groups=layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, h, w), the output size of the `SPDConv2d`."""
        return self.conv(F.pad(x, self.window.margins(x.shape[2], x.shape[3])))


class AddConvolved(nn.Module):
    """A 1x1 convolution of joined maps, split by map; the first one arrives already convolved."""

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self.convs = nn.ModuleList(_conv(weight, None) for weight in weights)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, c_out, H, W), (B, c_i, H, W), ... -> (B, c_out, H, W)."""
        total, *others = maps
        for conv, x in zip(self.convs, others, strict=True):
            total = total + conv(x)
        return total


def _replace_blocks(module: nn.Module) -> None:
    for name, child in module.named_children():
        _replace_blocks(child)
        if isinstance(child, Focus):
            setattr(module, name, StridedSPD(child.conv))
        elif isinstance(child, SPDConv):
            setattr(module, name, StridedSPD(child))
        elif isinstance(child, SPDConv2d):
            setattr(module, name, StridedWindow(child))
        elif isinstance(child, C3):
            setattr(module, name, MergedC3(child))


def _move_entries_into_space_to_depth(detector: DetectionModel) -> None:
    """Rewrite SpaceToDepth -> C3 and SpaceToDepth -> Concat -> C3 where no other layer reads in between."""
    layers, sources = detector.model, detector.sources
    for index, layer in enumerate(layers):
        if not isinstance(layer, SpaceToDepth) or index in detector.skips:
            continue
        if detector.channels[index] > 4 * STRIDED_CHANNELS:
            continue
        reader, joined = index + 1, sources[index + 1]
        through_concat = (
            isinstance(layers[reader], Concat)
            and isinstance(joined, list)
            and joined[0] == index not in joined[1:]
        )
        if through_concat and reader not in detector.skips:
            reader += 1
        block = layers[reader]
        if (
            not isinstance(block, MergedC3)
            or sources[reader] != reader - 1
            or not isinstance(block.entry, nn.Conv2d)
        ):
            continue
        first, others = block.entry.weight, []
        if isinstance(joined, list):
            first, *others = first.split([detector.channels[i] for i in joined], 1)
            layers[index + 1] = AddConvolved(others)
        layers[index] = _conv(strided_weight(first), block.entry.bias, stride=2)
        block.entry = nn.Identity()


def _conv(
    weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, groups: int = 1
) -> nn.Conv2d:
    """Return a frozen convolution with these weights."""
    c_out, c_in, *kernel = weight.shape
    with torch.device("meta"):
        conv = nn.Conv2d(
            c_in * groups,
            c_out,
            (kernel[0], kernel[1]),
            stride,
            padding,
            groups=groups,
            bias=bias is not None,
        )
    conv.weight = _frozen(weight)
    conv.bias = None if bias is None else _frozen(bias)
    return conv


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)
