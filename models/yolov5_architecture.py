"""The architecture of a network as YOLOv5's own code builds it, or why that cannot be."""

from __future__ import annotations

import copy
from typing import Any

from models.detection_architecture import check_anchors, scale_of
from models.yaml_checks import Architecture
from utils.errors import UserError

_NAMES = {"SpaceToDepth": "space_to_depth", "Upsample": "nn.Upsample"}  # our other names: YOLOv5's
_WITHOUT_CHANNELS = {"Concat", "space_to_depth", "Contract", "Expand", "Detect"}  # as the first argument
_KEYS = ("activation", "channel_multiple")  # which newer versions of YOLOv5 read


def yolov5_architecture(architecture: Architecture) -> Architecture:
    """Return the YAML by which YOLOv5's code builds a detector.

    Raises:
        UserError: it has layers that YOLOv5's code does not have; the message names the first.
    """
    if architecture.get("surgery"):
        raise UserError("its layers were replaced by surgery, and YOLOv5's code builds from a YAML alone")
    head = architecture["head"][-1][2]
    if head != "Detect":
        raise UserError(f"its head is {head}, which YOLOv5's code does not have")
    scale = scale_of(architecture)
    result: Architecture = {
        "nc": architecture["nc"],
        "depth_multiple": scale.depth,
        "width_multiple": scale.width,
        "anchors": check_anchors(architecture["anchors"]),
        "backbone": [],
        "head": [],
        "ch": architecture["ch"],
        **{key: architecture[key] for key in _KEYS if key in architecture},
    }
    for section in ("backbone", "head"):
        for row in architecture[section]:
            number = len(result["backbone"]) + len(result["head"])
            result[section].append(_row(copy.deepcopy(row), number, scale.max_channels))
    return result


def _row(row: list[Any], number: int, max_channels: float) -> list[Any]:
    """Return a row by YOLOv5's names; channels are capped here, since YOLOv5 knows no `max_channels`."""
    source, repeats, name, arguments = row
    name = _NAMES.get(name, name)
    if name == "Downsample":
        channels, downsampler = arguments
        if downsampler != "strided":
            raise UserError(
                f"layer {number} downsamples by '{downsampler}', which YOLOv5's code does not have; "
                "networks with strided convolutions and the released SPD layout (yolov5n-spd) can be written"
            )
        name, arguments = "Conv", [channels, 3, 2]
    if arguments and type(arguments[0]) is int and name not in _WITHOUT_CHANNELS and name[:3] != "nn.":
        arguments = [min(arguments[0], int(min(max_channels, arguments[0]))), *arguments[1:]]
    return [source, repeats, name, arguments]
