"""The bridge to Ultralytics: our downsamplers in their networks, under their engine.

    from models.ultralytics_bridge import enable

    enable()  # before or after Ultralytics is imported
    from ultralytics import YOLO

    YOLO("yolo11n-spd.yaml").train(data="mine.yaml")  # any YAML of theirs, any downsampler: yolov8s-p2-blur

    yolo = YOLO("yolo11n.pt")
    replace_downsampling(yolo.model)  # the outputs stay, see models/surgery
    yolo.train(data="mine.yaml")

Their trainer builds a network again from the `yaml` in it. So the downsampler, or the surgery, is noted
there, and the functions of theirs that read and build a YAML are wrapped: `enable` says which. Importing this
file changes nothing. tests/models/test_ultralytics_bridge.py pins what is relied on.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from models.downsample import DOWNSAMPLERS, RESAMPLERS, check_downsampler
from models.downsample.spd_conv2d import SPDConv2d, Window
from models.surgery import repeat_surgery
from utils.errors import UserError
from utils.ultralytics_adapter import load, prepare_engine

Yaml = dict[str, Any]
Parser = Callable[..., tuple[nn.Module, list[int]]]
SPD_WINDOW = Window(kernel=(6, 6), padding=(2, 2), stride=2, ceil=True)  # of space-to-depth and Conv k3
FORMER_NAME = "models.ultralytics"  # of this file, in checkpoints written under it


@functools.cache
def enable() -> None:
    """Let Ultralytics read and build networks with our downsamplers; a second call does nothing.

    What this changes in the process, all of it for good:

    - `ultralytics.nn.tasks.yaml_model_load`, also under its name in `ultralytics.engine.model`: reads
      yolo11n-spd.yaml as yolo11n.yaml with the downsampler spd.
    - `ultralytics.nn.tasks.parse_model`: replaces what `downsample` and `surgery` of a YAML name.
    - what `utils.ultralytics_adapter.prepare_engine` changes: their engine writes its log, and neither fonts
      nor weights are downloaded unasked.
    - `sys.modules["models.ultralytics"]` is this file, so that checkpoints written under that name load.
    """
    tasks: Any = load("ultralytics.nn.tasks")
    model: Any = load("ultralytics.engine.model")
    prepare_engine()
    tasks.yaml_model_load = model.yaml_model_load = _reading_names(tasks.yaml_model_load)
    tasks.parse_model = _building(tasks.parse_model)
    sys.modules.setdefault(FORMER_NAME, sys.modules[__name__])
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        load("ultralytics.utils").LOGGER.warning(
            "Ultralytics' engine cannot run here, because torchvision cannot be imported: "
            f"{str(error).splitlines()[0]}; its networks can be built and changed"
        )


class Bridge:
    """A mark in every network that was built here: reading its checkpoint enables the bridge.

    Without it, their trainer would silently build such a network with their own downsampling.
    """

    def __new__(cls) -> Bridge:
        """Enable the bridge, also when pickle makes the object."""
        enable()
        return super().__new__(cls)


def swap_downsampling(layers: nn.Module, name: str) -> int:
    """Replace the downsampling of every 3x3 Conv of stride 2 among Ultralytics' layers; return their number.

    Their Conv stays, under its name, with its BatchNorm and activation: "spd" replaces the convolution in it,
    a resampler follows its activation.

    Args:
        layers: built by their `parse_model`; changed in place.
        name: of the downsampler.

    Raises:
        UserError: no such downsampler, or no such Conv.
    """
    check_downsampler(name)
    conv_class = load("ultralytics.nn.modules.conv").Conv
    strided = [m for m in layers.modules() if isinstance(m, conv_class) and _halves(m.conv)]
    if not strided:
        raise UserError(f"'-{name}' replaces 3x3 convolutions of stride 2, and this network has none")
    for module in strided:
        old = module.conv
        if name == "spd":
            bias = old.bias is not None
            module.conv = SPDConv2d(old.in_channels, old.out_channels, SPD_WINDOW, old.groups, bias)
        elif name in RESAMPLERS:
            old.stride = (1, 1)
            module.act = nn.Sequential(module.act, RESAMPLERS[name]())
    return len(strided)


def _halves(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == (2, 2)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
    )


def _reading_names(original: Callable[[Any], Yaml]) -> Callable[[Any], Yaml]:
    """Return their `yaml_model_load`, which also reads yolo11n-spd.yaml: yolo11n.yaml with a downsampler."""

    @functools.wraps(original)
    def yaml_model_load(path: str | Path) -> Yaml:
        path = Path(path)
        base, _, downsampler = path.stem.rpartition("-")
        try:
            return original(path)
        except FileNotFoundError:
            if downsampler not in (*DOWNSAMPLERS, *RESAMPLERS):
                raise
        content = original(path.with_name(base + path.suffix))
        return {**content, "downsample": downsampler, "yaml_file": str(path)}

    return yaml_model_load


def _building(original: Parser) -> Parser:
    """Return their `parse_model`, which also replaces what `downsample` and `surgery` of the YAML name."""

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
