"""Hyperparameters of classifiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator
from typing_extensions import Self

from data.augment.settings import Share
from engine.training.hyperparameters import OptimizerSettings, as_flag
from utils.errors import UserError

AtLeastOne = Annotated[float, Field(ge=1)]


class ClassifierHyperparameters(OptimizerSettings):
    """The recipe of a classifier; what the optimizer takes is named as for detectors."""

    cosine: bool = Field(False, description="let the learning rate fall along a cosine instead of a line")
    milestones: tuple[AtLeastOne, ...] = Field(
        (), strict=False, description="change the learning rate at these epochs (or steps) instead"
    )
    factors: tuple[NonNegativeFloat, ...] = Field(
        (), strict=False, description="what lr0 is multiplied by before, between and after them"
    )
    milestone_unit: Literal["epochs", "steps"] = Field("epochs", description="what milestones count")
    label_smoothing: float = as_flag("label_smoothing", 0.0)
    mixup: NonNegativeFloat = Field(0.0, description="alpha of mixup (0: none)")
    crop: NonNegativeInt = Field(0, description="random shift either way, px")
    fliplr: Share = Field(0.0, description="probability of a left-right flip")
    stride_penalty: NonNegativeFloat = Field(
        0.0, description="weight of DiffStride's penalty on small strides"
    )

    @model_validator(mode="after")
    def _milestones_rise_and_have_factors(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"'milestones' must rise, got {list(self.milestones)}")
        if len(self.factors) != len(self.milestones) + bool(self.milestones):
            raise UserError(
                f"'factors' must be one more than 'milestones', before, between and after them; got "
                f"{len(self.factors)} and {len(self.milestones)}"
            )
        return self
