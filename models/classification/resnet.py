"""ResNet-18, -34 and -50 with any downsampler in their stages (He et al., CVPR 2016, arXiv:1512.03385).

Submodules of the blocks have torchvision's names. With `preactivation` (arXiv:1603.05027) norm and activation
come before each convolution, as in the networks of DiffStride (arXiv:2202.01653); without it, `spd` gives the
released networks of SPD-Conv (arXiv:2208.03641).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from models.classification.reductions import KEEP, Reduction
from models.downsample.spd import Focus


class Block(nn.Module):
    """The basic residual block: two 3x3 convolutions beside a shortcut; the first 3x3 one downsamples.

    `Bottleneck` changes `kernels` and `expansion`, the factor of channels at the block's end.
    """

    expansion = 1
    kernels: Sequence[int] = (3, 3)

    def __init__(self, c_in: int, channels: int, reduction: Reduction, preactivation: bool):
        super().__init__()
        c_out = channels * self.expansion
        self.reducing = self.kernels.index(3)
        self.preactivation = preactivation
        c = c_in
        for i, kernel in enumerate(self.kernels):
            last, reduces = i == len(self.kernels) - 1, i == self.reducing
            width = c_out if last else channels
            conv = _conv(c, width, kernel, reduction.stride if reduces else 1)
            conv_out = width * reduction.growth if reduces else width
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(c if preactivation else conv_out))
            c = conv_out
        self.resample = reduction.make()
        self.resamples_shortcut = reduction.resampler is not None and reduction.shortcut_stride == 1
        self.downsample: nn.Sequential | None = None
        if reduction != KEEP or c_in != c_out:
            self.downsample = nn.Sequential(_conv(c_in, c_out, 1, reduction.shortcut_stride))
            if not preactivation:
                self.downsample.append(nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, expansion·channels, h, w)."""
        return self._forward_pre(x) if self.preactivation else self._forward_post(x)

    def _convolve(self, i: int, x: Tensor) -> Tensor:
        y = self.get_submodule(f"conv{i + 1}")(x)
        return self.resample(y) if i == self.reducing else y

    def _norm(self, i: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"bn{i + 1}")(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        assert self.downsample is not None
        return self.downsample(self.resample(x) if self.resamples_shortcut else x)

    def _forward_post(self, x: Tensor) -> Tensor:
        y, last = x, len(self.kernels) - 1
        for i in range(len(self.kernels)):
            y = self._norm(i, self._convolve(i, y))
            y = F.relu(y) if i < last else y
        return F.relu(y + (x if self.downsample is None else self._shortcut(x)))

    def _forward_pre(self, x: Tensor) -> Tensor:
        y = F.relu(self._norm(0, x))
        kept = x if self.downsample is None else self._shortcut(y)
        y = self._convolve(0, y)
        for i in range(1, len(self.kernels)):
            y = self._convolve(i, F.relu(self._norm(i, y)))
        return y + kept


class Bottleneck(Block):
    """The bottleneck block: 1x1, 3x3 and 1x1 convolutions, four times the channels at its end."""

    expansion = 4
    kernels = (1, 3, 1)


BLOCKS: dict[str, type[Block]] = {"basic": Block, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A stem, a stage for each of `depths`, global average pooling, a linear layer.

    Args:
        num_classes: length of the output.
        block: `Block` or `Bottleneck`.
        depths: number of blocks in each stage.
        widths: channels of the stem, then of each stage before expansion.
        reductions: of the stem's convolution, then of the first block of each stage.
        stem: kernel of the stem's convolution, or "focus" for a space-to-depth and a 1x1 Conv.
        maxpool: whether a 3x3 stride-2 max pooling ends the stem, as for ImageNet.
        preactivation: whether norm and activation come before each convolution.
        channels: of the input image.
    """

    def __init__(
        self,
        num_classes: int,
        block: type[Block],
        depths: Sequence[int],
        widths: Sequence[int],
        reductions: Sequence[Reduction],
        stem: int | Literal["focus"] = 3,
        maxpool: bool = False,
        preactivation: bool = False,
        channels: int = 3,
    ):
        super().__init__()
        self.stem = _stem(channels, widths[0], reductions[0], stem, maxpool, preactivation)
        c = widths[0] * reductions[0].growth
        stages = []
        for depth, width, reduction in zip(depths, widths[1:], reductions[1:], strict=True):
            blocks = []
            for i in range(depth):
                blocks.append(block(c, width, reduction if i == 0 else KEEP, preactivation))
                c = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()) if preactivation else nn.Identity()
        self.fc = nn.Linear(c, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, ch, H, W) -> the maps after the stem and after each stage, (B, C_i, H_i, W_i)."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """(B, ch, H, W) -> logits (B, num_classes)."""
        x = self.norm(self.features(images)[-1])
        return self.fc(x.mean((2, 3)))


def _stem(
    c_in: int, width: int, reduction: Reduction, stem: int | str, maxpool: bool, preactivation: bool
) -> nn.Sequential:
    if stem == "focus":
        focus = Focus(c_in, width)
        focus.conv.bn = nn.BatchNorm2d(width)  # with torch's defaults, as released
        return nn.Sequential(focus)
    assert isinstance(stem, int)
    layers: list[nn.Module] = [_conv(c_in, width, stem, reduction.stride), reduction.make()]
    if not preactivation:
        layers += [nn.BatchNorm2d(width * reduction.growth), nn.ReLU()]
    if maxpool:
        layers.append(nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def _conv(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
