"""Resuming: which run to continue, and with which options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.training.config import TrainConfig
from models.checkpoint import read_checkpoint
from utils.errors import UserError
from utils.options import flag_of, options_of

FREE = {"resume", "device", "workers", "quiet", "verbose", "debug"}  # may differ from the interrupted run's


@dataclass(frozen=True)
class Interrupted:
    """A run to continue.

    Attributes:
        config: its options, with those that may differ as given now.
        folder: of the run.
        checkpoint: content of its last.pt.
    """

    config: TrainConfig
    folder: Path
    checkpoint: dict[str, Any]


def interrupted_run(cfg: TrainConfig) -> Interrupted:
    """Return the run that `cfg.resume` names.

    Raises:
        UserError: no such run, a finished one, or options that differ from the run's.
    """
    last = _newest(cfg.run.project) if cfg.resume == "newest" else Path(cfg.resume or "")
    checkpoint = read_checkpoint(last)
    if "training" not in checkpoint:
        raise UserError(f"{last} is of a finished run: start from it with --weights {last}")
    known = {option.name for option in options_of(TrainConfig)}
    saved = TrainConfig.of(**{key: value for key, value in checkpoint["config"].items() if key in known})
    given, default, before = cfg.plain(), TrainConfig().plain(), saved.plain()
    for key, value in given.items():
        if key not in FREE and key != "cache" and value not in (default[key], before[key]):
            raise UserError(
                f"--resume continues with {flag_of(key)} {before[key]}, not {value}: leave it out"
            )
    free = {key: cfg.get(key) for key in FREE}
    if cfg.image.cache is not None:  # with another cache the pixels of shrunk images would change
        free["cache"] = cfg.image.cache
    return Interrupted(saved.replace(**free), last.parent.parent, checkpoint)


def _newest(project: Path) -> Path:
    runs = sorted(project.glob("*/weights/last.pt"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError(f"no run to resume in {project}; give the path of its last.pt")
    return runs[-1]
