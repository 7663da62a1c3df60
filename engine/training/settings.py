"""What a training run uses: everything known, from what was given, the data set's recipe and the task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.training.config import TrainConfig
from engine.training.hyperparameters import OptimizerSettings
from utils.distributed import World

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainSettings:
    """A run's settings.

    Attributes:
        options: as given on the command line or in Python.
        data: the data-set YAML.
        hyp_file: where the hyperparameters are from.
        hyp: the hyperparameters, with those that were given as options.
        epochs: to train.
        batch_size: images per batch, of all processes together; -1 until it is known how many fit.
        imgsz: side of the square input, pixels.
        device: of this process.
        world: the processes that train together.
    """

    options: TrainConfig
    data: Path
    hyp_file: Path
    hyp: OptimizerSettings
    epochs: int
    batch_size: int
    imgsz: int
    device: torch.device
    world: World

    @property
    def workers(self) -> int | None:
        """Processes that read images; None: by the machine."""
        return self.options.image.workers

    @property
    def architecture(self) -> str | Path:
        """What the user calls the network, for messages."""
        return self.options.cfg or self.options.weights or "the default model"

    def config(self) -> TrainConfig:
        """Return the options with everything filled in, as run folder and checkpoint keep them."""
        return self.options.replace(
            data=self.data,
            hyp=self.hyp_file,
            epochs=self.epochs,
            batch_size=self.batch_size,
            imgsz=self.imgsz,
        )

    def replace(self, **values: Any) -> TrainSettings:
        """Return a copy with some values changed."""
        return dataclasses.replace(self, **values)
