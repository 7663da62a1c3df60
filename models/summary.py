"""A table of a detector's layers, its parameters and its arithmetic."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.detector import Detector
from utils.errors import UserError


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trained or not."""
    return sum(p.numel() for p in model.parameters())


def count_gflops(model: Detector, imgsz: int = 640) -> float:
    """Return 10^9 floating-point operations for one image, two a multiply-add, convolutions only.

    Nothing is computed: a copy runs on torch's meta device.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, model.yaml["ch"], imgsz, imgsz, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(images)
    return counter.get_total_flops() / 1e9


def summarize(model: Detector, imgsz: int = 640) -> str:
    """Return the table as text.

    Raises:
        UserError: `imgsz` is not a multiple of the model's largest stride.
    """
    if imgsz % model.max_stride:
        raise UserError(f"--imgsz must be a multiple of the model's stride {model.max_stride}, got {imgsz}")
    rows = [*model.yaml["backbone"], *model.yaml["head"]]
    lines = [f"{'':>3}  {'from':>16}  {'n':>2}  {'params':>10}  {'module':<16}  arguments"]
    for index, (layer, row) in enumerate(zip(model.model, rows, strict=True)):
        source, _, name, arguments = row
        lines.append(
            f"{index:>3}  {source!s:>16}  {_repeats(layer):>2}  {count_parameters(layer):>10,}"
            f"  {name:<16}  {arguments}"
        )
    total, gflops = count_parameters(model), count_gflops(model, imgsz)
    lines.append(f"{total:,} parameters, {gflops:.1f} GFLOPs at {imgsz}x{imgsz}, {model.head.nc} classes")
    return "\n".join(lines)


def _repeats(layer: nn.Module) -> int:
    """Return how often the layer repeats: its bottlenecks, or the blocks stacked."""
    inside = layer if isinstance(layer, nn.Sequential) else getattr(layer, "m", None)
    return len(inside) if isinstance(inside, nn.Sequential) else 1
