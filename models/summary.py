"""A network in numbers: its layers as a table, its parameters, its arithmetic."""

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
    """Return 10^9 floating-point operations for one image, two per multiply-add, matrix products included.

    Nothing is computed: a copy runs on torch's meta device.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, model.yaml["ch"], imgsz, imgsz, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta(images)
    return counter.get_total_flops() / 1e9


def summarize(model: DetectionModel | ClassificationModel, imgsz: int = 640) -> str:
    """Return a table of the layers of a detector or the stages of a classifier, and the totals.

    Args:
        model: the network.
        imgsz: square input side for the arithmetic, pixels.

    Raises:
        UserError: `imgsz` is not a multiple of a detector's largest stride.
    """
    lines = _layers(model, imgsz) if isinstance(model, DetectionModel) else _stages(model, imgsz)
    gflops = count_gflops(model, imgsz)
    arithmetic = f"{gflops:.{1 if gflops >= 1 else 3}f} GFLOPs at {imgsz}x{imgsz}"
    lines.append(f"{count_parameters(model):,} parameters, {arithmetic}, {len(model.names)} classes")
    return "\n".join(lines)


def _layers(model: DetectionModel, imgsz: int) -> list[str]:
    """Return a heading and a line for each row of the YAML."""
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
    """Return the number of repeats in a layer: of its bottlenecks, or of the blocks stacked."""
    inside = layer if isinstance(layer, nn.Sequential) else getattr(layer, "m", None)
    return len(inside) if isinstance(inside, nn.Sequential) else 1


def _stages(model: ClassificationModel, imgsz: int) -> list[str]:
    """Return a heading and a line each for the stem, the stages and the linear layer."""
    network, yaml = model.model, model.yaml
    meta = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad():
        maps = meta.features(torch.empty(1, yaml["ch"], imgsz, imgsz, device="meta"))
    lines = [f"{'layer':<8}  {'n':>2}  {'params':>10}  {'output':>14}  downsampling"]
    shrinking = [f"{name} {stride:g}" if name != "none" else "" for name, stride in _downsampling(yaml)]
    if yaml["stem"] == "focus":
        shrinking[0] = "focus 2"
    for i, (layer, x, by) in enumerate(zip([network.stem, *network.stages], maps, shrinking, strict=True)):
        name, repeats = (f"stage {i}", yaml["depths"][i - 1]) if i else ("stem", 1)
        shape = "x".join(map(str, x.shape[1:]))
        lines.append(f"{name:<8}  {repeats:>2}  {count_parameters(layer):>10,}  {shape:>14}  {by}".rstrip())
    lines.append(f"{'linear':<8}  {1:>2}  {count_parameters(network.fc):>10,}  {len(model.names):>14}")
    return lines


def _downsampling(yaml: dict[str, Any]) -> list[tuple[str, float]]:
    return list(zip(yaml["downsample"], yaml["strides"], strict=True))
