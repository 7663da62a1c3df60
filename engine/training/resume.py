"""Resuming: which run to continue, with which options, and whether its data are still what they were."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.training.config import TrainConfig
from models.checkpoint import read_checkpoint
from utils.errors import UserError, quoted
from utils.options import flag_of, options_of
from utils.reading import guarded

LOG = logging.getLogger(__name__)
FREE = {"resume", "device", "workers", "quiet", "verbose", "debug"}  # may differ from the interrupted run's
WHERE_GIVEN = {"cache", "data"}  # these as well, but left out they are the interrupted run's


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

    @contextlib.contextmanager
    def finding_data(self) -> Iterator[None]:
        """Let errors of a data set that is not where it was say how to give its place."""
        try:
            yield
        except UserError as error:
            hint = "if the data set has moved, --data beside --resume says where it is"
            raise UserError(f"the data set of the run to resume cannot be read; {hint} ({error})") from error

    def check_names(self, names: Sequence[str] | None, data: Path) -> None:
        """Check that the classes are those of the interrupted run.

        Args:
            names: of the data set; None where they are not known yet.
            data: the data set.

        Raises:
            UserError: another number of classes, or another name; the message says which.
        """
        trained = self.checkpoint["names"]
        if names is None or list(names) == trained:
            return
        hint = "start a new run with --weights, or give back the classes"
        if len(names) != len(trained):
            odd = [name for name in names if name not in trained] or [n for n in trained if n not in names]
            such = f" (only one of them has {', '.join(map(repr, odd[:5]))})" if odd else ""
            raise UserError(
                f"the run to resume has {len(trained)} classes, {data} has {len(names)}{such}; {hint}"
            )
        k = next(k for k, (name, before) in enumerate(zip(names, trained, strict=True)) if name != before)
        raise UserError(f"class {k} of the run to resume is {trained[k]!r}, in {data} {names[k]!r}; {hint}")


def interrupted_run(cfg: TrainConfig) -> Interrupted:
    """Return the run that `cfg.resume` names.

    Raises:
        UserError: no such run, a finished one, or options that differ from the run's.
    """
    if cfg.resume == "newest":
        last, checkpoint = _newest(cfg.run.project)
    else:
        last = Path(cfg.resume or "")
        checkpoint = read_checkpoint(last)
    if "training" not in checkpoint:
        raise UserError(f"{last} is of a finished run: start from it with --weights {last}")
    known = {option.name for option in options_of(TrainConfig)}
    with guarded(last, "a run to resume"):
        unknown = [key for key in checkpoint["config"] if key not in known]
        if unknown:
            LOG.warning(
                "%s: options of another version are left out: %s", last, ", ".join(map(quoted, unknown))
            )
        saved = TrainConfig.of(**{key: value for key, value in checkpoint["config"].items() if key in known})
    given, default, before = cfg.plain(), TrainConfig().plain(), saved.plain()
    for key, value in given.items():
        if key not in FREE | WHERE_GIVEN and value not in (default[key], before[key]):
            raise UserError(
                f"--resume continues with {flag_of(key)} {before[key]}, not {value}: leave it out"
            )
    if cfg.image.cache and not saved.image.cache:
        LOG.warning("--cache shrinks images before they are augmented: the run goes on with other pixels")
    free = {key: cfg.get(key) for key in FREE}
    free |= {key: cfg.get(key) for key in WHERE_GIVEN if cfg.get(key) is not None}
    return Interrupted(saved.replace(**free), last.parent.parent, checkpoint)


def _newest(project: Path) -> tuple[Path, dict[str, Any]]:
    """Return the last.pt of the newest run that is not finished, and its content."""
    runs = sorted(project.glob("*/weights/last.pt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for last in runs:
        try:
            checkpoint = read_checkpoint(last)
        except UserError as error:
            LOG.warning("not resumed: %s", error)
            continue
        if "training" in checkpoint:
            return last, checkpoint
    such = "interrupted run" if runs else "run"
    raise UserError(f"no {such} to resume in {project}; give the path of its last.pt")
