"""Freezing: layers whose weights training does not change."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from utils.errors import UserError


def freeze_layers(model: nn.Module, layers: Sequence[int]) -> list[str]:
    """Freeze layers of a detector; return the names of their parameters.

    Args:
        model: a network whose layers are `model.0`, `model.1`, ...
        layers: one number n freezes the first n layers, as in YOLOv5; several freeze the layers they number.

    Raises:
        UserError: there is no such layer.
    """
    children = {name: module for name, module in model.named_modules() if name.count(".") == 1}
    numbers = list(range(layers[0])) if len(layers) == 1 else list(layers)
    missing = [number for number in numbers if f"model.{number}" not in children]
    if missing:
        last = sum(name.startswith("model.") for name in children) - 1
        raise UserError(f"--freeze: the network has no layer {missing[0]}; they are 0 to {last}")
    frozen = []
    for number in numbers:
        for name, parameter in children[f"model.{number}"].named_parameters():
            parameter.requires_grad_(False)
            frozen.append(f"model.{number}.{name}")
    return frozen
