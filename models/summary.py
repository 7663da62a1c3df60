"""A table of a network's layers, its parameters and its arithmetic."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.errors import UserError


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trained or not."""
    return sum(p.numel() for p in model.parameters())


def count_gflops(model: DetectionModel | ClassificationModel, imgsz: int = 640) -> float:
    """Return 10^9 floating-point operations for one image, two a multiply-add, matrix products included.

    Nothing is computed: a copy runs on torch's meta device.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, model.yaml["ch"], imgsz, imgsz, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(images)
    return counter.get_total_flops() / 1e9


def summarize(model: DetectionModel | ClassificationModel, imgsz: int = 640) -> str:
    """Return the table as text.

    Raises:
        UserError: `imgsz` is not a multiple of a detector's largest stride.
    """
    lines = _layers(model, imgsz) if isinstance(model, DetectionModel) else _stages(model, imgsz)
    gflops = count_gflops(model, imgsz)
    arithmetic = f"{gflops:.{1 if gflops >= 1 else 3}f} GFLOPs at {imgsz}x{imgsz}"
    lines.append(f"{count_parameters(model):,} parameters, {arithmetic}, {len(model.names)} classes")
    return "\n".join(lines)


def _layers(model: DetectionModel, imgsz: int) -> list[str]:
    """Return a heading and a line a row of the YAML."""
    if imgsz % model.max_stride:
        raise UserError(f"imgsz must be a multiple of the model's stride {model.max_stride}, got {imgsz}")
    rows = [*model.yaml["backbone"], *model.yaml["head"]]
    lines = [f"{'':>3}  {'from':>16}  {'n':>2}  {'params':>10}  {'module':<16}  arguments"]
    for index, (layer, row) in enumerate(zip(model.model, rows, strict=True)):
        source, _, name, arguments = row
        lines.append(
            f"{index:>3}  {source!s:>16}  {_repeats(layer):>2}  {count_parameters(layer):>10,}"
            f"  {name:<16}  {arguments}"
        )
    return lines


def _repeats(layer: nn.Module) -> int:
    """Return how often the layer repeats: its bottlenecks, or the blocks stacked."""
    inside = layer if isinstance(layer, nn.Sequential) else getattr(layer, "m", None)
    return len(inside) if isinstance(inside, nn.Sequential) else 1


def _stages(model: ClassificationModel, imgsz: int) -> list[str]:
    """Return a heading and a line each for stem, stages and the linear layer."""
    network, yaml = model.model, model.yaml
    twin = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad():
        maps = twin.features(torch.empty(1, yaml["ch"], imgsz, imgsz, device="meta"))
    lines = [f"{'part':<8}  {'n':>2}  {'params':>10}  {'output':>14}  downsampling"]
    ways = [f"{name} {stride:g}" if name != "none" else "" for name, stride in _downsampling(yaml)]
    if yaml["stem"] == "focus":
        ways[0] = "focus 2"
    for i, (part, x, way) in enumerate(zip([network.stem, *network.stages], maps, ways, strict=True)):
        name, repeats = (f"stage {i}", yaml["depths"][i - 1]) if i else ("stem", 1)
        shape = "x".join(map(str, x.shape[1:]))
        lines.append(f"{name:<8}  {repeats:>2}  {count_parameters(part):>10,}  {shape:>14}  {way}".rstrip())
    lines.append(f"{'linear':<8}  {1:>2}  {count_parameters(network.fc):>10,}  {len(model.names):>14}")
    return lines


def _downsampling(yaml: dict[str, Any]) -> list[tuple[str, float]]:
    return list(zip(yaml["downsample"], yaml["strides"], strict=True))
