"""How the stages of a ResNet reduce the size of their maps: any downsampler, by its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.downsample import RESAMPLERS
from models.downsample.diffstride import DiffStride2d
from models.downsample.spd import SpaceToDepth
from models.downsample.spectral import SpectralPool2d
from utils.errors import UserError, suggest

_SPECTRAL = {"spectral": SpectralPool2d, "diffstride": DiffStride2d}
_FREE_STRIDE = {"strided", *_SPECTRAL}  # the others halve


@dataclass(frozen=True)
class Reduction:
    """How a stage, or the stem, reduces the size of its maps.

    Attributes:
        stride: of the 3x3 convolution.
        resampler: makes the layer that follows this convolution.
        growth: factor by which the resampler multiplies the channels.
        shortcut_stride: of the shortcut's 1x1 convolution. Where it is 1, the same resampler works on the
            shortcut, before that convolution: the two commute for every resampler but max pooling, so this
            is the published order at a quarter of the arithmetic.
    """

    stride: int = 1
    resampler: Callable[[], nn.Module] | None = None
    growth: int = 1
    shortcut_stride: int = 1

    def make(self) -> nn.Module:
        """Return the resampler, or an identity."""
        return nn.Identity() if self.resampler is None else self.resampler()


KEEP = Reduction()


def reduction_names() -> list[str]:
    """Return what a stage's `downsample` may be."""
    return ["none", "strided", "spd", *RESAMPLERS]


def make_reduction(name: str, stride: float = 2, fixed_grid: bool = True) -> Reduction:
    """Return the reduction by the downsampler of that name.

    Args:
        name: one of `reduction_names()`.
        stride: factor by which height and width shrink; spectral pooling and DiffStride take fractions.
        fixed_grid: of spectral pooling and DiffStride, see there.

    Raises:
        UserError: no such name, or it cannot take that stride.
    """
    if name not in reduction_names():
        raise UserError(f"unknown downsampler '{name}'. {suggest(name, reduction_names())}")
    if name == "none":
        if stride != 1:
            raise UserError(f"'none' has stride 1, not {stride}")
        return KEEP
    if name not in _FREE_STRIDE and stride != 2:
        raise UserError(f"'{name}' has stride 2, not {stride}")
    if name == "strided":
        if stride != int(stride):
            raise UserError(f"'strided' takes whole strides, not {stride}")
        return Reduction(stride=int(stride), shortcut_stride=int(stride))
    if name == "spd":
        return Reduction(resampler=functools.partial(SpaceToDepth, pad=True), growth=4, shortcut_stride=2)
    if name in _SPECTRAL:
        strides = (float(stride), float(stride))
        return Reduction(resampler=functools.partial(_SPECTRAL[name], strides, fixed_grid=fixed_grid))
    return Reduction(resampler=RESAMPLERS[name])
