"""Hyperparameters: the recipe of a training run, from a YAML file with YOLOv5's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt
from typing_extensions import Self

from data.augment.settings import AugmentationSettings, Share
from data.paths import in_project
from engine.training.choices import BoxLoss, OptimizerName
from engine.training.config import TrainConfig
from utils.errors import UserError, suggest
from utils.files import read_yaml, write_atomically
from utils.options import options_of
from utils.reading import reading
from utils.validation import Checked

HYPS = Path(__file__).resolve().parents[2] / "data" / "hyps"
YOLOV5_NAMES = ("hyp.scratch-", "hyp.")  # its files are called hyp.scratch-low.yaml, hyp.VOC.yaml
UNUSED_KEYS = {
    "iou_t",
    "anchors",
}  # YOLOv5's: the one has no effect there either, autoanchor replaces the other
FLAGS = {  # hyperparameters that have a flag too: name -> option
    "optimizer": "optimizer",
    "nominal_batch": "nbs",
    "label_smoothing": "label_smoothing",
    "box_loss": "box_loss",
    "close_mosaic": "close_mosaic",
}


def as_flag(name: str, default: Any) -> Any:
    """Declare a hyperparameter that has a flag too; range and description are the flag's."""
    option = next(option for option in options_of(TrainConfig) if option.name == FLAGS[name])
    description = option.help.removesuffix(" (default: the hyp file's)")
    return Field(default, ge=option.min, le=option.max, description=description)


class OptimizerSettings(Checked):
    """What every training has: optimizer, schedule and moving average, with YOLOv5's values."""

    optimizer: OptimizerName = as_flag("optimizer", "SGD")
    lr0: NonNegativeFloat = Field(0.01, description="initial learning rate")
    lrf: NonNegativeFloat = Field(0.01, description="final learning rate, as a share of lr0")
    momentum: float = Field(0.937, ge=0, le=0.9999, description="SGD's momentum, Adam's first beta")
    weight_decay: NonNegativeFloat = Field(5e-4, description="weight decay at the nominal batch")
    nominal_batch: int = as_flag("nominal_batch", 64)
    warmup_epochs: NonNegativeFloat = Field(3.0, description="length of the warm-up, epochs")
    warmup_iterations: NonNegativeInt = Field(100, description="shortest warm-up, iterations")
    warmup_momentum: float = Field(0.8, ge=0, le=0.9999, description="momentum at the start of the warm-up")
    warmup_bias_lr: NonNegativeFloat = Field(
        0.1, description="learning rate of biases at the start of the warm-up"
    )
    ema_decay: Share = Field(0.9999, description="share of the old weights that the moving average keeps")
    ema_tau: float = Field(2000.0, ge=1e-9, description="updates over which that share rises")

    def changed(self, **values: Any) -> Self:
        """Return a copy with some values changed, all of them checked.

        Raises:
            UserError: a value is out of range, or there is no such hyperparameter.
        """
        return type(self)(**(dict(self) | values))

    def plain(self) -> dict[str, Any]:
        """Return all values by name as str, numbers and lists, fit for YAML and for a checkpoint."""
        return self.model_dump(mode="json")

    def save(self, path: Path) -> None:
        """Write all values as YAML.

        Raises:
            UserError: the file cannot be written.
        """
        import yaml

        with write_atomically(path) as file:
            yaml.safe_dump(self.plain(), file, sort_keys=False)


class Hyperparameters(AugmentationSettings, OptimizerSettings):
    """YOLOv5's hyperparameters, with its low-augmentation values, and what small data sets need besides."""

    box: NonNegativeFloat = Field(0.05, description="gain of the box loss")
    cls: NonNegativeFloat = Field(0.5, description="gain of the class loss")
    cls_pw: NonNegativeFloat = Field(1.0, description="weight of positives in the class loss")
    obj: NonNegativeFloat = Field(1.0, description="gain of the objectness loss")
    obj_pw: NonNegativeFloat = Field(1.0, description="weight of positives in the objectness loss")
    box_loss: BoxLoss = as_flag("box_loss", "ciou")
    nwd_constant: float = Field(
        12.8, ge=1e-3, description="scale of NWD, about the side of small objects, input pixels"
    )
    fl_gamma: float = Field(0.0, ge=0, le=10, description="strength of the focal loss (0: off)")
    label_smoothing: float = as_flag("label_smoothing", 0.0)
    anchor_t: float = Field(4.0, ge=1, description="largest ratio of sides between an object and its anchors")
    anchor_recall: NonNegativeFloat = Field(
        0.98, description="fit new anchors below this best possible recall (2: always)"
    )
    tal_box: NonNegativeFloat = Field(7.5, description="anchor-free heads: gain of the box loss")
    tal_cls: NonNegativeFloat = Field(0.5, description="anchor-free heads: gain of the class loss")
    tal_dfl: NonNegativeFloat = Field(
        1.5, description="anchor-free heads: gain of the distribution focal loss"
    )
    tal_topk: int = Field(10, ge=1, description="anchor-free heads: cells assigned to an object")
    tal_alpha: NonNegativeFloat = Field(
        0.5, description="anchor-free heads: weight of scores in the assignment"
    )
    tal_beta: NonNegativeFloat = Field(6.0, description="anchor-free heads: weight of IoU in the assignment")
    close_mosaic: int = as_flag("close_mosaic", 0)


Settings = TypeVar("Settings", bound=OptimizerSettings)


def read_hyp(path: Path, kind: type[Settings] = Hyperparameters) -> Settings:  # type: ignore[assignment]
    """Read a hyperparameter file; `kind` is the model it fills.

    Raises:
        UserError: a missing file, an unknown key or a value out of range; it names file, key and choices.
    """
    path = find_hyp(in_project(path))
    with reading(path, "a hyperparameter YAML"):
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise UserError(f"{path} must hold 'key: value' lines")
        used = {key: _number(value) for key, value in values.items() if key not in UNUSED_KEYS}
        return kind.of(used, path)


def find_hyp(path: Path) -> Path:
    """Return the file that is meant: `path` itself, or one that ships.

    Those that ship are found as "low", as "low.yaml", and by YOLOv5's name "hyp.scratch-low.yaml".

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    for prefix in YOLOV5_NAMES:
        name = name.removeprefix(prefix)
    shipped = HYPS / f"{name}.yaml"
    if shipped.is_file() and (not path.parent.is_dir() or path.parent.name in ("", "hyps")):
        return shipped
    shipped_names = [file.stem for file in HYPS.glob("*.yaml")]
    raise UserError(f"no hyperparameter file {path}. {suggest(name, shipped_names)}, or the path of a YAML")


def _number(value: Any) -> Any:
    """YAML reads 5e-4 as text, since its numbers need a dot; read it as the number that was meant."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
