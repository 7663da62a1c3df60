"""The options of export.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import opt, validate
from utils.errors import UserError

if TYPE_CHECKING:
    from engine.runtimes.onnx_nms import NmsSettings


@dataclass(frozen=True)
class ExportConfig:
    """Export a network for other runtimes and compare it with PyTorch."""

    weights: Path = opt(None, "checkpoint (.pt; default: the newest run's best.pt)")
    data: Path | None = opt(
        None, "data-set YAML: class names that go into the file, and the images for --int8"
    )
    include: tuple[Literal["onnx", "openvino", "torchscript", "engine"], ...] = opt(
        ("onnx",), "formats (engine: TensorRT, on an Nvidia GPU)"
    )
    imgsz: tuple[int, ...] | None = opt(
        None, "side or height and width, pixels (default: the training's)", "--img", "--img-size", min=4
    )
    batch_size: int = opt(1, "images in a batch", "--batch", min=1)
    dynamic: bool = opt(False, "take any batch, height and width (classifiers: any batch)")
    half: bool = opt(False, "16 bits, between inputs and outputs of 32", "--fp16")
    int8: bool = opt(False, "8 bits, calibrated on --data's training images and scored on its validation")
    calibration: int = opt(100, "images (or tiles) that --int8 measures", min=1)
    nms: bool = opt(
        False, "NMS inside the file, whose rows are x1, y1, x2, y2, confidence, class (onnx, openvino)"
    )
    conf_thres: float = opt(0.25, "of --nms: smallest confidence", "--conf", min=0, max=1)
    iou_thres: float = opt(0.45, "of --nms: largest IoU of two boxes of a class", "--iou", min=0, max=1)
    max_det: int = opt(300, "of --nms: rows of an image", min=1)
    simplify: bool = opt(False, "tidy the ONNX graph with onnxslim")
    opset: int = opt(18, "version of ONNX's operators", min=17)
    device: str = opt("cpu", "where PyTorch runs: cpu, 0, cuda:1, mps")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)
        if self.half and self.int8:
            raise UserError("--half and --int8 exclude each other")
        for format in {"torchscript", "engine"} & set(self.include):
            if self.nms or self.int8:
                raise UserError(f"--nms and --int8 are for onnx and openvino, not for {format}")
        if self.nms and self.opset < 18:
            raise UserError("--nms needs --opset 18 or later")

    @property
    def nms_settings(self) -> NmsSettings | None:
        """Of the NMS inside the file."""
        from engine.runtimes.onnx_nms import NmsSettings

        return NmsSettings(self.conf_thres, self.iou_thres, self.max_det) if self.nms else None
