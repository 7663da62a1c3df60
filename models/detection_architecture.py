"""The architecture of a detector: the keys of its YAML, their checks, its scale."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from models.registry import Scale
from models.yaml_checks import Architecture, check_keys, check_positive, check_whole, is_whole
from utils.errors import UserError, quoted
from utils.limits import CLASSES

KEYS = {
    "nc": "the number of classes",
    "ch": "the number of input channels",
    "task": "detect or classify",
    "anchors": "rows of width, height in pixels, or a number per level",
    "bins": "the bins of its anchor-free form: distances of 0 to bins - 1 strides",
    "scales": "letter: [depth, width, max_channels]",
    "scale": "the letter chosen",
    "depth_multiple": "the factor of repeats",
    "width_multiple": "the factor of channels",
    "max_channels": "the most channels, before width",
    "channel_multiple": "what channels are rounded up to",
    "activation": "such as nn.ReLU()",
    "batchnorm": "eps and momentum of every BatchNorm",
    "backbone": "rows [from, number, block, arguments]",
    "head": "rows [from, number, block, arguments]",
    "surgery": "what models.surgery replaced",
    "inplace": "YOLOv5's; without effect",
    "yaml_file": "Ultralytics'; without effect",
}
_WITHOUT_EFFECT = ("inplace", "yaml_file")


def check_detector(content: Architecture, letter: str | None, where: str) -> Architecture:
    """Return a checked copy of a detector's YAML with one scale, written as multiples.

    Args:
        content: of the YAML.
        letter: of the scale; None: as `scale` in the content says.
        where: how messages name the YAML.

    Raises:
        UserError: a mistake; the message names the place.
    """
    check_keys(content, KEYS, where)
    result = {key: copy.deepcopy(value) for key, value in content.items() if key not in _WITHOUT_EFFECT}
    letter = letter or result.get("scale")
    result.pop("scale", None)
    result.update(_chosen_scale(result.pop("scales", None), letter, where))
    if result.pop("task", "detect") != "detect":
        raise UserError(f"{where}: task must be detect or classify, got {quoted(content['task'])}")
    result.setdefault("ch", 3)
    for key in ("nc", "ch", "bins") if "bins" in result else ("nc", "ch"):
        check_whole(result.get(key), f"{where}: {key}, {KEYS[key]},")
    CLASSES.check(result["nc"], f"{where}: nc")
    if result["ch"] != 3:
        raise UserError(f"{where}: ch is {result['ch']}, and detectors here take 3 channels, RGB")
    _check_batchnorm(result.get("batchnorm"), f"{where}: batchnorm")
    for key in ("depth_multiple", "width_multiple", "max_channels", "channel_multiple"):
        check_positive(result.get(key, 1), f"{where}: {key}")
    for section in ("backbone", "head"):
        for number, row in enumerate(_rows_of(result, section, where), 1):
            _check_row(row, f"{where}: {section} row {number}")
    if result["head"][-1][2] == "AnchorFreeDetect":
        result.pop("anchors", None)
    else:
        result["anchors"] = check_anchors(result.get("anchors"), f"{where}: anchors")
    return result


def _check_batchnorm(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or set(value) != {"eps", "momentum"}:
        raise UserError(f"{where} must hold eps and momentum, got {quoted(value)}")
    for key, number in value.items():
        check_positive(number, f"{where}: {key}")


def _chosen_scale(scales: Any, letter: str | None, where: str) -> dict[str, float]:
    if not scales:
        return {}
    if not isinstance(scales, dict):
        raise UserError(f"{where}: scales must map letters to [depth, width, max_channels]")
    if letter not in scales:
        family, dash, rest = Path(where).stem.partition("-")
        names = ", ".join(f"{family}{letter}{dash}{rest}" for letter in scales)
        raise UserError(f"{where} has several scales; say which: {names}")
    values = scales[letter]
    if not isinstance(values, list) or len(values) not in (2, 3):
        raise UserError(f"{where}: scale {letter} must be [depth, width, max_channels], got {quoted(values)}")
    return dict(zip(("depth_multiple", "width_multiple", "max_channels"), values, strict=False))


def _rows_of(content: Architecture, section: str, where: str) -> list[Any]:
    rows = content.get(section)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{where}: '{section}' must be a list of rows [from, number, block, arguments]")
    return rows


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, list) or len(row) != 4:
        raise UserError(f"{where} must be [from, number, block, arguments], got {quoted(row)}")
    source, number, name, arguments = row
    sources = source if isinstance(source, list) else [source]
    if not sources or any(type(index) is not int for index in sources):
        raise UserError(f"{where}: 'from' must be a layer's index or a list of them, got {quoted(source)}")
    check_whole(number, f"{where}: number")
    if not isinstance(name, str):
        raise UserError(f"{where}: the block must be a name, got {quoted(name)}")
    if not isinstance(arguments, list):
        raise UserError(f"{where} ({name}): the arguments must be a list, got {quoted(arguments)}")


def scale_of(architecture: Architecture) -> Scale:
    """Return the scale of a checked architecture."""
    return Scale(
        architecture.get("depth_multiple", 1.0),
        architecture.get("width_multiple", 1.0),
        architecture.get("max_channels", float("inf")),
        architecture.get("channel_multiple", 8),
    )


def check_anchors(anchors: Any, where: str = "anchors") -> int | list[list[float]]:
    """Return anchors as their number per level, or for each level one flat row of widths and heights, pixels.

    Raises:
        UserError: neither of the two, or rows of unequal length.
    """
    if is_whole(anchors):
        return anchors
    if not isinstance(anchors, list | tuple) or not anchors:
        raise UserError(
            f"{where} must be rows of width, height in pixels, or a number, got {quoted(anchors)}"
        )
    for number, row in enumerate(anchors, 1):
        if not isinstance(row, list | tuple) or not row or len(row) % 2 or len(row) != len(anchors[0]):
            raise UserError(
                f"{where} row {number}: must be width, height pairs, as many as in the others, "
                f"got {quoted(row)}"
            )
        for value in row:
            check_positive(value, f"{where} row {number}")
    return [[float(value) if value % 1 else int(value) for value in row] for row in anchors]


def swap_head(architecture: Architecture) -> Architecture:
    """Return a copy whose last row is an anchor-free head on the same levels, with `bins` of the YAML."""
    result = copy.deepcopy(architecture)
    result.pop("anchors", None)
    bins = result.pop("bins", None)
    result["head"][-1][2:] = ["AnchorFreeDetect", ["nc"] if bins is None else ["nc", bins]]
    return result


def swap_strided_rows(architecture: Architecture, name: str) -> Architecture:
    """Return a copy in which every Conv row of kernel 3 and stride 2 downsamples by `name`.

    Raises:
        UserError: there is no such row.
    """
    result, swapped = copy.deepcopy(architecture), 0
    for section in ("backbone", "head"):
        for row in result[section]:
            if row[2] == "Conv" and row[3][1:3] == [3, 2]:
                swapped += 1
                row[2:] = ["Downsample", [row[3][0], name]]
    if not swapped:
        raise UserError(
            f"--downsample {name} replaces stride-2 3x3 Conv rows, and this model has none; try yolov5n"
        )
    return result
