"""Freezing: layers whose weights and statistics training does not change."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers.head import DetectionHead
from utils.errors import UserError


def freeze_layers(model: nn.Module, layers: Sequence[int]) -> list[str]:
    """Freeze layers of a detector; return the names of their parameters.

    Args:
        model: a network whose layers are `model.0`, `model.1`, ...
        layers: one number n freezes the first n layers, as in YOLOv5; several freeze the layers they number.

    Raises:
        UserError: there is no such layer, or none would be left to train.
    """
    children = {name: module for name, module in model.named_modules() if name.count(".") == 1}
    numbers = list(range(layers[0])) if len(layers) == 1 else list(layers)
    missing = [number for number in numbers if f"model.{number}" not in children]
    last = sum(name.startswith("model.") for name in children) - 1
    if missing:
        given = " ".join(map(str, layers))
        raise UserError(f"--freeze {given}: the network has no layer {missing[0]}; they are 0 to {last}")
    frozen = []
    for number in numbers:
        for name, parameter in children[f"model.{number}"].named_parameters():
            parameter.requires_grad_(False)
            frozen.append(f"model.{number}.{name}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"--freeze leaves no layer to train; they are 0 to {last}")
    return frozen


def set_train_mode(model: nn.Module) -> None:
    """Put a network into training mode, except what is frozen.

    A layer whose parameters are all frozen is in eval mode: its BatchNorm normalizes with the statistics that
    it has, as the network does in use, and keeps them. The head is not: its output depends on the mode.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        is_frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
        if is_frozen and not isinstance(module, DetectionHead):
            module.eval()
