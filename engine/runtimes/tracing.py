"""A network as exporters trace it: one output, float32 at both ends."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel


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


def trace(
    model: DetectionModel | ClassificationModel, imgsz: tuple[int, int], batch: int, half: bool = False
) -> torch.jit.ScriptModule:
    """Return the network, which is in eval mode, as it runs on (batch, 3, *imgsz) images."""
    example = torch.zeros(batch, 3, *imgsz, device=next(model.parameters()).device)
    with quiet(), torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(Decoded(model, half).eval(), example, check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


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
