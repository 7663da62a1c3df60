"""Loggers of a run's metrics, besides results.csv: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from utils.errors import UserError, suggest
from utils.offline import keep_offline


class Logger(Protocol):
    """One service that records a run's metrics."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""

    def close(self) -> None:
        """Write what is pending."""


class TensorBoardLogger:
    """Event files in the run folder; read them with `tensorboard --logdir runs/train`."""

    package = "tensorboard"

    def __init__(self, folder: Path, _config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Write what is pending."""
        self.writer.close()


class WandbLogger:
    """Weights & Biases; offline in the run folder unless WANDB_MODE says otherwise."""

    package = "wandb"

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        keep_offline()
        import wandb

        self.run = wandb.init(
            project=folder.parent.name, name=folder.name, dir=str(folder), config=dict(config), resume="allow"
        )

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""
        self.run.log(dict(values), step=epoch)

    def close(self) -> None:
        """Write what is pending."""
        self.run.finish()


class MlflowLogger:
    """MLflow; in `mlruns` of the run folder unless MLFLOW_TRACKING_URI says otherwise."""

    package = "mlflow"

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        mlflow.set_experiment(folder.parent.name)
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params(dict(config))
        self.mlflow = mlflow

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""
        allowed = {name.replace(":", "-"): value for name, value in values.items()}
        self.mlflow.log_metrics(allowed, step=epoch)

    def close(self) -> None:
        """Write what is pending."""
        self.mlflow.end_run()


LOGGERS: dict[str, Any] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


def check_loggers(names: Sequence[str]) -> None:
    """Check that these loggers exist and that their packages are installed, without importing them.

    Raises:
        UserError: an unknown name, or a package that is missing.
    """
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"unknown logger '{name}'. {suggest(name, LOGGERS)}")
        if not _installed(name):
            raise UserError(f"--logger {name} needs a package: pip install {LOGGERS[name].package}")


def make_loggers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Logger]:
    """Return the loggers of these names, and TensorBoard's if it is installed.

    Args:
        names: see LOGGERS.
        folder: of the run.
        config: the run's options as plain data.
    """
    chosen = [name for name in LOGGERS if name in names or (name == "tensorboard" and _installed(name))]
    return [LOGGERS[name](folder, config) for name in chosen]


def _installed(name: str) -> bool:
    return importlib.util.find_spec(LOGGERS[name].package) is not None
