"""A network as exporters trace it: one output, float32 at both ends."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from models.downsample.spd import Focus, SpaceToDepth, pad_to_even

_SILENCING = threading.RLock()  # of one thread at a time: what is silenced belongs to the process


class Decoded(nn.Module):
    """(B, 3, H, W) float32 -> a classifier's logits, or the first of a detector's two outputs, float32.

    Args:
        model: the network; it is copied where it has to compute in 16 bits.
        half: compute in 16 bits.
    """

    def __init__(self, model: DetectionModel | ClassificationModel, half: bool):
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.half_precision = half

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        output = self.model(images.half() if self.half_precision else images)
        return output.float() if isinstance(output, Tensor) else output[0]


class StridedSpaceToDepth(nn.Module):
    """`space_to_depth` of two as four depthwise convolutions of stride 2, which every runtime has.

    Args:
        pad: add a row or column of zeros to an odd side.
    """

    def __init__(self, pad: bool = False):
        super().__init__()
        self.pad = pad
        self.register_buffer("taps", torch.eye(4).view(4, 1, 1, 2, 2).transpose(3, 4), persistent=False)
        self.taps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H/2, W/2)."""
        x, channels = pad_to_even(x) if self.pad else x, x.shape[1]
        kernels = self.taps.to(x.dtype).expand(4, channels, 1, 2, 2).contiguous()
        return torch.cat([F.conv2d(x, kernel, stride=2, groups=channels) for kernel in kernels], 1)


def strided(model: DetectionModel | ClassificationModel) -> DetectionModel | ClassificationModel:
    """Return a copy on the CPU in which every space-to-depth that is left is convolutions.

    Its weights are contiguous: litert-torch 0.10 gives layers of one shape the weights of one of them where
    they are not (github.com/google-ai-edge/litert-torch/issues/1238).
    """
    model = copy.deepcopy(model).cpu()
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SpaceToDepth):
                setattr(module, name, StridedSpaceToDepth(child.pad))
            elif isinstance(child, Focus):
                setattr(module, name, nn.Sequential(StridedSpaceToDepth(), child.conv))
    return model


def trace(
    model: DetectionModel | ClassificationModel,
    imgsz: tuple[int, int],
    batch: int,
    half: bool = False,
    sizes_first: bool = False,
) -> torch.jit.ScriptModule:
    """Return the network, which is in eval mode, as it runs on (batch, 3, *imgsz) images.

    Args:
        model: the network.
        imgsz: height and width, pixels.
        batch: images in a batch.
        half: compute in 16 bits.
        sizes_first: what depends on sizes alone is part of no operator of the graph, once it is frozen.
    """
    example = torch.zeros(batch, 3, *imgsz, device=next(model.parameters()).device)
    with quiet(), torch.inference_mode(False), torch.no_grad():
        network: nn.Module = Decoded(model, half).eval()
        if sizes_first:
            network = _without_aliases(torch.export.export(network, (example,)).module())
        traced = torch.jit.trace(network, example, check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced.eval()


def _without_aliases(network: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Leave out what only names a tensor once more, which converters need not know."""
    for node in list(network.graph.nodes):
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
    network.recompile()
    return network


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn of what only their authors can change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """`quiet`, and native code, which writes to the process's own output and errors, writes nowhere."""
    with _SILENCING:
        yield from _silenced()


def _silenced() -> Iterator[None]:
    sys.stdout.flush(), sys.stderr.flush()
    kept = [(place, os.dup(place)) for place in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for place, _ in kept:
            os.dup2(nowhere, place)
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for place, copied in kept:
            os.dup2(copied, place)
            os.close(copied)
        os.close(nowhere)
