"""A study: what all of its processes agree on, and how a training run tells it of its epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.training.config import TrainConfig
from utils.errors import UserError, suggest

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

    from engine.training.hyperparameters import OptimizerSettings
    from engine.training.tune.space import Range

HEARTBEAT, GRACE = 5, 30  # seconds: between signs of life, and after which a trial counts as dead
FIRST = 5  # trials that are never pruned, since there is nothing to compare them with
STUDY, LOCK = "study.db", "study.lock"
QUEUED = "queued"  # a trial's attribute: the hyperparameters that it was given


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
        from filelock import FileLock

        with FileLock(self.folder / LOCK):  # two that create the tables would fail, and queue the first twice
            return self._open()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell of a study whose file is damaged, or was deleted while trials run, in one line.

        Raises:
            UserError: that is so.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import DatabaseError

        file = self.folder / STUDY
        try:
            yield
        except (StorageInternalError, DatabaseError, AssertionError) as error:
            if not file.exists():  # Optuna asserts that a trial of which it could tell nobody has ended
                raise UserError(f"{file} is gone; was the study moved or deleted?") from error
            if isinstance(error, AssertionError):
                raise
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"{file} cannot be used: {reason}") from error

    def _open(self) -> optuna.Study:
        import optuna
        from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings hold the traceback of a Ctrl-C
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            f"sqlite:///{self.folder / STUDY}",
            engine_kwargs={"connect_args": {"timeout": 60}},  # for others to finish writing
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
        _lock_before_reading(storage.engine)
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
            trials = study.get_trials(deepcopy=False)
            same = [trial for trial in trials if given in (trial.params, trial.user_attrs.get(QUEUED))]
            if all(trial.state.name == "FAIL" for trial in same):
                enqueue(study, given)
        return study


def enqueue(study: optuna.Study, values: Mapping[str, Any]) -> None:
    """Let the next trial take these hyperparameters."""
    study.enqueue_trial(dict(values), user_attrs={QUEUED: dict(values)})


def _lock_before_reading(engine: sqlalchemy.Engine) -> None:
    """Let each transaction of SQLite lock the file when it begins.

    Optuna reads that a trial waits and then takes it. It asks the database to lock the row in between, which
    SQLite ignores: two processes that read at the same moment would both take the trial.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
