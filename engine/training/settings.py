"""What a training run uses: everything known, from what was given, the data set's recipe and the task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.training.config import TrainConfig
from engine.training.hyperparameters import FLAGS, OptimizerSettings
from utils.distributed import World
from utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from engine.training.tasks import Task


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


def resolve(
    options: TrainConfig, task: Task, data: Path, device: torch.device, world: World
) -> TrainSettings:
    """Fill what was left out from the data set's recipe, then from the task's defaults.

    Raises:
        UserError: a bad hyperparameter file, or an option of another task.
    """
    values: dict[str, Any] = {
        key: getattr(options, key) if getattr(options, key) is not None else task.recipe.get(key, default)
        for key, default in task.fallback.items()
    }
    hyp_file = Path(values.pop("hyp"))
    options.refuse_other_tasks(task.kind, str(options.cfg or options.weights or task.default_model))
    hyp = with_flags(options, task.read_hyp(hyp_file))
    if values["batch_size"] > 0 and values["batch_size"] % world.size:
        raise UserError(
            f"--batch-size {values['batch_size']} cannot be shared equally by {world.size} processes"
        )
    return TrainSettings(options, data, hyp_file, hyp, device=device, world=world, **values)


def with_flags(options: TrainConfig, hyp: OptimizerSettings) -> OptimizerSettings:
    """Return the hyperparameters with those that were given as options."""
    given = {name: options.get(flag) for name, flag in FLAGS.items() if name in type(hyp).model_fields}
    return hyp.changed(**{name: value for name, value in given.items() if value is not None})
