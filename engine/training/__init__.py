"""Training: config, loop, state, tasks, losses, optimizer, run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """What `train` returns.

    Attributes:
        folder: of the run: configuration, results.csv, figures, weights.
        best: the checkpoint of the best epoch.
        last: the checkpoint of the last one.
        metrics: of the last evaluation.
        finished: False where the run was stopped or diverged; `train(resume=last)` continues it.
    """

    folder: Path
    best: Path
    last: Path
    metrics: dict[str, Any]
    finished: bool


def train(**options: Any) -> TrainingResult:
    """Train a detector or a classifier, as train.py does, in this process.

    Args:
        options: those of train.py, by the same names, such as
            `train(data="mine.yaml", cfg="yolov5s-spd", epochs=100)`.

    Raises:
        UserError: an unknown option, a bad value or data that cannot be used.
    """
    from engine.training.command import train as run_training
    from engine.training.config import TrainConfig
    from utils.distributed import World

    _, run = run_training(TrainConfig.of(**options), World())
    assert run is not None
    return TrainingResult(run.folder, run.best, run.last, dict(run.state.metrics), run.finished)
