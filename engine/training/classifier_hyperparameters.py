"""Hyperparameters of classifiers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from engine.training.hyperparameters import OptimizerSettings
from utils.errors import UserError
from utils.options import opt


@dataclasses.dataclass(frozen=True)
class ClassifierHyperparameters(OptimizerSettings):
    """The recipe of a classifier; what the optimizer takes is named as for detectors."""

    cosine: bool = opt(False, "let the learning rate fall along a cosine instead of a line")
    milestones: tuple[float, ...] = opt((), "change the rate at these epochs (or steps) instead", min=1)
    factors: tuple[float, ...] = opt((), "what lr0 is multiplied by before, between and after them", min=0)
    milestone_unit: Literal["epochs", "steps"] = opt("epochs", "what milestones count")
    label_smoothing: float = opt(0.0, "share of certainty that goes to all classes alike", min=0, max=1)
    mixup: float = opt(0.0, "alpha of mixup (0: none)", min=0)
    crop: int = opt(0, "random shift either way, px", min=0)
    fliplr: float = opt(0.0, "probability of a left-right flip", min=0, max=1)
    stride_penalty: float = opt(0.0, "weight of DiffStride's penalty on small strides", min=0)

    def __post_init__(self) -> None:
        """Check every value."""
        for key in ("milestones", "factors"):
            if not isinstance(getattr(self, key), list | tuple):
                raise UserError(f"{key} must be a list of numbers, got {getattr(self, key)!r}")
        super().__post_init__()
        if list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"milestones must rise, got {list(self.milestones)}")
        if len(self.factors) != len(self.milestones) + bool(self.milestones):
            raise UserError(
                f"factors must be one more than milestones, before, between and after them; got "
                f"{len(self.factors)} and {len(self.milestones)}"
            )
