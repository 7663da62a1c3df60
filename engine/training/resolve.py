"""From the options that were given to the settings that a run uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.training.config import TrainConfig
from engine.training.hyperparameters import FLAGS, OptimizerSettings, read_hyp
from engine.training.settings import TrainSettings
from engine.training.tasks import Task
from utils.distributed import World
from utils.errors import UserError


def resolve(
    options: TrainConfig,
    task: Task,
    data: Path,
    device: torch.device,
    world: World,
    checkpoint: Mapping[str, Any] | None = None,
) -> TrainSettings:
    """Fill what was left out from the data set's recipe, then from the task's defaults.

    Hyperparameters are those of the hyp file; of a run that is resumed, given its checkpoint, they are its
    own, whatever has become of the file.

    Raises:
        UserError: a bad hyperparameter file, or an option of another task.
    """
    values: dict[str, Any] = {
        key: getattr(options, key) if getattr(options, key) is not None else task.recipe.get(key, default)
        for key, default in task.fallback.items()
    }
    hyp_file = Path(values.pop("hyp"))
    options.refuse_other_tasks(task.kind, str(options.cfg or options.weights or task.default_model))
    if checkpoint is None:
        hyp = read_hyp(hyp_file, task.hyperparameters)
    else:
        hyp = task.hyperparameters.of(checkpoint["hyp"], Path(str(options.resume)))
    hyp = with_flags(options, hyp)
    if values["batch_size"] > 0 and values["batch_size"] % world.size:
        raise UserError(
            f"--batch-size {values['batch_size']} cannot be shared equally by {world.size} processes"
        )
    return TrainSettings(options, data, hyp_file, hyp, device=device, world=world, **values)


def with_flags(options: TrainConfig, hyp: OptimizerSettings) -> OptimizerSettings:
    """Return the hyperparameters with those that were given as options."""
    given = {name: options.get(flag) for name, flag in FLAGS.items() if name in type(hyp).model_fields}
    return hyp.changed(**{name: value for name, value in given.items() if value is not None})
