"""Running a network from its file, whatever its format, behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.errors import UserError
from utils.reading import guarded


@dataclass(frozen=True)
class Format:
    """A format of networks.

    Attributes:
        name: as `export.py --include` calls it.
        suffix: of the file that `load_predictor` opens.
        written_as: what replaces ".pt" in the name of an export.
        module: with `load`, and for exports a writer.
    """

    name: str
    suffix: str
    written_as: str
    module: str


FORMATS = {
    format.name: format
    for format in (
        Format("pytorch", ".pt", ".pt", "engine.runtimes.pytorch"),
        Format("onnx", ".onnx", ".onnx", "engine.runtimes.onnx"),
        Format("openvino", ".xml", "_openvino_model", "engine.runtimes.openvino"),
        Format("torchscript", ".torchscript", ".torchscript", "engine.runtimes.torchscript"),
        Format("engine", ".engine", ".engine", "engine.runtimes.tensorrt"),
        Format("ncnn", ".param", "_ncnn_model", "engine.runtimes.ncnn"),
        Format("litert", ".tflite", ".tflite", "engine.runtimes.litert"),
        Format("coreml", ".mlpackage", ".mlpackage", "engine.runtimes.coreml"),
        Format("triton", ".onnx", "_triton", "engine.runtimes.onnx"),  # around an ONNX file
        Format("yolov5", ".pt", "_yolov5.pt", "engine.runtimes.pytorch"),
    )
}

IN_FOLDERS = ("*.xml", "*.param", "*/*/model.onnx")  # which of a folder's files is opened


class Predictor(Protocol):
    """A detector or classifier ready for use, by several threads at once.

    On a CPU it computes with as many threads as PyTorch has in the thread that calls it.

    Attributes:
        names: the classes.
        stride: height and width of images must be multiples of this, pixels.
        imgsz: the only height and width it takes, pixels; None takes any.
        task: "detect" or "classify".
        config: how it was trained, or {}.
        device: where the output is; images are best there, too.
    """

    names: list[str]
    stride: int
    imgsz: tuple[int, int] | None
    task: str
    config: dict[str, Any]
    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float RGB in 0..1 -> (B, N, 5 + classes), or a classifier's logits (B, classes).

        Each row: cx, cy, w, h in pixels, objectness, class scores.
        """
        ...


def load_predictor(
    weights: str | Path | Sequence[str | Path],
    device: torch.device | str = "cpu",
    fuse: bool = True,
    half: bool = False,
    names: Sequence[str] | None = None,
    nameless: Sequence[str] | None = None,
    task: str | None = "detect",
) -> Predictor:
    """Load a network for inference; several files become one ensemble.

    Args:
        weights: a .pt, .onnx, .torchscript, .engine or .tflite file, a folder of
            OpenVINO, NCNN or CoreML; or several.
        device: where to compute.
        fuse: rewrite a PyTorch network for speed, with the same outputs.
        half: compute in 16 bits (PyTorch on a GPU).
        names: the classes, whatever the file calls them; their number must fit.
        nameless: the classes for a file that names none; others keep theirs.
        task: what it must do, "detect" or "classify"; None takes both.

    Raises:
        UserError: no such file, no network of ours, another task, or a number of classes that does not fit.
    """
    files = [Path(weights)] if isinstance(weights, str | Path) else [Path(file) for file in weights]
    if not files:
        raise UserError("no weights given")
    device = torch.device(device)
    if half and device.type == "cpu":
        raise UserError("16-bit inference needs a GPU; leave out --half or choose a --device")
    loaded = [_load(file, device, fuse, half, names, nameless) for file in files]
    expected = task or ("classify" if loaded[0].task == "classify" else "detect")
    for file, predictor in zip(files, loaded, strict=True):
        if predictor.task != expected:
            what = {"detect": "detection", "classify": "classification"}[expected]
            raise UserError(f"{file}: weights for the task '{predictor.task}', not for {what}")
    return loaded[0] if len(loaded) == 1 else Ensemble(loaded)


def _load(
    file: Path,
    device: torch.device,
    fuse: bool,
    half: bool,
    names: Sequence[str] | None,
    nameless: Sequence[str] | None,
) -> Predictor:
    modules = {format.suffix: format.module for format in FORMATS.values()}
    if file.is_dir() and file.suffix.lower() not in modules:
        file = next((graph for kind in IN_FOLDERS for graph in sorted(file.glob(kind))), file)
    suffix = file.suffix.lower()
    if suffix not in modules:
        raise UserError(f"{file}: cannot run weights of this kind; give one of {', '.join(modules)}")
    module = import_module(modules[suffix])
    with guarded(file, "a network"):
        predictor: Predictor = module.load(file, device, fuse, half, names or nameless)
    if names is not None:
        if len(names) != len(predictor.names):
            raise UserError(
                f"{file}: weights for {len(predictor.names)} classes, but the data set names {len(names)}"
            )
        predictor.names = list(names)
    return predictor


class Ensemble:
    """Several networks of the same classes.

    NMS chooses among all boxes of detectors; of classifiers the mean probability counts.
    """

    def __init__(self, predictors: Sequence[Predictor]):
        self.predictors = list(predictors)
        first = self.predictors[0]
        if any(other.names != first.names for other in self.predictors):
            raise UserError("the weights of an ensemble must have the same classes in the same order")
        sizes = {other.imgsz for other in self.predictors} - {None}
        if len(sizes) > 1:
            raise UserError(
                f"the weights of an ensemble take different image sizes: {sorted(map(str, sizes))}"
            )
        self.names, self.task, self.config = first.names, first.task, first.config
        self.device = first.device
        self.stride = max(other.stride for other in self.predictors)
        self.imgsz = next(iter(sizes), None)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, sum of N, 5 + classes), or the logarithms of mean probabilities."""
        outputs = [predictor(images).float() for predictor in self.predictors]
        if self.task == "classify":
            return torch.stack(outputs).softmax(-1).mean(0).clamp_min(1e-30).log()
        return torch.cat(outputs, 1)


class OneClass:
    """A predictor whose only class has each box's best class score."""

    def __init__(self, predictor: Predictor):
        self.predictor, self.names = predictor, ["object"]
        self.task, self.config, self.device = predictor.task, predictor.config, predictor.device
        self.stride, self.imgsz = predictor.stride, predictor.imgsz

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, 6)."""
        rows = self.predictor(images)
        return torch.cat((rows[..., :5], rows[..., 5:].amax(-1, keepdim=True)), -1)
