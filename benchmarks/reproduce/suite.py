"""A suite: which networks are trained on which data, with which options and seeds; and the runs of it.

about: one line
data:
  treecrowns: {checkpoint: last, options: {hyp: small-data, imgsz: 256, batch_size: 8}}
networks:
  strided: {cfg: yolov5n, seeds: 5}
  yolov8n: {peer: yolov8n}
budgets: [{epochs: 100}, {minutes: 8}]
seeds: 3
against: [strided]          # what the others are compared with
metrics: [AP, AP50, AP_S]   # of comparisons
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from utils.errors import UserError, suggest
from utils.files import read_yaml
from utils.validation import Checked, as_tuple, kind_of

SUITES = Path(__file__).resolve().parents[1] / "suites"
PEERS = ("yolov8n", "yolo11n", "yolo26n")


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Count = Annotated[int, Field(ge=1)]
Keys = dict[str, Any]
NO_KEYS: Keys = {}  # copied by pydantic for every model


class Budget(Checked):
    """How long a run trains: so many epochs, or as many as fit into so many minutes."""

    epochs: Annotated[int, Field(ge=0)] | None = None  # 0: nothing is trained
    minutes: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            raise ValueError("a budget is {epochs: 100} or {minutes: 8}")
        return self

    def __str__(self) -> str:
        """'100 epochs', '8 minutes'."""
        return f"{self.epochs} epochs" if self.minutes is None else f"{self.minutes:g} minutes"


class DataEntry(Checked):
    """What a suite says of a data set.

    Attributes:
        split: that is scored.
        checkpoint: the best epoch's by the validation split, or the last epoch's, so that nothing is chosen
            on the images that are scored.
        options: of train.py on these data.
        hyp: hyperparameters that differ from those of the option `hyp`.
    """

    split: Literal["val", "test"] = "val"
    checkpoint: Literal["best", "last"] = "last"
    options: Keys = NO_KEYS
    hyp: Keys = NO_KEYS


class NetworkEntry(Checked):
    """What a suite says of a network.

    Attributes:
        cfg: architecture.
        peer: one of Ultralytics' networks instead.
        recipe: of a peer: its own default one, or ours as far as it translates.
        weights: a file of the data root to start from, such as weights/yolov5n.pt.
        surgery: layers that become space-to-depth before training: patterns of names; ["*"] is all.
        operator: downsampling of a classifier's shrinking stages, see benchmarks.downsampling.
        stages: downsampling of each stage of a classifier, instead of `operator`.
        flops_of: operator whose FLOPs the classifier is widened to.
        runtime: format and precision to score the weights in without training, such as "onnx int8".
        options: of train.py.
        hyp: hyperparameters that differ from the data's.
        tile: of the data set, such as {size: 320, overlap: .2}, instead of its own.
        data: data sets that it runs on, instead of all.
        seeds: instead of the suite's.
        epochs: that fill the budget in minutes, where the suite has one only; by data set, if they differ.
        epochs_per_minute: that fill budgets in minutes; with neither, two epochs are timed on this machine.
    """

    cfg: str | None = None
    peer: Literal["yolov8n", "yolo11n", "yolo26n"] | None = None
    recipe: Literal["default", "ours"] = "default"
    weights: str | None = None
    surgery: Names = ()
    operator: str | None = None
    stages: Names = ()
    flops_of: str | None = None
    runtime: str | None = None
    options: Keys = NO_KEYS
    hyp: Keys = NO_KEYS
    tile: Keys = NO_KEYS
    data: Names = ()
    seeds: Count | None = None
    epochs: Count | dict[str, Count] | None = None
    epochs_per_minute: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _names_a_network(self) -> Self:
        if not (self.cfg or self.peer or self.weights):
            raise ValueError("a network needs cfg, peer or weights")
        if self.peer and (self.cfg or self.weights or self.surgery):
            raise ValueError("a peer takes no cfg, weights or surgery")
        return self


class Suite(Checked):
    """One suite, as its file says."""

    about: str
    data: dict[str, DataEntry]
    networks: dict[str, NetworkEntry]
    budgets: Annotated[tuple[Budget, ...], BeforeValidator(as_tuple)] = (Budget(epochs=100, minutes=None),)
    seeds: Count = 3
    options: Keys = NO_KEYS
    onnx: bool = True  # whether times in ONNX Runtime are taken
    against: Names = ()
    metrics: Names = ("AP", "AP50", "AP_S")

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name in self.against:
            if name not in self.networks:
                raise ValueError(f"'against' names no network '{name}'. {suggest(name, self.networks)}")
        for network, entry in self.networks.items():
            for name in (*entry.data, *(entry.epochs if isinstance(entry.epochs, dict) else ())):
                if name not in self.data:
                    raise ValueError(f"'{network}' names no data set '{name}'. {suggest(name, self.data)}")
        return self


@dataclass(frozen=True)
class Run:
    """One row to be.

    Attributes:
        suite: its name.
        data: name of the data set, and what the suite says of it.
        network: its name, and what the suite says of it.
        budget: how long it trains.
        seed: of weights, order and augmentation.
        options: of train.py: the suite's, the data's and the network's.
        onnx: whether its time in ONNX Runtime is taken.
    """

    suite: str
    data: str
    data_entry: DataEntry
    network: str
    entry: NetworkEntry
    budget: Budget
    seed: int
    options: Mapping[str, Any]
    onnx: bool = True

    @property
    def hyp(self) -> dict[str, Any]:
        """Hyperparameters that differ from the file's."""
        return {**self.data_entry.hyp, **self.entry.hyp}

    @property
    def epochs(self) -> int | None:
        """What the suite says of the epochs on these data that fill the budget in minutes."""
        said = self.entry.epochs
        return said.get(self.data) if isinstance(said, dict) else said

    @property
    def key(self) -> tuple[str, ...]:
        """Data, network, budget and seed: what a row is known by."""
        return self.data, self.network, str(self.budget), str(self.seed)

    @property
    def name(self) -> str:
        """'treecrowns/strided/100-epochs/seed0', also the path of the run folder."""
        return f"{Path(self.data).stem}/{self.network}/{str(self.budget).replace(' ', '-')}/seed{self.seed}"

    def definition(self) -> str:
        """Everything that the suite says of the run, as one line of JSON; rows of one key must share it."""
        entry = self.entry.model_dump(
            exclude_defaults=True, exclude={"seeds", "data", "options", "epochs"}, mode="json"
        )
        if self.epochs is not None:
            entry["epochs"] = self.epochs
        of_data = {"split": self.data_entry.split, "checkpoint": self.data_entry.checkpoint}
        return json.dumps(
            {**entry, **of_data, "hyp": self.hyp, "options": dict(self.options)}, sort_keys=True
        )


def find_suite(name: str) -> Path:
    """Return the file of a suite: a path, or the name of one in benchmarks/suites.

    Raises:
        UserError: there is none.
    """
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    shipped = {file.stem: file for file in SUITES.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    raise UserError(f"no suite '{name}'. {suggest(name, shipped)}, or the path of a YAML")


def read_suite(file: Path) -> Suite:
    """Read a suite.

    Raises:
        UserError: the file is missing, not YAML, or says something unknown; the message names it.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: a suite has keys such as 'data' and 'networks'")
    entries: dict[str, type[Checked]] = {"data": DataEntry, "networks": NetworkEntry}
    for key, kind in entries.items():
        part = content.get(key)
        if not isinstance(part, dict) or not part:
            raise UserError(f"{file}: '{key}' must name at least one, as NAME: {{...}}")
        content[key] = {str(name): _entry(kind, file, key, name, written) for name, written in part.items()}
    budgets = content.get("budgets")
    if budgets is not None:
        content["budgets"] = [_entry(Budget, file, "budgets", i, one) for i, one in enumerate(budgets)]
    return Suite.of(content, file)


def _entry(kind: type[Checked], file: Path, key: str, name: Any, written: Any) -> Checked:
    if written is not None and not isinstance(written, dict):
        raise UserError(f"{file}: '{name}' in '{key}' must be keys with values, found {kind_of(written)}")
    try:
        return kind(**(written or {}))
    except UserError as error:
        raise UserError(f"{file}: '{name}' in '{key}': {error}") from None


def runs_of(suite: Suite, name: str, seeds: int | None = None, only: Sequence[str] = ()) -> list[Run]:
    """Return the runs of a suite, seed by seed, so that a suite that is cut short has whole comparisons.

    Args:
        suite: its content.
        name: its name.
        seeds: of every network, instead of the suite's numbers.
        only: names of data sets and networks, or patterns of run names; those that match any are kept.

    Raises:
        UserError: a name in `only` matches nothing.
    """
    runs = list(_every_run(suite, name, seeds))
    for pattern in only:
        if not any(_matches(run, pattern) for run in runs):
            choices = [*suite.data, *suite.networks]
            raise UserError(f"--only {pattern} matches no run of {name}. {suggest(pattern, choices)}")
    return [run for run in runs if not only or any(_matches(run, pattern) for pattern in only)]


def _every_run(suite: Suite, name: str, seeds: int | None) -> Iterator[Run]:
    counts = {network: seeds or entry.seeds or suite.seeds for network, entry in suite.networks.items()}
    for seed in range(max(counts.values())):
        for budget in suite.budgets:
            for data, data_entry in suite.data.items():
                for network, entry in suite.networks.items():
                    if seed < counts[network] and data in (entry.data or suite.data):
                        options = {**suite.options, **data_entry.options, **entry.options}
                        yield Run(name, data, data_entry, network, entry, budget, seed, options, suite.onnx)


def _matches(run: Run, pattern: str) -> bool:
    return pattern in (run.data, run.network) or fnmatch(run.name, pattern)
