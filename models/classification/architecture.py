"""The architecture of a classifier: the keys of its YAML and their checks.

models/configs/resnet18.yaml is an example.
"""

from __future__ import annotations

import copy
from typing import Any

from models.classification.reductions import make_reduction
from models.classification.resnet import BLOCKS
from models.yaml_checks import Architecture, check_keys, check_whole, is_whole
from utils.errors import UserError, quoted, suggest
from utils.limits import CHANNELS, CLASSES, KERNEL, REPEATS

KEYS = {
    "task": "classify",
    "nc": "the number of classes",
    "ch": "the number of input channels",
    "block": "basic or bottleneck",
    "depths": "blocks in each stage",
    "widths": "channels of the stem, then of each stage",
    "stem": "kernel of the stem's convolution, or focus",
    "maxpool": "whether a max pooling ends the stem",
    "preactivation": "whether norm and activation come before each convolution",
    "downsample": "how the stem and then each stage shrink: none, strided, spd, ...",
    "strides": "by how much",
    "fixed_grid": "whether spectral and diffstride give exactly ceil(H / stride)",
    "surgery": "what models.surgery replaced",
}
_DEFAULTS = {"ch": 3, "stem": 3, "maxpool": False, "preactivation": False, "fixed_grid": True}


def check_classifier(content: Architecture, where: str) -> Architecture:
    """Return a copy of a classifier's YAML with its defaults written out.

    Raises:
        UserError: a mistake; the message names the place.
    """
    check_keys(content, KEYS, where, " of a classifier")
    result = {**_DEFAULTS, **copy.deepcopy(content)}
    for key in ("nc", "ch"):
        check_whole(result.get(key), f"{where}: {key}, {KEYS[key]},")
    if result.get("block") not in BLOCKS:
        name = str(result.get("block"))
        raise UserError(f"{where}: unknown block '{name}'. {suggest(name, BLOCKS)}")
    if result["stem"] != "focus" and not (is_whole(result["stem"]) and result["stem"] % 2):
        raise UserError(f"{where}: stem must be an odd kernel or focus, got {quoted(result['stem'])}")
    for key in ("maxpool", "preactivation", "fixed_grid"):
        if type(result[key]) is not bool:
            raise UserError(f"{where}: {key} must be true or false, got {quoted(result[key])}")
    stages = len(_list_at(result, "depths", None, where))
    for value in [*result["depths"], *_list_at(result, "widths", stages + 1, where)]:
        check_whole(value, f"{where}: depths and widths")
    CLASSES.check(result["nc"], f"{where}: nc")
    REPEATS.check(sum(result["depths"]), f"{where}: depths")
    CHANNELS.check(max([result["ch"], *result["widths"]]), f"{where}: widths")
    KERNEL.check(result["stem"] if is_whole(result["stem"]) else 1, f"{where}: stem")
    names = _list_at(result, "downsample", stages + 1, where)
    result.setdefault("strides", [1 if name == "none" else 2 for name in names])
    _list_at(result, "strides", stages + 1, where)
    _check_downsampling(result, where)
    return result


def _check_downsampling(content: Architecture, where: str) -> None:
    for i, (name, stride) in enumerate(zip(content["downsample"], content["strides"], strict=True)):
        place = f"{where}: downsample of {f'stage {i}' if i else 'the stem'}"
        if isinstance(stride, bool) or not isinstance(stride, int | float) or not stride >= 1:
            raise UserError(f"{place}: a stride must be at least 1, got {quoted(stride)}")
        if i == 0 and content["stem"] == "focus" and name != "none":
            raise UserError(f"{place}: a focus stem halves already, leave it at none, not '{name}'")
        try:
            make_reduction(str(name), stride)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error


def swap_stages(architecture: Architecture, name: str) -> Architecture:
    """Return a copy in which every stage that downsamples does so by `name`."""
    names = [old if old == "none" else name for old in architecture["downsample"]]
    return check_classifier({**architecture, "downsample": names}, f"--downsample {name}")


def _list_at(content: Architecture, key: str, length: int | None, where: str) -> list[Any]:
    """Return the list at `key`, of that many values if `length` says so."""
    values = content.get(key)
    if not isinstance(values, list) or not values or (length is not None and len(values) != length):
        count = f"a list of {length} values" if length else "a list"
        raise UserError(f"{where}: {key}, {KEYS[key]}, must be {count}, got {quoted(values)}")
    return values
