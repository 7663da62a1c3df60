"""Reading a network's architecture: the YAML that a name or path means, checked, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.classification.architecture import check_classifier, swap_stages
from models.detection_architecture import check_detector, swap_head, swap_strided_rows
from models.yaml_checks import Architecture
from utils.errors import UserError, suggest
from utils.files import read_yaml

CONFIGS = Path(__file__).parent / "configs"
ANCHOR_FREE = "-u"  # at the end of a detector's name: the same layers with an anchor-free head
YOLOV5_FOLDERS = (Path("."), Path("models"), Path("models/hub"))  # where YOLOv5 keeps its model YAML files


def read_architecture(
    cfg: str | Path | dict[str, Any], overrides: Mapping[str, Any] | None = None
) -> Architecture:
    """Return the architecture that `cfg` means, checked, with one scale chosen.

    Args:
        cfg: a name with its scale letter such as "yolov5s-spd", or "yolov5s-spd-u" for its anchor-free form;
            the path of a YAML, or its content.
        overrides: values that replace the YAML's, by key.

    Raises:
        UserError: no such model, or a mistake in the YAML; the message names the place.
    """
    if isinstance(cfg, dict):
        return _checked({**cfg, **(overrides or {})}, None, "model YAML")
    path, letter, anchor_free = find_config(cfg)
    content = {**_read_yaml(path), **(overrides or {})}
    architecture = _checked(content, letter, str(cfg))
    if anchor_free:
        return swap_head(architecture)
    architecture.pop("bins", None)  # only the anchor-free form has them
    return architecture


def model_names() -> list[str]:
    """Return every built-in model: yolov5n, yolov5n-spd, yolov5n-spd-u, ..."""
    return sorted(name for path in CONFIGS.glob("*.yaml") for name, _, _ in _names_in(path))


def find_config(cfg: str | Path) -> tuple[Path, str | None, bool]:
    """Return the YAML that a name or path means, its scale letter, and whether its head becomes anchor-free.

    The letter is None where the file itself says.
    """
    given = Path(cfg)
    if given.is_file():
        return given, None, False
    folder = given.parent if given.parent not in YOLOV5_FOLDERS and given.parent.is_dir() else CONFIGS
    stem = given.name.removesuffix(".yaml").removesuffix(".yml")
    plain = stem.removesuffix(ANCHOR_FREE)
    for path in sorted(folder.glob("*.yaml")):
        cut = len(path.stem.partition("-")[0])  # the scale letter stands here
        if path.stem in {name[:i] + name[i + 1 :] for name in (stem, plain) for i in (cut, len(name))}:
            for name, letter, anchor_free in _names_in(path):
                if name == stem:
                    return path, letter, anchor_free
    if given.suffix in (".yaml", ".yml") and given.parent not in YOLOV5_FOLDERS:
        raise UserError(f"no model file {given}")
    raise UserError(f"unknown model '{cfg}'. {suggest(stem, model_names())}, or give the path of a YAML")


def _names_in(path: Path) -> Iterator[tuple[str, str | None, bool]]:
    """Yield the models a YAML defines: name, scale letter, and whether its head becomes anchor-free.

    A name is the file's stem with a scale letter before the first '-'; every detector has an anchor-free
    form.
    """
    try:
        content = _read_yaml(path)
    except UserError:  # another file of the folder, which need not be a model
        return
    scales = content.get("scales") or {}
    family, dash, rest = path.stem.partition("-")
    letters = list(scales) if isinstance(scales, dict) else []
    names = [(f"{family}{letter}{dash}{rest}", letter) for letter in letters]
    for name, letter in names if scales else [(path.stem, None)]:
        yield name, letter, False
        if not is_classifier(content):
            yield name + ANCHOR_FREE, letter, True


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a model YAML: it must hold backbone, head and nc")
    return content


def _checked(content: dict[str, Any], letter: str | None, where: str) -> Architecture:
    if is_classifier(content):
        return check_classifier(content, where)
    return check_detector(content, letter, where)


def is_classifier(architecture: Architecture) -> bool:
    """Return whether an architecture classifies images, rather than detects."""
    return architecture.get("task") == "classify"


def swap_downsampling(architecture: Architecture, name: str) -> Architecture:
    """Return a copy that downsamples by `name`: a detector's Conv k3 s2 rows, or the stages of a ResNet.

    Raises:
        UserError: there is nothing to replace.
    """
    swap = swap_stages if is_classifier(architecture) else swap_strided_rows
    return swap(architecture, name)
