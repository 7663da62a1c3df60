"""The tables of downsamplers and resamplers, and the contract that each of them keeps.

A *downsampler* is made by `factory(c_in, c_out)` and maps (B, c_in, H, W) to
(B, c_out, ceil(H/2), ceil(W/2)) for every H, W >= 2. A *resampler* is made by `factory()`, halves the size
in the same way and keeps the channels; in a detector it follows a stride-1 Conv. Both work in training and in
eval mode, in float32, float16 and bfloat16, in channels_last, and under torch.export.

To add one, write a file and enter it in one of the two tables; every test and `--downsample` then know it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.downsample.diffstride import diffstride
from models.downsample.pooling import BlurPool2d, average_pool, max_pool
from models.downsample.spd import SPDConv
from models.downsample.spectral import spectral_pool
from models.downsample.strided import strided
from models.layers.blocks import Conv
from utils.errors import UserError, suggest

DOWNSAMPLERS: dict[str, Callable[[int, int], nn.Module]] = {"strided": strided, "spd": SPDConv}
RESAMPLERS: dict[str, Callable[[], nn.Module]] = {
    "max": max_pool,
    "avg": average_pool,
    "blur": BlurPool2d,
    "spectral": spectral_pool,
    "diffstride": diffstride,
}


class ResampledConv(Conv):
    """A stride-1 3x3 Conv, then a resampler; names and shapes of its weights are the strided Conv's."""

    def __init__(self, c_in: int, c_out: int, resampler: nn.Module):
        super().__init__(c_in, c_out, 3)
        self.resampler = resampler

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, ceil(H/2), ceil(W/2))."""
        return self.resampler(super().forward(x))


def make_downsampler(name: str, c_in: int, c_out: int) -> nn.Module:
    """Return the downsampler of that name.

    Raises:
        UserError: no such name; the message lists the choices.
    """
    check_downsampler(name)
    if name in RESAMPLERS:
        return ResampledConv(c_in, c_out, RESAMPLERS[name]())
    return DOWNSAMPLERS[name](c_in, c_out)


def check_downsampler(name: str) -> None:
    """Raise a UserError that lists the choices unless `name` is in the tables."""
    choices = [*DOWNSAMPLERS, *RESAMPLERS]
    if name not in choices:
        raise UserError(f"unknown downsampler '{name}'. {suggest(name, choices)}")
