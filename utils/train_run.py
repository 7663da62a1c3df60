"""What a training run leaves behind: its folder with config, results.csv and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.cli import as_plain, save_config
from utils.results import append_row, drop_rows_from
from utils.training import TrainState

Metrics = Mapping[str, float | None]


class TrainRun:
    """The folder of a run.

    Args:
        folder: exists and can be written.
        config: the command's config dataclass.
        hyp: the recipe, a dataclass.
        state: what is trained; its model must have `yaml` and `names`.
        task: "detect" or "classify".
        columns: metrics of results.csv, beside losses and rate.
        details: what else the checkpoints hold.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        hyp: Any,
        state: TrainState,
        task: str,
        columns: Sequence[str],
        details: Mapping[str, Any],
    ) -> None:
        self.folder, self.state = folder, state
        self.task, self.columns, self.details = task, columns, dict(details)
        self.config, self.hyp = as_plain(config), dataclasses.asdict(hyp)
        self.weights = folder / "weights"
        self.last, self.best, self.csv = (
            self.weights / "last.pt",
            self.weights / "best.pt",
            folder / "results.csv",
        )
        self.weights.mkdir(exist_ok=True)
        save_config(config, folder / "config.yaml")
        save_config(hyp, folder / "hyp.yaml")
        drop_rows_from(self.csv, state.epoch)
        if state.epoch == 0:
            self._save_last({})

    @property
    def names(self) -> list[str]:
        """The classes."""
        average: Any = self.state.ema.model
        return list(average.names)

    def end_epoch(self, losses: Mapping[str, float], metrics: Metrics, fitness: float | None) -> None:
        """Add the epoch's row to results.csv; write last.pt, and best.pt where no epoch was better.

        Args:
            losses: means of the epoch.
            metrics: of the evaluation, empty when there was none.
            fitness: what the best epoch has most of; None when there was no evaluation.
        """
        state = self.state
        row = {"epoch": state.epoch - 1, **losses, "lr": state.optimizer.param_groups[1]["lr"]}
        append_row(self.csv, row | {"fitness": fitness} | {key: metrics.get(key) for key in self.columns})
        is_best = fitness is None or fitness > state.best_fitness
        if is_best:
            state.best_fitness = state.best_fitness if fitness is None else fitness
            state.best_epoch = state.epoch - 1
            save_checkpoint(self.best, self._content(metrics))
        self._save_last(metrics)

    def finish(self) -> None:
        """Leave only weights in last.pt; the run is over."""
        content = read_checkpoint(self.last)
        content.pop("training")
        save_checkpoint(self.last, content)

    def _save_last(self, metrics: Metrics) -> None:
        save_checkpoint(self.last, self._content(metrics) | {"training": self.state.state_dict()})

    def _content(self, metrics: Metrics) -> dict[str, Any]:
        average: Any = self.state.ema.model
        return {
            "task": self.task,
            **self.details,
            "model": average.yaml,
            "names": self.names,
            "weights": average.state_dict(),
            "config": self.config,
            "hyp": self.hyp,
            "epoch": self.state.epoch - 1,
            "metrics": dict(metrics),
        }
