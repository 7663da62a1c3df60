"""PyTorch: running checkpoints, and writing those that YOLOv5's own code loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.runtimes.metadata import Metadata
from models.checkpoint import read_checkpoint
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from models.fuse import fuse_detector
from models.load import from_checkpoint
from models.yolov5_architecture import yolov5_architecture
from models.yolov5_checkpoint import save_yolov5_checkpoint
from utils.errors import UserError


class TorchPredictor:
    """A network in PyTorch; see `engine.runtimes.Predictor`."""

    imgsz: tuple[int, int] | None = None

    def __init__(
        self,
        model: DetectionModel | ClassificationModel,
        device: torch.device,
        half: bool = False,
        config: dict[str, Any] | None = None,
    ):
        self.device, self.dtype = device, torch.float16 if half else torch.float32
        self.model = model.to(device, self.dtype).eval()
        self.task, self.names = model.task, list(model.names)
        self.stride = int(model.stride.max()) if isinstance(model, DetectionModel) else 1
        self.config = config or {}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in 0..1 -> (B, N, 5 + classes), or logits (B, classes), float32."""
        output = self.model(images.to(self.device, self.dtype))
        return (output if isinstance(output, Tensor) else output[0]).float()


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> TorchPredictor:
    """Read a checkpoint; `names` means nothing here, a checkpoint always names its classes.

    Raises:
        UserError: the file cannot be read.
    """
    content = read_checkpoint(file)
    model = from_checkpoint(content, str(file))
    if fuse and isinstance(model, DetectionModel):
        fuse_detector(model)
    config = dict(content.get("config") or {})
    for key in ("tile", "resize"):  # how the training cut or shrank its images
        if content.get(key):
            config[key] = content[key]
    return TorchPredictor(model, device, half, config)


def check_yolov5(model: DetectionModel | ClassificationModel, where: Path) -> None:
    """Raise a UserError that says why, unless YOLOv5's own code can build this network.

    Args:
        model: may be fused.
        where: how the message names it.
    """
    if not isinstance(model, DetectionModel):
        raise UserError(f"--include yolov5 writes detectors, and {where} is a classifier")
    try:
        yolov5_architecture(model.yaml)
    except UserError as error:
        raise UserError(f"--include yolov5: {where}: {error}") from error


def export_yolov5(weights: Path, file: Path, metadata: Metadata) -> None:
    """Write a detector as a checkpoint that YOLOv5's own code loads, its weights in 16 bits.

    Args:
        weights: our checkpoint or YOLOv5's, from which it is read again, since a fused network will not do.
        file: is overwritten.
        metadata: its names go into the file, and the training's configuration as YOLOv5's `opt`.

    Raises:
        UserError: YOLOv5's code cannot build this network, or 16 bits cannot hold it.
    """
    content = read_checkpoint(weights)
    model = from_checkpoint(content, str(weights))
    check_yolov5(model, weights)
    assert isinstance(model, DetectionModel)
    model.names = list(metadata.names)
    try:
        save_yolov5_checkpoint(file, model, content.get("hyp"), metadata.config)
    except UserError as error:
        raise UserError(f"--include yolov5: {weights}: {error}") from error
