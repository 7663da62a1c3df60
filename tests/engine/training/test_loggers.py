"""TensorBoard for real; Weights & Biases and MLflow through stand-ins, since they are not required."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import engine.training.loggers
from engine.training import command as train
from engine.training.loggers import check_loggers, make_loggers
from tests.training_cases import config
from utils.distributed import World
from utils.errors import UserError


def test_tensorboard_records_if_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (logger,) = make_loggers((), tmp_path, {"epochs": 2})
    logger.log(0, {"AP": 0.25})
    logger.log(1, {"AP": 0.5})
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("AP")
    assert [(event.step, event.value) for event in events] == [(0, 0.25), (1, 0.5)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_chosen_logger_gets_config_and_metrics_offline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def record(method: str) -> Any:
        return lambda *args, **options: calls.append((method, args, options)) or stand_in

    names = ("init", "log", "finish", "set_tracking_uri", "set_experiment", "start_run", "log_params",
             "log_metrics", "end_run")  # fmt: skip
    stand_in: Any = types.SimpleNamespace(**{method: record(method) for method in names})
    monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(engine.training.loggers, "_installed", lambda package: package == name)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (logger,) = make_loggers((name,), tmp_path / "train/exp", {"epochs": 2})
    logger.log(1, {"AP": 0.5})
    logger.close()
    if name == "wandb":
        import os

        assert os.environ["WANDB_MODE"] == "offline"
        assert calls[0][2]["config"] == {"epochs": 2} and calls[0][2]["name"] == "exp"
        assert calls[1:] == [("log", ({"AP": 0.5},), {"step": 1}), ("finish", (), {})]
    else:
        assert calls[0] == ("set_tracking_uri", ((tmp_path / "train/exp/mlruns").as_uri(),), {})
        assert ("log_params", ({"epochs": 2},), {}) in calls
        assert calls[-2:] == [("log_metrics", ({"AP": 0.5},), {"step": 1}), ("end_run", (), {})]


class Recorder:
    """A logger that may stop the run, as a pruned trial does."""

    def __init__(self, stop: BaseException | None) -> None:
        self.stop, self.calls = stop, []

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.calls.append(f"epoch {epoch}")
        if self.stop:
            raise self.stop

    def close(self) -> None:
        self.calls.append("close")


class PrunedError(Exception):
    """What Optuna raises."""


@pytest.mark.parametrize("stop", [None, PrunedError(), KeyboardInterrupt()])
def test_loggers_are_closed_once_however_the_run_ends(
    squares: Path, tmp_path: Path, stop: BaseException | None
) -> None:
    recorder = Recorder(stop)
    cfg = config(squares, tmp_path, epochs=1, batch_size=4)
    with pytest.raises(PrunedError) if isinstance(stop, PrunedError) else contextlib.nullcontext():
        code, _ = train.train(cfg, World(), (recorder,))
        assert code == (130 if stop else 0)
    assert recorder.calls == ["epoch 0", "close"]


def test_unknown_and_missing_loggers_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Did you mean 'wandb'"):
        check_loggers(("wand",))
    monkeypatch.setattr(engine.training.loggers, "_installed", lambda name: False)
    with pytest.raises(UserError, match="pip install mlflow"):
        check_loggers(("mlflow",))
