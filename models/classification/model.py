"""A classifier: a ResNet, the YAML it is built from and the names of its classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from models.classification.resnet import KEEP, Block, Bottleneck, Reduction, ResNet
from models.downsample import RESAMPLERS
from models.downsample.diffstride import DiffStride2d
from models.downsample.spd import SpaceToDepth
from models.downsample.spectral import SpectralPool2d
from utils.errors import UserError, suggest

Architecture = dict[str, Any]

BLOCKS: dict[str, type[Block]] = {"basic": Block, "bottleneck": Bottleneck}
_FREE_STRIDE = {"strided", "spectral", "diffstride"}  # the others halve


class ClassificationModel(nn.Module):
    """Images to logits.

    Attributes:
        model: the network.
        yaml: the architecture it was built from, plain data that builds it again.
        names: the classes.
        task: "classify".
        fused: whether it was rewritten for inference.
    """

    task = "classify"
    fused = False

    def __init__(self, model: ResNet, architecture: Architecture, names: list[str]):
        super().__init__()
        self.model, self.yaml, self.names = model, architecture, names

    def forward(self, images: Tensor) -> Tensor:
        """(B, ch, H, W) in 0..1 -> logits (B, classes)."""
        return self.model(images)


def build_classifier(architecture: Architecture) -> ClassificationModel:
    """Return a freshly initialized classifier of a checked architecture."""
    reductions = [
        make_reduction(name, stride, architecture["fixed_grid"])
        for name, stride in zip(architecture["downsample"], architecture["strides"], strict=True)
    ]
    network = ResNet(
        architecture["nc"],
        BLOCKS[architecture["block"]],
        architecture["depths"],
        architecture["widths"],
        reductions,
        architecture["stem"],
        architecture["maxpool"],
        architecture["preactivation"],
        architecture["ch"],
    )
    return ClassificationModel(network, architecture, [str(i) for i in range(architecture["nc"])])


def make_reduction(name: str, stride: float = 2, fixed_grid: bool = True) -> Reduction:
    """Return how the downsampler of that name shrinks a stage.

    Raises:
        UserError: no such name, or it cannot shrink by that much.
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
    return Reduction(resampler=_resampler(name, float(stride), fixed_grid))


def reduction_names() -> list[str]:
    """Return what a stage's `downsample` may be."""
    return ["none", "strided", "spd", *RESAMPLERS]


def _resampler(name: str, stride: float, fixed_grid: bool) -> Callable[[], nn.Module]:
    if name in ("spectral", "diffstride"):
        layer = SpectralPool2d if name == "spectral" else DiffStride2d
        return functools.partial(layer, (stride, stride), fixed_grid=fixed_grid)
    return RESAMPLERS[name]
