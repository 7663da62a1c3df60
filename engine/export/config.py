"""The options of export.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from engine.export.formats import ALL, FormatName, refused_option
from engine.options import NmsOptions
from utils.errors import UserError
from utils.log import LogOptions
from utils.options import Options, group, opt

if TYPE_CHECKING:
    from engine.runtimes.onnx_nms import NmsSettings


@dataclass(frozen=True)
class ExportConfig(Options):
    """Export a network for other runtimes and compare it with PyTorch."""

    left_out: ClassVar[Mapping[str, str]] = {
        "--inplace": "the graph is the same with and without it",
        "--keras": "of TensorFlow's formats only LiteRT's .tflite is written: --include litert",
        "--optimize": "mobile TorchScript is not written; --include torchscript is the plain one",
        "--per-tensor": "--int8 measures ranges per channel, which is more accurate",
        "--cache": "an engine is built anew each time",
        "--mlmodel": "--include coreml writes an ML program, which replaces it",
        "--workspace": "TensorRT takes the memory that it needs",
        "--agnostic-nms": "--nms suppresses within each class",
        "--topk-per-class": "--max-det limits the detections per image",
        "--topk-all": "--max-det limits the detections per image",
    }

    weights: Path = opt(None, "checkpoint (.pt; default: newest best.pt, or what ships)")
    data: Path | None = opt(
        None, "data-set YAML: class names that go into the file, and the images for --int8", task="detect"
    )
    include: tuple[FormatName, ...] = opt(
        ("onnx",),
        "formats (engine: TensorRT, on an Nvidia GPU; litert: .tflite; coreml: .mlpackage, to run on macOS; "
        "triton: a model repository for its server; "
        "yolov5: a .pt that YOLOv5's own code loads; all: those that can be made here)",
    )
    imgsz: tuple[int, ...] | None = opt(
        None, "side or height and width, pixels (default: the training's)", "--img", "--img-size", min=4
    )
    batch_size: int = opt(1, "images per batch", "--batch", min=1)
    dynamic: bool = opt(False, "take any batch, height and width (classifiers: any batch)")
    half: bool = opt(False, "16 bits, between inputs and outputs of 32", "--fp16")
    int8: bool = opt(
        False, "8 bits, calibrated on --data's training images and scored on its validation", task="detect"
    )
    calibration: int = opt(100, "images (or tiles) that --int8 measures", min=1)
    nms: bool = opt(
        False,
        "NMS inside the file, whose rows are x1, y1, x2, y2, confidence, class (onnx, openvino, triton)",
        task="detect",
    )
    simplify: bool = opt(False, "tidy the ONNX graph with onnxslim")
    opset: int = opt(18, "version of ONNX's operators, 17 or later", min=1)
    device: str = opt("cpu", "where PyTorch runs: cpu, 0, cuda:1, mps")
    suppression: NmsOptions = group(NmsOptions, max_det=300)
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check every option."""
        super().__post_init__()
        if self.opset < 17:
            reason = "PyTorch's exporter writes opset 17 and later, which ONNX Runtime reads since 1.11"
            raise UserError(f"--opset {self.opset}: {reason}")
        if self.half and self.int8:
            raise UserError("--half and --int8 exclude each other")
        for format in self.include:
            refused = None if format == ALL else refused_option(format, self.asked)
            if refused:
                raise UserError(refused)
        if self.nms and self.opset < 18:
            raise UserError("--nms needs --opset 18 or later")

    @property
    def asked(self) -> list[str]:
        """The options given that not every format takes."""
        given = {
            "--int8": self.int8,
            "--nms": self.nms,
            "--dynamic": self.dynamic,
            "--batch-size": self.batch_size > 1,
        }
        return [option for option, wanted in given.items() if wanted]

    @property
    def nms_settings(self) -> NmsSettings | None:
        """Of the NMS inside the file."""
        from engine.runtimes.onnx_nms import NmsSettings

        return (
            NmsSettings(
                self.suppression.conf_thres, self.suppression.iou_thres, self.suppression.max_det or 300
            )
            if self.nms
            else None
        )
