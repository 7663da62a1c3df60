"""The bridge to Ultralytics: our downsamplers in their networks, under their engine.

    import models.ultralytics_bridge
    from ultralytics import YOLO

    YOLO("yolo11n-spd.yaml").train(data="mine.yaml")  # any YAML of theirs, any downsampler: yolov8s-p2-blur

    yolo = YOLO("yolo11n.pt")
    replace_downsampling(yolo.model)  # computes the same, see models/surgery.py
    yolo.train(data="mine.yaml")

Their trainer builds a network again from the `yaml` in it. So the operator, or the surgery, is noted there,
and two functions of theirs are wrapped: `yaml_model_load` reads names, `parse_model` builds.
tests/models/test_ultralytics_bridge.py pins both, and all else that is relied on.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from models.downsample import DOWNSAMPLERS, RESAMPLERS, check_downsampler
from models.downsample.spd_conv2d import SPDConv2d, Window
from models.surgery.replace import repeat_surgery
from utils.errors import UserError
from utils.ultralytics_adapter import load, prepare_engine

Yaml = dict[str, Any]
Parser = Callable[..., tuple[nn.Module, list[int]]]
SPD_WINDOW = Window(kernel=(6, 6), padding=(2, 2), stride=2, ceil=True)  # of space-to-depth and Conv k3


class Bridge:
    """Lies in every network that was built here, so that reading its checkpoint imports this file."""


def swap_downsampling(layers: nn.Module, name: str) -> int:
    """Let every 3x3 Conv of stride 2 among Ultralytics' layers shrink by `name`; return how many there were.

    Their Conv stays, under its name, with its BatchNorm and activation: "spd" replaces the convolution in it,
    a resampler runs behind its activation.

    Raises:
        UserError: no such downsampler, or no such Conv.
    """
    check_downsampler(name)
    conv_class = load("ultralytics.nn.modules.conv").Conv
    found = [m for m in layers.modules() if isinstance(m, conv_class) and _halves(m.conv)]
    if not found:
        raise UserError(f"'-{name}' replaces 3x3 convolutions of stride 2, and this network has none")
    for module in found:
        old = module.conv
        if name == "spd":
            bias = old.bias is not None
            module.conv = SPDConv2d(old.in_channels, old.out_channels, SPD_WINDOW, old.groups, bias)
        elif name in RESAMPLERS:
            old.stride = (1, 1)
            module.act = nn.Sequential(module.act, RESAMPLERS[name]())
    return len(found)


def _halves(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == (2, 2)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
    )


def _reading_names(original: Callable[[Any], Yaml]) -> Callable[[Any], Yaml]:
    """Return their `yaml_model_load` that knows yolo11n-spd.yaml as yolo11n.yaml with an operator."""

    @functools.wraps(original)
    def yaml_model_load(path: str | Path) -> Yaml:
        path = Path(path)
        base, _, operator = path.stem.rpartition("-")
        try:
            return original(path)
        except FileNotFoundError:
            if operator not in (*DOWNSAMPLERS, *RESAMPLERS):
                raise
        content = original(path.with_name(base + path.suffix))
        return {**content, "downsample": operator, "yaml_file": str(path)}

    return yaml_model_load


def _building(original: Parser) -> Parser:
    """Return their `parse_model` that also does what `downsample` and `surgery` of the YAML say."""

    @functools.wraps(original)
    def parse_model(d: Yaml, ch: int, verbose: bool = True) -> tuple[nn.Module, list[int]]:
        layers, save = original(d, ch, verbose)
        network = nn.Module()  # the surgery names layers as the finished network does
        network.model = layers
        if d.get("downsample"):
            count = swap_downsampling(layers, d["downsample"])
            if verbose:
                load("ultralytics.utils").LOGGER.info(f"downsample: {d['downsample']} in {count} layers")
        if d.get("surgery"):
            repeat_surgery(network, d["surgery"])
        vars(layers)["bridge"] = Bridge()
        return layers, save

    return parse_model


def _install() -> None:
    """Wrap the two functions where their callers look them up, once a process."""
    tasks: Any = load("ultralytics.nn.tasks")
    model: Any = load("ultralytics.engine.model")
    prepare_engine()
    tasks.yaml_model_load = model.yaml_model_load = _reading_names(tasks.yaml_model_load)
    tasks.parse_model = _building(tasks.parse_model)
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        load("ultralytics.utils").LOGGER.warning(
            "Ultralytics' engine cannot run here, because torchvision cannot be imported: "
            f"{str(error).splitlines()[0]}; its networks can be built and changed"
        )


_install()
