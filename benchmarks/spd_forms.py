"""The forms of SPD-Conv that benchmarks/spd.py compares, as blocks and networks, and ways to run them."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.detection_model import DetectionModel

Run = Callable[[], object]
NETWORKS = ("released", "released fused", "paper", "paper fused", "baseline", "baseline fused")


def block_forms(channels: int) -> dict[str, nn.Module]:
    """Return the forms of a block: (B, C, H, W) -> (B, 2C, H/2, W/2), BatchNorm folded, in eval mode."""
    from torch import nn

    from models.downsample.spd import SpaceToDepth, SPDConv, strided_weight
    from models.fuse import StridedSPD, fold_batchnorm
    from models.layers.blocks import Conv

    out = 2 * channels
    blocks = {"baseline": Conv(channels, out, 3, 2), "paper": SPDConv(channels, out)}
    first, reader = Conv(channels, out, 3), nn.Conv2d(4 * out, out, 1, bias=False)
    for block in (*blocks.values(), first):
        fold_batchnorm(block.eval())
    strided = nn.Conv2d(out, out, 2, 2, bias=False)
    strided.weight.data = strided_weight(reader.weight.data)
    return {
        "released": nn.Sequential(first, SpaceToDepth(), reader),
        "released fused": in_layout(nn.Sequential(first, strided)),
        "paper": blocks["paper"],
        "paper fused": in_layout(StridedSPD(blocks["paper"])),
        "baseline": blocks["baseline"],
    }


def training_blocks(
    channels: int, device: torch.device, layout: torch.memory_format
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the same blocks as they train: space-to-depth as it is, and as a strided convolution."""
    from torch import nn
    from torch.nn import functional as F

    from models.downsample.spd import SpaceToDepth, SPDConv, strided_weight
    from models.layers.blocks import Conv

    out = 2 * channels
    first, reader = Conv(channels, out, 3), nn.Conv2d(4 * out, out, 1, bias=False)
    paper, baseline = SPDConv(channels, out), Conv(channels, out, 3, 2)
    for module in (first, reader, paper, baseline):
        in_layout(module.to(device), layout)

    def paper_strided(x: Tensor) -> Tensor:
        return paper.act(paper.bn(F.conv2d(x, strided_weight(paper.conv.weight), stride=2, padding=2)))

    return {
        "released": nn.Sequential(first, SpaceToDepth(), reader),
        "released strided": lambda x: F.conv2d(first(x), strided_weight(reader.weight), stride=2),
        "paper": paper,
        "paper strided": paper_strided,
        "baseline": baseline,
    }


def network(name: str, scale: str) -> DetectionModel:
    """Return one of NETWORKS in eval mode; what is not fused has BatchNorm as trained."""
    from models import build_model, fuse_detector
    from models.detection_model import require_detector

    kind, _, fused = name.partition(" ")
    built = {
        "released": lambda: build_model(f"yolov5{scale}-spd"),
        "paper": lambda: build_model(f"yolov5{scale}", downsample="spd"),
        "baseline": lambda: build_model(f"yolov5{scale}"),
    }[kind]()
    model = require_detector(built, "benchmark").eval()
    return fuse_detector(model) if fused else model


def in_layout(model: nn.Module, layout: torch.memory_format | None = None) -> nn.Module:
    """Give the weights that layout, channels_last if none is named."""
    import torch

    return model.to(memory_format=layout or torch.channels_last)  # type: ignore[call-overload]


def inference(
    model: nn.Module, x: Tensor, layout: torch.memory_format, half: bool = False, compiled: bool = False
) -> Run:
    """Return a run of a copy of `model`; `half`: bfloat16 where autocast finds it safe."""
    import torch

    model = copy.deepcopy(model).eval().to(x.device)
    if layout == torch.channels_last:  # fused weights are in that layout already
        model = in_layout(model)
    ready: Callable[[Tensor], object] = torch.compile(model) if compiled else model
    x = x.to(memory_format=layout)

    def step() -> object:
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            return ready(x)

    return step


def training(
    model: Callable[[Tensor], list[Tensor] | Tensor], x: Tensor, layout: torch.memory_format, half: bool
) -> Run:
    """Return a forward and a backward pass."""
    import torch

    x = x.to(memory_format=layout)

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            outputs = model(x)
        levels = outputs if isinstance(outputs, list) else [outputs]
        sum(level.float().square().mean() for level in levels).backward()  # type: ignore[union-attr]

    return step


def training_network(name: str, scale: str, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """Return "released", "paper" or "baseline", or "... fast", with models/fast_training.py, to train."""
    from models.fast_training import fast_training

    kind, _, fast = name.partition(" ")
    model = in_layout(network(kind, scale).train().to(device), layout)
    if fast:
        fast_training(model)
    return model


def exported(models: Mapping[str, DetectionModel], x: Tensor, threads: int) -> dict[str, dict[str, Run]]:
    """Return runs of each network's ONNX graph by runtime; the exporter folds BatchNorm in all of them."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    images = x.cpu()
    runs: dict[str, dict[str, Run]] = {"ONNX Runtime": {}, "OpenVINO": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            file = Path(folder) / "model.onnx"
            torch.onnx.export(model, (images,), file, dynamo=True, input_names=["images"], verbose=False)
            session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
            runs["ONNX Runtime"][name] = functools.partial(session.run, None, {"images": images.numpy()})
            runs["OpenVINO"][name] = _openvino(file, images, threads)
    return runs


def _openvino(file: Path, images: Tensor, threads: int) -> Run:
    """Return a run of an ONNX file in OpenVINO, or nothing to time where the package is missing."""
    try:
        import openvino
    except ImportError:
        return lambda: None
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_NUM_THREADS": threads})
    return functools.partial(compiled, {"images": images.numpy()})
