"""Build a network from the name or the YAML of its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models.builders  # noqa: F401  (fills the registry)
from models.architecture import is_classifier, read_architecture, swap_downsampling
from models.bounds import bounded_parameters, check_output, check_row
from models.classification.model import ClassificationModel, build_classifier
from models.detection_architecture import scale_of
from models.detection_model import DetectionModel, Inputs
from models.downsample import check_downsampler
from models.layers.activations import make_activation
from models.layers.blocks import Conv
from models.layers.head import Detect, DetectionHead
from models.registry import find_block, make_layer
from models.surgery import repeat_surgery
from models.yaml_checks import Architecture
from utils.errors import UserError
from utils.reading import guarded

HEADS = ("Detect", "AnchorFreeDetect")  # the blocks that end a detector
PROBE = 128  # pixels, side of the black image that each layer is run on as it is built


def build_model(
    cfg: str | Path | dict[str, Any],
    num_classes: int | None = None,
    anchors: int | Sequence[Sequence[float]] | None = None,
    downsample: str | None = None,
) -> DetectionModel | ClassificationModel:
    """Return a freshly initialized network, in training mode; its YAML says whether it detects or classifies.

    Args:
        cfg: a name with its scale letter ("yolov5s-spd", "resnet18"), the path of a YAML, or its content.
        num_classes: instead of the YAML's nc.
        anchors: instead of the YAML's: for each level a row of widths and heights in pixels, or their number
            per level.
        downsample: replace every stride-2 3x3 Conv of backbone and neck, or the downsampling of every stage
            of a ResNet, by this downsampler.

    Raises:
        UserError: an unknown name, or a mistake in the YAML; the message names the place.
    """
    where = "model YAML" if isinstance(cfg, dict) else str(cfg)
    with guarded(where, "a network"), bounded_parameters(where):
        return _build(cfg, where, num_classes, anchors, downsample)


def _build(
    cfg: str | Path | dict[str, Any],
    where: str,
    num_classes: int | None,
    anchors: int | Sequence[Sequence[float]] | None,
    downsample: str | None,
) -> DetectionModel | ClassificationModel:
    given = {"nc": num_classes, "anchors": anchors}
    architecture = read_architecture(cfg, {key: value for key, value in given.items() if value is not None})
    if downsample is not None:
        check_downsampler(downsample)
        architecture = swap_downsampling(architecture, downsample)
    model = build_classifier(architecture) if is_classifier(architecture) else _detector(architecture, where)
    if architecture.get("surgery"):
        repeat_surgery(model, architecture["surgery"])
    return model


def _detector(architecture: Architecture, where: str) -> DetectionModel:
    chain = _build_layers(architecture, where)
    if architecture.get("activation") is not None:
        try:
            _set_activation(chain.layers, architecture["activation"])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if architecture.get("batchnorm") is not None:
        _set_batchnorm(chain.layers, architecture["batchnorm"])
    return chain.detector()


def largest_stride(cfg: str | Path | dict[str, Any]) -> int:
    """Return the pixels that height and width of a detector's images are multiples of; 1 for classifiers."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(cfg)
    return model.max_stride if isinstance(model, DetectionModel) else 1


class _Chain:
    """The layers built so far, and the output of each for a black image."""

    def __init__(self, architecture: Architecture):
        self.architecture = architecture
        self.scale = scale_of(architecture)
        image_channels = architecture["ch"]
        self.layers: list[nn.Module] = []
        self.sources: list[Inputs] = []
        self.channels: dict[int, int] = {-1: image_channels}
        self.outputs: dict[int, Any] = {-1: torch.zeros(1, image_channels, PROBE, PROBE)}

    def add(self, given: int | list[int], repeat: int, name: str, arguments: list[Any]) -> None:
        """Build the layer of one row and run it once."""
        index = len(self.layers)
        source = _resolve_source(given, index, find_block(name).joins)
        indices = source if isinstance(source, list) else [source]
        values = [_literal(value, self.architecture) for value in arguments]
        c_in = [self.channels[i] for i in indices]
        check_row(name, values, self.scale.repeats(repeat))
        layer, self.channels[index] = make_layer(name, c_in, self.scale, values, repeat)
        inputs = [self.outputs[i] for i in indices]
        check_output(name, values, layer, self.channels[index], inputs)
        with torch.no_grad():
            self.outputs[index] = layer.eval()(inputs if isinstance(source, list) else inputs[0])
        self.layers.append(layer)
        self.sources.append(source)

    def detector(self) -> DetectionModel:
        """Return the finished chain; its last layer is the head."""
        head, (_, raw) = self.layers[-1], self.outputs[len(self.layers) - 1]
        assert isinstance(head, DetectionHead)
        head.stride = torch.tensor([PROBE / level.shape[2] for level in raw])
        head.initialize_bias()
        channels = [self.channels[i] for i in range(len(self.layers))]
        names = [str(i) for i in range(head.nc)]
        detector = DetectionModel(self.layers, self.sources, channels, self.architecture, names)
        if isinstance(head, Detect):
            detector.set_anchors(_anchor_pixels(self.architecture["anchors"], head.stride))
        return detector.train()


def _build_layers(architecture: Architecture, where: str) -> _Chain:
    """Build every row; an error names the row."""
    chain = _Chain(architecture)
    total = len(architecture["backbone"]) + len(architecture["head"])
    for section in ("backbone", "head"):
        for number, row in enumerate(architecture[section], 1):
            name = row[2]
            try:
                if name in HEADS and len(chain.layers) < total - 1:
                    raise UserError(f"{name} must be the last row, and only that")
                if name not in HEADS and len(chain.layers) == total - 1:
                    raise UserError("Detect must be the last row, and only that")
                chain.add(*row)
            except (ValueError, RuntimeError, TypeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"{where}: {section} row {number} ({name}): {reason}") from error
    return chain


def _resolve_source(given: int | list[int], index: int, joins: bool) -> Inputs:
    """Return the absolute indices of the layers whose outputs layer `index` takes; -1 is the image."""
    indices = []
    for value in given if isinstance(given, list) else [given]:
        absolute = value if value >= 0 else index + value
        if not (-1 if value == -1 else 0) <= absolute < index:
            raise UserError(f"'from' {value} is not an earlier layer (0 to {index - 1})")
        indices.append(absolute)
    return indices if joins or len(indices) > 1 else indices[0]


def _literal(value: Any, architecture: Architecture) -> Any:
    """Return the value of a word among a row's arguments, looked up, never evaluated."""
    words = {
        "nc": architecture["nc"],
        "anchors": architecture.get("anchors"),
        "None": None,
        "True": True,
        "False": False,
    }
    return words.get(value, value) if isinstance(value, str) else value


def _anchor_pixels(anchors: int | list[list[float]], stride: Tensor) -> Tensor:
    """(nl, na, 2) pixels; for a number per level, squares of 1.5 to 6 strides until autoanchor fits them."""
    if isinstance(anchors, int):
        sides = 1.5 * 4 ** torch.linspace(0, 1, anchors)  # strides
        return (stride.view(-1, 1) * sides).unsqueeze(-1).repeat(1, 1, 2)
    pixels = torch.tensor(anchors, dtype=torch.float32).view(len(anchors), -1, 2)
    areas = pixels.prod(-1).mean(-1)  # (nl,)
    largest_first = (areas[-1] - areas[0]) * (stride[-1] - stride[0]) < 0
    return pixels.flip(0) if largest_first else pixels


def _set_activation(layers: list[nn.Module], text: str) -> None:
    """Give every Conv that has one the activation that `activation:` names, as YOLOv5's default_act does."""
    make_activation(text)
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
                module.act = make_activation(text)


def _set_batchnorm(layers: list[nn.Module], settings: dict[str, float]) -> None:
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = settings["eps"], settings["momentum"]
