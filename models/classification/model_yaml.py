"""What the YAML of a classifier may say; see models/configs/resnet18.yaml."""

from __future__ import annotations

import copy
from typing import Any

from models.classification.model import BLOCKS, make_reduction
from utils.errors import UserError, suggest

Architecture = dict[str, Any]

KEYS = {
    "task": "classify",
    "nc": "the number of classes",
    "ch": "the number of input channels",
    "block": "basic or bottleneck",
    "depths": "blocks a stage",
    "widths": "channels of the stem, then of each stage",
    "stem": "kernel of the stem's convolution, or focus",
    "maxpool": "whether a max pooling ends the stem",
    "preactivation": "whether norm and activation come before each convolution",
    "downsample": "how the stem and then each stage shrink: none, strided, spd, ...",
    "strides": "by how much",
    "fixed_grid": "whether spectral and diffstride give exactly ceil(H / stride)",
    "surgery": "what models.surgery.replace replaced",
}
_DEFAULTS = {"ch": 3, "stem": 3, "maxpool": False, "preactivation": False, "fixed_grid": True}


def checked(content: Architecture, where: str) -> Architecture:
    """Return a copy of a classifier's YAML with its defaults written out.

    Raises:
        UserError: a mistake; the message names the place.
    """
    for key in content:
        if key not in KEYS:
            raise UserError(f"{where}: unknown key '{key}' of a classifier. {suggest(str(key), KEYS)}")
    result = {**_DEFAULTS, **copy.deepcopy(content)}
    for key in ("nc", "ch"):
        _whole(result.get(key), f"{where}: {key}, {KEYS[key]},")
    if result.get("block") not in BLOCKS:
        name = str(result.get("block"))
        raise UserError(f"{where}: unknown block '{name}'. {suggest(name, BLOCKS)}")
    if result["stem"] != "focus" and not (_is_whole(result["stem"]) and result["stem"] % 2):
        raise UserError(f"{where}: stem must be an odd kernel or focus, got {result['stem']!r}")
    for key in ("maxpool", "preactivation", "fixed_grid"):
        if type(result[key]) is not bool:
            raise UserError(f"{where}: {key} must be true or false, got {result[key]!r}")
    stages = len(_row(result, "depths", None, where))
    for value in [*result["depths"], *_row(result, "widths", stages + 1, where)]:
        _whole(value, f"{where}: depths and widths")
    names = _row(result, "downsample", stages + 1, where)
    result.setdefault("strides", [1 if name == "none" else 2 for name in names])
    _row(result, "strides", stages + 1, where)
    _check_downsampling(result, where)
    return result


def _check_downsampling(content: Architecture, where: str) -> None:
    for i, (name, stride) in enumerate(zip(content["downsample"], content["strides"], strict=True)):
        place = f"{where}: downsample of {f'stage {i}' if i else 'the stem'}"
        if isinstance(stride, bool) or not isinstance(stride, int | float) or not stride >= 1:
            raise UserError(f"{place}: a stride must be at least 1, got {stride!r}")
        if i == 0 and content["stem"] == "focus" and name != "none":
            raise UserError(f"{place}: a focus stem halves already, leave it at none, not '{name}'")
        try:
            make_reduction(str(name), stride)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error


def swap_downsampling(architecture: Architecture, name: str) -> Architecture:
    """Return a copy whose every shrinking stage is shrunk by `name` instead."""
    names = [old if old == "none" else name for old in architecture["downsample"]]
    return checked({**architecture, "downsample": names}, f"--downsample {name}")


def _row(content: Architecture, key: str, length: int | None, where: str) -> list[Any]:
    row = content.get(key)
    if not isinstance(row, list) or not row or (length is not None and len(row) != length):
        count = f"a list of {length} values" if length else "a list"
        raise UserError(f"{where}: {key}, {KEYS[key]}, must be {count}, got {row!r}")
    return row


def _whole(value: Any, where: str) -> None:
    if not _is_whole(value):
        raise UserError(f"{where} must be a whole number above 0, got {value!r}")


def _is_whole(value: Any) -> bool:
    return type(value) is int and value > 0
