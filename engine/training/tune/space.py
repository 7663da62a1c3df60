"""The search space: what is searched and where; a YAML such as data/hyps/search/tune.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.paths import in_project
from engine.training.hyperparameters import OptimizerSettings
from utils.errors import UserError, quoted, suggest
from utils.files import read_yaml

if TYPE_CHECKING:
    from optuna import Trial

SPACES = Path("data/hyps/search")
EXPECTED = "{low: 0.1, high: 0.5}, with log: true perhaps, or {choices: [a, b]}"


@dataclass(frozen=True)
class Range:
    """The values of one hyperparameter.

    Attributes:
        low: smallest value.
        high: largest value.
        log: steps are factors.
        choices: the values themselves, instead of a range.
        whole: whole numbers only.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    whole: bool = False

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return the value that a trial tries."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high


def usual_space(architecture: str | Path | dict[str, Any]) -> Path:
    """Return the search space that ships for a kind of network: with anchors, anchor-free or a classifier."""
    from models.architecture import is_classifier, read_architecture

    content = read_architecture(architecture)
    if is_classifier(content):
        return SPACES / "tune-classifier.yaml"
    anchor_free = content["head"][-1][2] == "AnchorFreeDetect"
    return SPACES / ("tune-anchor-free.yaml" if anchor_free else "tune.yaml")


def read_space(path: Path, hyp: OptimizerSettings) -> dict[str, Range]:
    """Read a search space.

    Args:
        path: of the YAML.
        hyp: the hyperparameters that it may name; both ends of every range must be allowed there.

    Raises:
        UserError: a missing file, an unknown key, no range, or values that are not allowed.
    """
    path = in_project(path)
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must hold lines such as lr0: {EXPECTED}")
    known = type(hyp).model_fields
    space = {}
    for name, values in content.items():
        if name not in known:
            raise UserError(f"{path}: unknown hyperparameter '{name}'. {suggest(str(name), known)}")
        space[name] = one = _range(path, name, values, isinstance(getattr(hyp, name), int))
        for value in one.choices or (one.low, one.high):
            try:
                hyp.changed(**{name: int(value) if one.whole else value})
            except ValueError as error:
                raise UserError(f"{path}: {name}: {error}") from error
    return space


def _range(path: Path, name: str, values: Any, whole: bool) -> Range:
    where = f"{path}: {name}: {quoted(values)}"
    if not isinstance(values, Mapping) or not set(values) <= {"low", "high", "log", "choices"}:
        raise UserError(f"{where} is no range; write {EXPECTED}")
    if "choices" in values:
        choices = values["choices"]
        if len(values) > 1 or not isinstance(choices, list) or not choices:
            raise UserError(f"{where} is no list of choices; write {EXPECTED}")
        return Range(choices=tuple(choices))
    low: Any = values.get("low")
    high: Any = values.get("high")
    log = values.get("log", False)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
    if not numbers or not isinstance(log, bool):
        raise UserError(f"{where} is no range; write {EXPECTED}")
    if not low < high or (log and low <= 0):
        raise UserError(f"{where}: low must be below high" + (", and above 0 with log" if log else ""))
    return Range(float(low), float(high), log, whole=whole)
