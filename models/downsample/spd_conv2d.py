"""A strided convolution written as space-to-depth and a stride-1 convolution that computes the same.

After space-to-depth, a window of k pixels that moves by s reads a few cells of s x s pixels: k3 s2 p1 reads
2x2 cells, k7 s2 p3 4x4, k5 s2 p2 3x3, k1 s2 one. The weights of pixels that the window did not read start at
zero and are free to learn.

Ultralytics pickles these layers in its checkpoints: renaming a class or an attribute here would break them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.downsample.spd import space_to_depth

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """What a strided layer reads for an output, in pixels.

    Attributes:
        kernel: rows, columns.
        padding: of rows, of columns.
        stride: of both.
        ceil: one more output where the last window extends over the border (pooling's `ceil_mode`).
    """

    kernel: Pair
    padding: Pair
    stride: int
    ceil: bool = False

    def output_size(self, size: int, axis: int) -> int:
        """Return the number of outputs for `size` pixels along the rows (axis 0) or the columns (1)."""
        kernel, padding, stride = self.kernel[axis], self.padding[axis], self.stride
        count = (size + 2 * padding - kernel + (stride - 1) * self.ceil) // stride + 1
        starts_outside = self.ceil and (count - 1) * stride >= size + padding
        return count - 1 if starts_outside else count

    def first_cell(self, axis: int) -> int:
        """Return the first cell that output 0 reads: 0, or below for one in the padding."""
        return -self.padding[axis] // self.stride

    def cells(self, axis: int) -> int:
        """Return the number of cells that an output reads."""
        last = (self.kernel[axis] - 1 - self.padding[axis]) // self.stride
        return last - self.first_cell(axis) + 1

    def margins(self, height: int, width: int) -> list[int]:
        """Return the pixels to add left, right, above and below (negative: to drop), as F.pad takes them.

        The map then holds whole cells, as many as the outputs read.
        """
        margins = []
        for axis, size in ((1, width), (0, height)):
            needed = self.stride * (self.output_size(size, axis) + self.cells(axis) - 1)
            before = -self.stride * self.first_cell(axis)
            margins += [before, needed - size - before]
        return margins


class SPDConv2d(nn.Conv2d):
    """Space-to-depth, then a stride-1 convolution, in place of a strided Conv2d.

    Its input channels are those after space-to-depth: in the order of `space_to_depth`, or, with groups, of
    torch's pixel_unshuffle, which keeps the pixels of a channel together.
    """

    def __init__(self, c_in: int, c_out: int, window: Window, groups: int = 1, bias: bool = True):
        cells = (window.cells(0), window.cells(1))
        super().__init__(c_in * window.stride**2, c_out, cells, groups=groups, bias=bias)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, h, w), the output size of the strided layer."""
        x = F.pad(x, self.window.margins(x.shape[2], x.shape[3]))
        x = (
            space_to_depth(x, self.window.stride)
            if self.groups == 1
            else F.pixel_unshuffle(x, self.window.stride)
        )
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)

    def embed(self, weight: Tensor) -> Tensor:
        """Weights of the strided convolution, (c_out, c_in / groups, k, k) -> the equal ones here."""
        stride = self.window.stride
        margins = []
        for axis in (1, 0):
            before = -(stride * self.window.first_cell(axis) + self.window.padding[axis])
            after = stride * self.window.cells(axis) - self.window.kernel[axis] - before
            margins += [before, after]
        rows, columns = self.window.cells(0), self.window.cells(1)
        cells = F.pad(weight, margins).unflatten(3, (columns, stride)).unflatten(2, (rows, stride))
        # (c_out, c_in, rows, i, columns, j) -> pixels of a cell before or after the channels
        order = (0, 5, 3, 1, 2, 4) if self.groups == 1 else (0, 1, 3, 5, 2, 4)
        return cells.permute(order).flatten(1, 3)

    def strided_weight(self) -> Tensor:
        """Return the weights of the equal convolution of stride s, (c_out, c_in / groups, K, K).

        K is s * cells; the map gets the same margins.
        """
        stride, c_out = self.window.stride, self.out_channels
        rows, columns = self.kernel_size
        if self.groups == 1:
            cells = self.weight.view(c_out, stride, stride, -1, rows, columns).permute(0, 3, 4, 2, 5, 1)
        else:
            cells = self.weight.view(c_out, -1, stride, stride, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return cells.reshape(c_out, -1, stride * rows, stride * columns)


def from_conv(conv: nn.Conv2d, preserve: bool = True) -> SPDConv2d:
    """Return the SPD layer in place of a strided convolution, on its device and in its precision and layout.

    Args:
        conv: dilation 1, equal strides, zero padding.
        preserve: compute the same; otherwise the weights are initialized at random.
    """
    padding = (0, 0) if isinstance(conv.padding, str) else _pair(conv.padding)
    window = Window(_pair(conv.kernel_size), padding, conv.stride[0])
    layer = SPDConv2d(conv.in_channels, conv.out_channels, window, conv.groups, conv.bias is not None)
    layer.to(conv.weight.device, conv.weight.dtype)
    with torch.no_grad():
        if preserve:
            layer.weight.copy_(layer.embed(conv.weight))
            if layer.bias is not None and conv.bias is not None:
                layer.bias.copy_(conv.bias)
    if _is_channels_last(conv.weight):
        layer.weight.data = layer.weight.contiguous(memory_format=torch.channels_last)
    for new, old in ((layer.weight, conv.weight), (layer.bias, conv.bias)):
        if new is not None and old is not None:
            new.requires_grad_(old.requires_grad)
    return layer.train(conv.training)


def from_pool(pool: nn.AvgPool2d | nn.MaxPool2d, channels: int, like: Tensor) -> SPDConv2d:
    """Return the SPD layer in place of a pooling; it starts as the average over each window.

    Args:
        pool: of any window.
        channels: of its input.
        like: a tensor on the layer's device and in its precision.
    """
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    window = Window(kernel, _pair(pool.padding), stride[0], pool.ceil_mode)
    layer = SPDConv2d(channels, channels, window, groups=channels, bias=False)
    layer.to(like.device, like.dtype)
    area = getattr(pool, "divisor_override", None) or kernel[0] * kernel[1]
    with torch.no_grad():
        layer.weight.copy_(layer.embed(like.new_full((channels, 1, *kernel), 1 / area)))
    return layer.train(pool.training)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
