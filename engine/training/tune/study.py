"""A study: what all of its processes agree on, and how a training run tells it of its epochs."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.training.config import TrainConfig
from utils.errors import UserError, suggest

if TYPE_CHECKING:
    import optuna

    from engine.training.hyperparameters import OptimizerSettings
    from engine.training.tune.space import Range

HEARTBEAT, GRACE = 5, 30  # seconds: between signs of life, and after which a trial counts as dead
FIRST = 5  # trials that are never pruned, since there is nothing to compare them with
STUDY = "study.db"


class Reporter:
    """Tells the study what each epoch has reached; a `Logger` of the training run.

    Args:
        trial: of the study.
        metric: a column of results.csv.

    Attributes:
        best: the best value so far; None before the first.
    """

    def __init__(self, trial: optuna.Trial, metric: str):
        self.trial, self.metric = trial, metric
        self.best: float | None = None

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Report an epoch.

        Raises:
            TrialPruned: others were better at this epoch.
            UserError: the run has no such column.
        """
        import optuna

        if self.metric not in values:
            if "fitness" in values:  # an evaluation without it: there are no objects of that size
                raise UserError(
                    f"--tune-metric {self.metric} was not measured. {suggest(self.metric, values)}"
                )
            return
        value = float(values[self.metric])
        self.best = value if self.best is None else max(self.best, value)
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"{self.metric} {value:.4g} in epoch {epoch + 1}")

    def close(self) -> None:
        """Nothing is open."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What all processes of a study agree on.

    Attributes:
        cfg: the options of every trial.
        folder: of the study.
        trials: how many there are to be.
        metric: a column of results.csv, which is maximized.
        hyp: what is not searched.
        space: what is.
    """

    cfg: TrainConfig
    folder: Path
    trials: int
    metric: str
    hyp: OptimizerSettings
    space: Mapping[str, Range]

    def open(self) -> optuna.Study:
        """Open the study, or create it; its first trial is the hyperparameters as they are."""
        import optuna
        from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            f"sqlite:///{self.folder / STUDY}",
            engine_kwargs={"connect_args": {"timeout": 60}},  # for others to finish writing
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
        study = optuna.create_study(
            storage=storage,
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(FIRST, n_warmup_steps=1),
            sampler=optuna.samplers.TPESampler(n_startup_trials=FIRST, constant_liar=True),
        )
        given = {name: value for name, value in self.hyp.plain().items() if name in self.space}
        if all(self.space[name].holds(value) for name, value in given.items()):
            study.enqueue_trial(given, skip_if_exists=True)
        return study
