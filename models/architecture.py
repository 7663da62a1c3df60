"""Reading a network's architecture: the YAML that a name or path means, checked, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.classification.architecture import check_classifier, swap_stages
from models.detection_architecture import check_detector, swap_strided_rows
from models.yaml_checks import Architecture
from utils.errors import UserError, suggest
from utils.files import read_yaml

CONFIGS = Path(__file__).parent / "configs"
YOLOV5_FOLDERS = (Path("."), Path("models"), Path("models/hub"))  # where YOLOv5 keeps its model YAML files


def read_architecture(
    cfg: str | Path | dict[str, Any], overrides: Mapping[str, Any] | None = None
) -> Architecture:
    """Return the architecture that `cfg` means, checked, with one scale chosen.

    Args:
        cfg: a name with its scale letter such as "yolov5s-spd", the path of a YAML, or its content.
        overrides: values that replace the YAML's, by key.

    Raises:
        UserError: no such model, or a mistake in the YAML; the message names the place.
    """
    if isinstance(cfg, dict):
        return _checked({**cfg, **(overrides or {})}, None, "model YAML")
    path, letter = find_config(cfg)
    return _checked({**_read_yaml(path), **(overrides or {})}, letter, str(cfg))


def model_names() -> list[str]:
    """Return every built-in model: yolov5n, yolov5n-spd, ..."""
    return sorted(name for path in CONFIGS.glob("*.yaml") for name, _ in _names_in(path))


def find_config(cfg: str | Path) -> tuple[Path, str | None]:
    """Return the YAML that a name or path means, and its scale letter (None: the file itself says)."""
    given = Path(cfg)
    if given.is_file():
        return given, None
    folder = given.parent if given.parent not in YOLOV5_FOLDERS and given.parent.is_dir() else CONFIGS
    stem = given.name.removesuffix(".yaml").removesuffix(".yml")
    for path in sorted(folder.glob("*.yaml")):
        cut = len(path.stem.partition("-")[0])  # the scale letter stands here
        if path.stem in (stem, stem[:cut] + stem[cut + 1 :]):
            for name, letter in _names_in(path):
                if name == stem:
                    return path, letter
    if given.suffix in (".yaml", ".yml") and given.parent not in YOLOV5_FOLDERS:
        raise FileNotFoundError(f"no model file {given}")
    raise UserError(f"unknown model '{cfg}'. {suggest(stem, model_names())}, or give the path of a YAML")


def _names_in(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the models a YAML defines: its stem with each scale letter before the first '-'."""
    try:
        scales = _read_yaml(path).get("scales") or {}
    except UserError:  # another file of the folder, which need not be a model
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
