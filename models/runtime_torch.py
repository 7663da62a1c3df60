"""PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.detector import Detector
from models.load import from_checkpoint
from utils.checkpoint import read_checkpoint
from utils.errors import UserError


class TorchPredictor:
    """A network in PyTorch; see `models.runtime.Predictor`."""

    task: str = "detect"
    imgsz: tuple[int, int] | None = None

    def __init__(
        self, model: Detector, device: torch.device, half: bool = False, config: dict[str, Any] | None = None
    ):
        self.device, self.dtype = device, torch.float16 if half else torch.float32
        self.model = model.to(device, self.dtype).eval()
        self.names, self.stride = list(model.names), int(model.stride.max())
        self.config = config or {}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in 0..1 -> (B, N, 5 + classes) float32."""
        return self.model(images.to(self.device, self.dtype))[0].float()


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> TorchPredictor:
    """Read a checkpoint; `names` means nothing here, a checkpoint always names its classes.

    Raises:
        UserError: the file cannot be read, or holds another network than a detector.
    """
    content = read_checkpoint(file)
    model = from_checkpoint(content, str(file))
    if not isinstance(model, Detector):
        raise UserError(
            f"{file}: weights for the task '{content.get('task') or 'classify'}', not for detection"
        )
    if fuse:
        model.fuse()
    config = dict(content.get("config") or {})
    if content.get("tile"):  # how the training cut its pictures
        config["tile"] = content["tile"]
    predictor = TorchPredictor(model, device, half, config)
    predictor.task = str(content.get("task") or "detect")
    return predictor
