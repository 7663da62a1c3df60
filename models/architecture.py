"""Reading a model YAML: the file a name means, its keys, its scale; the result is one plain dict."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.classification import model_yaml as classifier_yaml
from models.registry import Scale
from utils.errors import UserError, suggest
from utils.files import read_yaml

CONFIGS = Path(__file__).parent / "configs"

KEYS = {
    "nc": "the number of classes",
    "ch": "the number of input channels",
    "task": "detect or classify",
    "anchors": "rows of width, height in pixels, or a number a level",
    "scales": "letter: [depth, width, max_channels]",
    "scale": "the letter chosen",
    "depth_multiple": "the factor of repeats",
    "width_multiple": "the factor of channels",
    "max_channels": "the most channels before width",
    "channel_multiple": "what channels are rounded up to",
    "activation": "such as nn.ReLU()",
    "batchnorm": "eps and momentum of every BatchNorm",
    "backbone": "rows [from, number, block, arguments]",
    "head": "rows [from, number, block, arguments]",
    "surgery": "what models.surgery.replace replaced",
    "inplace": "YOLOv5's; without effect",
    "yaml_file": "Ultralytics'; without effect",
}
_WITHOUT_EFFECT = ("inplace", "yaml_file")

Architecture = dict[str, Any]


def read_architecture(
    cfg: str | Path | dict[str, Any], overrides: Mapping[str, Any] | None = None
) -> Architecture:
    """Return the architecture `cfg` means, checked, with one scale chosen.

    Args:
        cfg: a name with its scale letter such as "yolov5s-spd", the path of a YAML, or what one holds.
        overrides: values of keys, instead of the YAML's.

    Raises:
        UserError: no such model, or a mistake in the YAML; the message names the place.
    """
    if isinstance(cfg, dict):
        return _normalized({**cfg, **(overrides or {})}, None, "model YAML")
    path, letter = find_config(cfg)
    return _normalized({**_read_yaml(path), **(overrides or {})}, letter, str(cfg))


def model_names() -> list[str]:
    """Return every built-in model: yolov5n, yolov5n-spd, ..."""
    return sorted(name for path in CONFIGS.glob("*.yaml") for name, _ in _names_in(path))


def find_config(cfg: str | Path) -> tuple[Path, str | None]:
    """Return the YAML a name or path means, and its scale letter (None: the file itself says)."""
    given = Path(cfg)
    if given.is_file():
        return given, None
    folder = CONFIGS if given.parent == Path(".") else given.parent
    wanted = given.name.removesuffix(".yaml").removesuffix(".yml")
    for path in sorted(folder.glob("*.yaml")):
        cut = len(path.stem.partition("-")[0])  # the scale letter stands here
        if path.stem in (wanted, wanted[:cut] + wanted[cut + 1 :]):
            for name, letter in _names_in(path):
                if name == wanted:
                    return path, letter
    if given.suffix in (".yaml", ".yml") and given.parent != Path("."):
        raise FileNotFoundError(f"no model file {given}")
    raise UserError(f"unknown model '{cfg}'. {suggest(wanted, model_names())}, or give the path of a YAML")


def _names_in(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the models a YAML defines: its stem with each scale letter before the first '-'."""
    try:
        scales = _read_yaml(path).get("scales") or {}
    except UserError:  # somebody else's file beside the one that is looked for
        return
    family, dash, rest = path.stem.partition("-")
    for letter in scales if isinstance(scales, dict) else ():
        yield f"{family}{letter}{dash}{rest}", letter
    if not scales:
        yield path.stem, None


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a model YAML: it must hold backbone, head and nc")
    return content


def _normalized(content: dict[str, Any], letter: str | None, where: str) -> Architecture:
    """Return a checked copy with its scale written as multiples."""
    if is_classifier(content):
        return classifier_yaml.checked(content, where)
    for key in content:
        if key not in KEYS:
            raise UserError(f"{where}: unknown key '{key}'. {suggest(str(key), KEYS)}")
    result = {key: copy.deepcopy(value) for key, value in content.items() if key not in _WITHOUT_EFFECT}
    letter = letter or result.get("scale")
    result.pop("scale", None)
    result.update(_chosen_scale(result.pop("scales", None), letter, where))
    if result.pop("task", "detect") != "detect":
        raise UserError(f"{where}: task must be detect or classify, got {content['task']!r}")
    result.setdefault("ch", 3)
    _check_counts(result, where)
    _check_batchnorm(result.get("batchnorm"), f"{where}: batchnorm")
    for key in ("depth_multiple", "width_multiple", "max_channels", "channel_multiple"):
        _check_positive(result.get(key, 1), f"{where}: {key}")
    result["anchors"] = check_anchors(result.get("anchors"), f"{where}: anchors")
    for section in ("backbone", "head"):
        for number, row in enumerate(_rows(result, section, where), 1):
            _check_row(row, f"{where}: {section} row {number}")
    return result


def _chosen_scale(scales: Any, letter: str | None, where: str) -> dict[str, float]:
    if not scales:
        return {}
    if not isinstance(scales, dict):
        raise UserError(f"{where}: scales must map letters to [depth, width, max_channels]")
    if letter not in scales:
        family, dash, rest = Path(where).stem.partition("-")
        names = ", ".join(f"{family}{each}{dash}{rest}" for each in scales)
        raise UserError(f"{where} has several scales; say which: {names}")
    values = scales[letter]
    if not isinstance(values, list) or len(values) not in (2, 3):
        raise UserError(f"{where}: scale {letter} must be [depth, width, max_channels], got {values!r}")
    return dict(zip(("depth_multiple", "width_multiple", "max_channels"), values, strict=False))


def _check_counts(content: Architecture, where: str) -> None:
    for key in ("nc", "ch"):
        value = content.get(key)
        if type(value) is not int or value < 1:
            raise UserError(f"{where}: {key}, {KEYS[key]}, must be a whole number above 0, got {value!r}")
    if content["ch"] != 3:
        raise UserError(f"{where}: ch is {content['ch']}, and detectors here take 3 channels, RGB")


def _check_batchnorm(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or set(value) != {"eps", "momentum"}:
        raise UserError(f"{where} must hold eps and momentum, got {value!r}")
    for key, number in value.items():
        _check_positive(number, f"{where}: {key}")


def _check_positive(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UserError(f"{where} must be a number above 0, got {value!r}")


def _rows(content: Architecture, section: str, where: str) -> list[Any]:
    rows = content.get(section)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{where}: '{section}' must be a list of rows [from, number, block, arguments]")
    return rows


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, list) or len(row) != 4:
        raise UserError(f"{where} must be [from, number, block, arguments], got {row!r}")
    source, number, name, arguments = row
    sources = source if isinstance(source, list) else [source]
    if not sources or any(type(index) is not int for index in sources):
        raise UserError(f"{where}: 'from' must be a layer's index or a list of them, got {source!r}")
    if type(number) is not int or number < 1:
        raise UserError(f"{where}: number must be a whole number above 0, got {number!r}")
    if not isinstance(name, str):
        raise UserError(f"{where}: the block must be a name, got {name!r}")
    if not isinstance(arguments, list):
        raise UserError(f"{where} ({name}): the arguments must be a list, got {arguments!r}")


def scale_of(architecture: Architecture) -> Scale:
    """Return the scale a normalized architecture carries."""
    return Scale(
        architecture.get("depth_multiple", 1.0),
        architecture.get("width_multiple", 1.0),
        architecture.get("max_channels", float("inf")),
        architecture.get("channel_multiple", 8),
    )


def check_anchors(anchors: Any, where: str = "anchors") -> int | list[list[float]]:
    """Return anchors as their number a level, or one flat row of widths and heights in pixels a level.

    Raises:
        UserError: neither of the two, or rows of unequal length.
    """
    if type(anchors) is int and anchors > 0:
        return anchors
    if not isinstance(anchors, (list, tuple)) or not anchors:
        raise UserError(f"{where} must be rows of width, height in pixels, or a number, got {anchors!r}")
    for number, row in enumerate(anchors, 1):
        if not isinstance(row, (list, tuple)) or not row or len(row) % 2 or len(row) != len(anchors[0]):
            raise UserError(
                f"{where} row {number}: must be width, height pairs, as many as in the others, got {row!r}"
            )
        for value in row:
            _check_positive(value, f"{where} row {number}")
    return [[float(value) if value % 1 else int(value) for value in row] for row in anchors]


def is_classifier(architecture: Architecture) -> bool:
    """Return whether an architecture classifies images, rather than detects."""
    return architecture.get("task") == "classify"


def swap_downsampling(architecture: Architecture, name: str) -> Architecture:
    """Return a copy where every Conv k3 s2 row of a detector, every stage of a ResNet, shrinks by `name`.

    Raises:
        UserError: there is no such row.
    """
    if is_classifier(architecture):
        return classifier_yaml.swap_downsampling(architecture, name)
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
