"""Networks from checkpoints and to checkpoints: whole, or only the tensors that fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.build import build_model
from models.checkpoint import read_checkpoint
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from models.fuse import fuse_detector
from models.module_settings import built_settings, difference
from utils.errors import UserError, quoted
from utils.reading import guarded


def load_model(
    path: str | Path, device: str | torch.device = "cpu", fuse: bool = False
) -> DetectionModel | ClassificationModel:
    """Return the network of a checkpoint, in eval mode and float32.

    Args:
        path: a checkpoint of ours, of YOLOv5 v6.0 or later, or a released YOLOv5-SPD one.
        device: where to put it.
        fuse: rewrite a detector for inference, see `models.fuse`; a classifier stays as it is.

    Raises:
        UserError: the file cannot be read, or its weights do not fit its architecture.
    """
    model = from_checkpoint(read_checkpoint(path), str(path))
    if fuse and isinstance(model, DetectionModel):
        fuse_detector(model)
    return model.to(device)


def from_checkpoint(
    content: Mapping[str, Any], where: str = "checkpoint"
) -> DetectionModel | ClassificationModel:
    """Return the network that a checkpoint describes, in eval mode and float32.

    Args:
        content: of the checkpoint, as `read_checkpoint` returns it.
        where: how messages name the checkpoint.

    Raises:
        UserError: its architecture cannot be built, or its weights do not fit it.
    """
    with guarded(where, "a checkpoint"):
        return _from_checkpoint(content, where)


def _from_checkpoint(content: Mapping[str, Any], where: str) -> DetectionModel | ClassificationModel:
    for key, tensor in content["weights"].items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.device.type == "meta":
            raise UserError(f"{where}: weights hold {quoted(key)}: no name with a tensor")
    try:
        model = build_model(content["model"])
    except UserError as error:
        raise UserError(f"{where}: its architecture cannot be built: {error}") from error
    weights = {key: value for key, value in content["weights"].items() if not key.endswith("anchor_grid")}
    problem = _mismatch(model.state_dict(), weights)
    if not problem and "modules" in content:
        problem = difference(content["modules"], built_settings(model))
        if problem:
            raise UserError(f"{where}: the network is not what its architecture says: {problem}")
        problem = _other_strides(model, content.get("strides"))
    if problem:
        raise UserError(f"{where}: the weights do not fit the architecture: {problem}")
    model.load_state_dict(weights)
    if isinstance(model, DetectionModel) and (head := model.anchor_head):
        model.set_anchors(head.anchors * head.stride.view(-1, 1, 1))
    if len(content["names"]) != len(model.names):
        raise UserError(f"{where}: {len(content['names'])} names for {len(model.names)} classes")
    model.names = [str(name) for name in content["names"]]
    return model.eval()


def _other_strides(model: nn.Module, given: list[float] | None) -> str:
    built = model.stride.tolist() if isinstance(model, DetectionModel) else None
    return "" if given in (None, built) else f"strides {given} in the file, {built} as built"


def _mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return in one line the first tensor that does not fit, or an empty text."""
    for key, tensor in expected.items():
        if key not in given:
            return f"{key} is missing"
        if given[key].shape != tensor.shape:
            return f"{key} is {tuple(given[key].shape)}, and should be {tuple(tensor.shape)}"
    extra = [key for key in given if key not in expected]
    return f"there is no place for {extra[0]}" if extra else ""


def to_checkpoint(model: DetectionModel | ClassificationModel) -> dict[str, Any]:
    """Return the content of a checkpoint of this network: task, model, names and weights.

    Raises:
        ValueError: the network was fused for inference and cannot be built again from its YAML.
    """
    if model.fused:
        raise ValueError("a fused network cannot be saved; save it before it is fused")
    return {
        "task": model.task,
        "model": model.yaml,
        "names": list(model.names),
        "weights": model.state_dict(),
    }


def transfer_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Copy the weights that fit `model` by name and shape; anchors stay its own, as they belong to its data.

    Returns:
        The number of tensors copied, and the number of tensors in `model`.
    """
    state = model.state_dict()
    fitting = {
        key: value
        for key, value in weights.items()
        if key in state and state[key].shape == value.shape and not key.endswith(".anchors")
    }
    model.load_state_dict(fitting, strict=False)
    return len(fitting), len(state)
