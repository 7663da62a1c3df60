"""Hyperparameters: the recipe of a training run, from a YAML file with YOLOv5's names."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

from utils.errors import UserError, suggest
from utils.files import read_yaml
from utils.options import Options, opt


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Options):
    """What every training has: optimizer, schedule and moving average, with YOLOv5's values."""

    optimizer: Literal["SGD", "Adam", "AdamW"] = opt("SGD", "optimizer")
    lr0: float = opt(0.01, "initial learning rate", min=0)
    lrf: float = opt(0.01, "final learning rate, as a share of lr0", min=0)
    momentum: float = opt(0.937, "SGD's momentum, Adam's first beta", min=0, max=0.9999)
    weight_decay: float = opt(5e-4, "weight decay at the nominal batch", min=0)
    nominal_batch: int = opt(64, "images an optimizer step; smaller batches are accumulated", min=1)
    warmup_epochs: float = opt(3.0, "length of the warm-up, epochs", min=0)
    warmup_iterations: int = opt(100, "shortest warm-up, iterations", min=0)
    warmup_momentum: float = opt(0.8, "momentum at the start of the warm-up", min=0, max=0.9999)
    warmup_bias_lr: float = opt(0.1, "learning rate of biases at the start of the warm-up", min=0)
    ema_decay: float = opt(0.9999, "share of the old weights that the moving average keeps", min=0, max=1)
    ema_tau: float = opt(2000.0, "updates over which that share rises", min=1e-9)

    def __post_init__(self) -> None:
        """Check every value."""
        try:
            super().__post_init__()
        except UserError as error:
            key = re.compile("^--[a-z0-9-]+")  # options are spelled as on a command line
            raise UserError(key.sub(lambda flag: flag[0][2:].replace("-", "_"), str(error))) from None


@dataclasses.dataclass(frozen=True)
class Hyperparameters(OptimizerSettings):
    """YOLOv5's hyperparameters, with its low-augmentation values, and what small data sets need besides."""

    box: float = opt(0.05, "gain of the box loss", min=0)
    cls: float = opt(0.5, "gain of the class loss", min=0)
    cls_pw: float = opt(1.0, "weight of positives in the class loss", min=0)
    obj: float = opt(1.0, "gain of the objectness loss", min=0)
    obj_pw: float = opt(1.0, "weight of positives in the objectness loss", min=0)
    box_loss: Literal["ciou", "nwd", "ciou+nwd"] = opt("ciou", "likeness of boxes that the box loss asks for")
    nwd_constant: float = opt(12.8, "scale of NWD, about the side of small objects, input pixels", min=1e-3)
    fl_gamma: float = opt(0.0, "strength of the focal loss (0: off)", min=0, max=10)
    label_smoothing: float = opt(0.0, "share of certainty taken from class targets", min=0, max=1)
    anchor_t: float = opt(4.0, "largest ratio of sides between an object and its anchors", min=1)
    anchor_recall: float = opt(0.98, "fit new anchors below this best possible recall (2: always)", min=0)
    hsv_h: float = opt(0.015, "hue, largest change as a share of the circle", min=0, max=1)
    hsv_s: float = opt(0.7, "saturation, largest relative change", min=0, max=1)
    hsv_v: float = opt(0.4, "brightness, largest relative change", min=0, max=1)
    degrees: float = opt(0.0, "rotation, degrees either way", min=0, max=180)
    translate: float = opt(0.1, "shift, as a share of the image either way", min=0, max=1)
    scale: float = opt(0.5, "zoom, relative change either way", min=0, max=0.99)
    shear: float = opt(0.0, "shear, degrees either way", min=0, max=89)
    perspective: float = opt(0.0, "perspective, a pixel's share either way", min=0, max=0.001)
    flipud: float = opt(0.0, "probability of an upside-down flip", min=0, max=1)
    fliplr: float = opt(0.5, "probability of a left-right flip", min=0, max=1)
    rot90: float = opt(0.0, "probability of a quarter turn (images without an up)", min=0, max=1)
    mosaic: float = opt(1.0, "probability of a mosaic of four images", min=0, max=1)
    mixup: float = opt(0.0, "probability of a blend of two images", min=0, max=1)
    close_mosaic: int = opt(0, "last epochs without mosaics, blends and pasted objects", min=0)
    copy_paste: float = opt(0.0, "probability of each small object to be pasted again", min=0, max=1)
    crop: float = opt(0.0, "probability of a full-size window of a larger image", min=0, max=1)
    tile_jitter: float = opt(0.0, "random shift of a tile, as a share of its side", min=0, max=1)


# YOLOv5 keys without effect here: `iou_t` has none there either, and `anchors` are autoanchor's to find.
UNUSED_KEYS = {"iou_t", "anchors"}


Settings = TypeVar("Settings", bound=OptimizerSettings)


def read_hyp(path: Path, kind: type[Settings] = Hyperparameters) -> Settings:  # type: ignore[assignment]
    """Read a hyperparameter file; `kind` is the dataclass it fills.

    Raises:
        UserError: a missing file, an unknown key or a value out of range; it names file, key and choices.
    """
    if not path.is_file():
        here = sorted(str(file) for file in path.parent.glob("*.yaml")) or sorted(
            map(str, HYPS.glob("*.yaml"))
        )
        raise UserError(f"no hyperparameter file {path}. Choose from: {', '.join(here)}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    known = [field.name for field in dataclasses.fields(kind)]
    chosen = {}
    for key, value in values.items():
        if key in known:
            chosen[key] = _number(value)
        elif key not in UNUSED_KEYS:
            raise UserError(f"{path}: unknown hyperparameter '{key}'. {suggest(str(key), known)}")
    try:
        return kind(**chosen)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


HYPS = Path(__file__).resolve().parents[2] / "data" / "hyps"


def _number(value: Any) -> Any:
    """YAML reads 5e-4 as text, since its numbers need a dot; read it as the number that was meant."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
