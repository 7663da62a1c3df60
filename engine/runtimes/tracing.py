"""A network as exporters trace it: one output, float32 at both ends."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator

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
