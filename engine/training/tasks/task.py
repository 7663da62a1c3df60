"""What training needs of a task: data, network, loss, evaluation and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.distributed import World

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from engine.training.config import TrainConfig
    from engine.training.run_folder import TrainRun


class Task(ABC):
    """A task on one data set.

    Attributes:
        kind: "detect" or "classify", as checkpoints call it.
        recipe: options of the data set's own recipe.
        fallback: options where neither the user nor the recipe chooses.
        columns: metrics of results.csv; `shown` are printed after each epoch.
        details: what a checkpoint holds besides, for those who use the network.
        world: the processes that train together.
    """

    kind: str
    recipe: Mapping[str, Any]
    fallback: Mapping[str, Any]
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    details: Mapping[str, Any]
    world: World = World()

    @abstractmethod
    def read_hyp(self, path: Path) -> Any:
        """Return the recipe's numbers, a frozen dataclass."""

    @abstractmethod
    def loaders(self, cfg: TrainConfig, hyp: Any, device: torch.device) -> tuple[Any, Any]:
        """Return the augmented batches to train on and the plain ones to validate on."""

    @abstractmethod
    def new_model(
        self, cfg: TrainConfig, hyp: Any, pretrained: Mapping[str, Any] | None, dataset: Any
    ) -> nn.Module:
        """Return a network for this data, with the weights of the checkpoint `pretrained` that fit."""

    @abstractmethod
    def loss(self, cfg: TrainConfig, hyp: Any, model: nn.Module) -> Any:
        """Return the loss: of the output and a batch's truth -> (loss, its parts), named by `names`."""

    @abstractmethod
    def evaluate(self, model: nn.Module, loader: Any) -> tuple[dict[str, Any], float]:
        """Return the metrics on the validation batches, and the fitness, which the best epoch has most of."""

    def before_epoch(self, cfg: TrainConfig, loader: Any, metrics: Mapping[str, Any]) -> None:  # noqa: B027
        """Choose what the epoch shows, by the metrics of the last evaluation."""

    def after_epoch(self, model: nn.Module, folder: Path, epoch: int) -> None:  # noqa: B027 (may be left out)
        """Note in the run's folder what the network learned besides its weights."""

    @abstractmethod
    def plot_data(self, folder: Path, loader: Any) -> None:
        """Draw what is trained on."""

    @abstractmethod
    def report(self, cfg: TrainConfig, run: TrainRun, loader: Any) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""

    def images(self, loader: Any, batch: Any) -> Sequence[str]:
        """Name the images of a batch."""
        return [f"number {index}" for index in batch.indices]

    def repeated(self, batch: Any, count: int) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the first image of a batch `count` times, and a truth of that size, to see what fits."""
        return batch.images[:1].expand(count, -1, -1, -1), batch.ground_truth
