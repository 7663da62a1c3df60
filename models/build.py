"""Build a model from a name or a YAML; `python -m models.build yolov5n-spd` prints its layers."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models.rows  # noqa: F401  (fills the registry)
from models.architecture import Architecture, check_anchors, read_architecture, scale_of, swap_downsampling
from models.detector import Detector, Source
from models.downsample import check_downsampler
from models.head import Detect
from models.registry import find_block, make_layer
from utils.cli import opt, run, validate
from utils.errors import UserError, suggest

PROBE = 128  # side of the black image that walks through the layers while they are built, pixels


def build_model(
    cfg: str | Path | dict[str, Any],
    num_classes: int | None = None,
    anchors: int | Sequence[Sequence[float]] | None = None,
    downsample: str | None = None,
) -> Detector:
    """Return a freshly initialised detector, in training mode.

    Args:
        cfg: a name with its scale letter ("yolov5s-spd"), the path of a model YAML, or its content.
        num_classes: instead of the YAML's nc.
        anchors: instead of the YAML's: a row of widths and heights in pixels a level, or their number a level.
        downsample: replace every stride-2 3x3 Conv of backbone and neck by this downsampler.

    Raises:
        UserError: an unknown name, or a mistake in the YAML; the message names the place.
    """
    architecture = read_architecture(cfg)
    if num_classes is not None:
        architecture["nc"] = num_classes
    if anchors is not None:
        architecture["anchors"] = anchors
    if downsample is not None:
        check_downsampler(downsample)
        architecture = swap_downsampling(architecture, downsample)
    nc = architecture.get("nc")
    if type(nc) is not int or nc < 1:
        raise UserError(
            f"{_shown(cfg)}: nc, the number of classes, must be a whole number above 0, got {nc!r}"
        )
    architecture["anchors"] = check_anchors(architecture.get("anchors"), f"{_shown(cfg)}: anchors")
    layers, sources, strides = _build_layers(architecture, _shown(cfg))
    _set_activation(layers, architecture.get("activation"))
    head = layers[-1]
    assert isinstance(head, Detect)
    head.stride = torch.tensor(strides)
    head.initialize_bias()
    detector = Detector(layers, sources, architecture, [str(i) for i in range(nc)])
    detector.set_anchors(_anchor_pixels(architecture["anchors"], head.stride))
    return detector.train()


def _shown(cfg: str | Path | dict[str, Any]) -> str:
    return "model YAML" if isinstance(cfg, dict) else str(cfg)


def _build_layers(
    architecture: Architecture, where: str
) -> tuple[list[nn.Module], list[Source], list[float]]:
    """Return the layers, what feeds each, and the strides of the head's levels."""
    channels, scale = [architecture.get("ch", 3)], scale_of(architecture)  # channels[i + 1]: of layer i
    outputs: list[Any] = [torch.zeros(1, channels[0], PROBE, PROBE)]
    layers: list[nn.Module] = []
    sources: list[Source] = []
    rows = [
        (section, i, row)
        for section in ("backbone", "head")
        for i, row in enumerate(architecture[section], 1)
    ]
    for section, number, (given, repeat, name, arguments) in rows:
        try:
            source = _resolve_source(given, len(layers), find_block(name).joins)
            feeding = source if isinstance(source, list) else [source]
            if len(layers) == len(rows) - 1 and name != "Detect":
                raise UserError("the last row must be Detect")
            c_in = [channels[i + 1] for i in feeding]
            values = [_literal(value, architecture) for value in arguments]
            layer, c_out = make_layer(name, c_in, scale, values, repeat)
            inputs = [outputs[i + 1] for i in feeding]
            outputs.append(_probe(layer, inputs if isinstance(source, list) else inputs[0]))
        except (ValueError, RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{where}: {section} row {number} ({name}): {reason}") from error
        layers.append(layer)
        sources.append(source)
        channels.append(c_out)
    return layers, sources, [PROBE / raw.shape[2] for raw in outputs[-1][1]]


def _resolve_source(given: int | list[int], index: int, joins: bool) -> Source:
    """Return the absolute indices of the layers that feed layer `index`; -1 is the image."""
    found = []
    for value in given if isinstance(given, list) else [given]:
        absolute = value if value >= 0 else index + value
        if not (-1 if value == -1 else 0) <= absolute < index:
            raise UserError(f"'from' {value} is not an earlier layer (0 to {index - 1})")
        found.append(absolute)
    if len(found) > 1 or joins:
        return found
    return found[0]


def _literal(value: Any, architecture: Architecture) -> Any:
    """Return what a word in a row's arguments stands for; YOLOv5 evaluates them as Python, we look them up."""
    words = {
        "nc": architecture["nc"],
        "anchors": architecture["anchors"],
        "None": None,
        "True": True,
        "False": False,
    }
    return words.get(value, value) if isinstance(value, str) else value


def _probe(layer: nn.Module, inputs: Tensor | list[Tensor]) -> Any:
    """Run the layer once, without touching its BatchNorm statistics."""
    with torch.no_grad():
        return layer.eval()(inputs)


def _anchor_pixels(anchors: int | list[list[float]], stride: Tensor) -> Tensor:
    """(nl, na, 2) pixels; for a bare number, squares of 1.5 to 6 strides until autoanchor fits them to data."""
    if isinstance(anchors, int):
        sides = 1.5 * 4 ** torch.linspace(0, 1, anchors)  # strides
        return (stride.view(-1, 1) * sides).unsqueeze(-1).repeat(1, 1, 2)
    return torch.tensor(anchors, dtype=torch.float32).view(len(anchors), -1, 2)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "Hardswish": nn.Hardswish,
    "Mish": nn.Mish,
    "GELU": nn.GELU,
    "Identity": nn.Identity,
}


def _set_activation(layers: list[nn.Module], text: str | None) -> None:
    """Replace SiLU by what `activation:` says, such as nn.ReLU() or nn.LeakyReLU(0.1)."""
    if text is None:
        return
    match = re.fullmatch(r"(?:torch\.)?(?:nn\.)?(\w+)(?:\(([\d.]*)\))?", str(text).strip())
    if match is None or match[1] not in ACTIVATIONS:
        raise UserError(f"unknown activation '{text}'. {suggest(match[1] if match else '', ACTIVATIONS)}")
    arguments = [float(match[2])] if match[2] else []
    for layer in layers:
        for module in layer.modules():
            if isinstance(getattr(module, "act", None), nn.SiLU):
                module.act = ACTIVATIONS[match[1]](*arguments)


@dataclass(frozen=True)
class BuildConfig:
    """Print a model's layers, parameters and arithmetic: python -m models.build yolov5n-spd."""

    cfg: str = opt("yolov5n-spd", "model name with its scale letter, or the path of a YAML")
    imgsz: int = opt(640, "square input side for the arithmetic, pixels", "--img", "--img-size", min=32)
    num_classes: int | None = opt(None, "number of classes, instead of the YAML's", "--nc", min=1)
    downsample: str | None = opt(None, "swap every stride-2 3x3 Conv for this downsampler")

    def __post_init__(self) -> None:
        validate(self)


def main(config: BuildConfig) -> None:
    """Build the model and print its summary."""
    from models.summary import summarize

    model = build_model(config.cfg, config.num_classes, downsample=config.downsample)
    print(summarize(model, config.imgsz))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--cfg")
    run(BuildConfig, main, arguments)
