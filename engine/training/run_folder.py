"""What a training run leaves behind: its folder with config, results.csv and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from engine.training.loggers import make_loggers
from engine.training.results_csv import Columns, append_row, drop_rows_from, rename_columns
from engine.training.settings import TrainSettings
from engine.training.state import TrainState
from models.checkpoint import read_checkpoint, save_checkpoint
from utils.drafts import clear_drafts
from utils.options import Task

Metrics = Mapping[str, Any]


class RecordedTask(Protocol):
    """What a run's files tell of its task: kind, metrics in results.csv, details in checkpoints."""

    kind: ClassVar[Task]
    columns: ClassVar[Columns]
    details: Mapping[str, Any]


class TrainRun:
    """The folder of a run.

    Args:
        folder: exists and can be written.
        settings: of the run.
        state: what is trained; its model must have `yaml` and `names`.
        task: whose metrics are the columns of results.csv, and whose details go into checkpoints.
    """

    def __init__(self, folder: Path, settings: TrainSettings, state: TrainState, task: RecordedTask) -> None:
        config, saving = settings.config(), settings.options.saving
        self.folder, self.state, self.task = folder, state, task
        self.config, self.hyp = config.plain(), settings.hyp.plain()
        self.save_period, self.nosave = saving.save_period, saving.nosave
        self.finished = False
        self.weights = folder / "weights"
        self.last, self.best = self.weights / "last.pt", self.weights / "best.pt"
        self.csv = folder / "results.csv"
        self.weights.mkdir(exist_ok=True)
        for place in (folder, self.weights):
            clear_drafts(place)
        config.save(folder / "config.yaml")
        settings.hyp.save(folder / "hyp.yaml")
        rename_columns(self.csv, task.columns.former)  # a run may be older than YOLOv5's names
        drop_rows_from(self.csv, state.epoch)
        if state.epoch == state.batch == 0:
            self.save()
        self.loggers = make_loggers(saving.logger, folder, self.config)

    def end_epoch(self, losses: Mapping[str, float], metrics: Metrics, fitness: float | None) -> None:
        """Count the epoch, add its row to results.csv and write the weights that are due.

        Args:
            losses: means of the epoch.
            metrics: of the evaluation, empty when there was none.
            fitness: what the best epoch has most of; None when there was no evaluation.

        Raises:
            UserError: a file cannot be written; those of earlier epochs are intact.
        """
        state = self.state
        is_best = state.end_epoch(dict(metrics), fitness)
        rates = [group["lr"] for group in state.optimizer.param_groups]
        row = self.task.columns.row(state.epoch - 1, losses, metrics, rates, fitness)
        append_row(self.csv, row)
        for logger in self.loggers:
            logger.log(row["epoch"], {key: value for key, value in row.items() if value is not None})
        if self.nosave:
            return
        if is_best:
            save_checkpoint(self.best, self._content())
        if self.save_period and state.epoch % self.save_period == 0:
            save_checkpoint(self.weights / f"epoch{state.epoch - 1}.pt", self._content())
        self.save()

    def save(self) -> None:
        """Write last.pt, from which the run can go on."""
        save_checkpoint(self.last, self._content() | {"training": self.state.state_dict()})

    def end_training(self) -> None:
        """The last epoch is over: write the weights where --nosave has written none."""
        if self.nosave:
            self.state.best_epoch = self.state.epoch - 1
            save_checkpoint(self.best, self._content())
            self.save()

    def finish(self) -> None:
        """The report is written, nothing is left to resume: leave only weights in last.pt."""
        content = read_checkpoint(self.last)
        content.pop("training")
        save_checkpoint(self.last, content)
        self.finished = True

    def close(self) -> None:
        """Training has ended, in whatever way: the loggers write what is pending."""
        for logger in self.loggers:
            logger.close()

    def _content(self) -> dict[str, Any]:
        average: Any = self.state.ema.model
        return {
            "task": self.task.kind,
            **self.task.details,
            "model": average.yaml,
            "names": list(average.names),
            "weights": average.state_dict(),
            "config": self.config,
            "hyp": self.hyp,
            "epoch": self.state.epoch - 1,
            "metrics": self.state.metrics,
        }
