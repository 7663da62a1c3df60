"""What training needs of a task: data, network, loss, evaluation and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from utils.distributed import World
from utils.options import Task as Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.training.config import TrainConfig
    from engine.training.hyperparameters import OptimizerSettings
    from engine.training.results_csv import Columns
    from engine.training.run_folder import TrainRun
    from engine.training.settings import TrainSettings


OnBatch = Callable[[Any, "TrainBatch"], None]


class TrainBatch(Protocol):
    """A batch to train on."""

    images: Tensor  # (B, 3, H, W) uint8

    @property
    def ground_truth(self) -> Sequence[Tensor]:
        """What the loss takes after the network's output."""
        ...

    @property
    def indices(self) -> Sequence[int]:
        """Of the images in the data set."""
        ...


class Loader(Protocol):
    """Batches of a data set, in an order that follows from seed and epoch."""

    @property
    def dataset(self) -> Sized:
        """What the batches are of."""
        ...

    @property
    def position(self) -> int:
        """Batches of the epoch up to the one just yielded, with those that hold nothing to yield."""
        ...

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The batches of the epoch that are left."""
        ...

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and its first batch."""
        ...

    def close(self) -> None:
        """End the worker processes, if there are any; iterating again starts new ones."""
        ...


class Loss(Protocol):
    """A loss: (network output, *targets) -> the loss, and its terms detached, by `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the terms."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its terms."""
        ...


@dataclass(frozen=True)
class Loaders:
    """Augmented batches to train on, plain ones to validate on, the classes, and who shares the batches."""

    train: Loader
    val: Loader
    names: tuple[str, ...]
    world: World

    def close(self) -> None:
        """End the worker processes of both."""
        self.train.close()
        self.val.close()


class Task(ABC):
    """A task on one data set.

    Attributes:
        kind: "detect" or "classify", as checkpoints call it.
        usual_model: where neither the user nor a checkpoint nor the data set's recipe names one.
        recipe: options of the data set's own recipe.
        fallback: options where neither the user nor the recipe chooses.
        hyperparameters: the kind that it takes.
        columns: of results.csv.
        shown: title -> metric, printed after each epoch beside the losses.
        details: what a checkpoint holds besides, for those who use the network.
    """

    kind: ClassVar[Kind]
    usual_model: ClassVar[str]
    fallback: ClassVar[Mapping[str, Any]]
    hyperparameters: ClassVar[type[OptimizerSettings]]
    columns: ClassVar[Columns]
    shown: ClassVar[Mapping[str, str]]
    recipe: Mapping[str, Any]
    details: Mapping[str, Any]

    @property
    def default_model(self) -> str:
        """The architecture where neither the user nor a checkpoint names one."""
        return str(self.recipe.get("cfg", self.usual_model))

    def known_names(self, options: TrainConfig) -> tuple[str, ...] | None:
        """Return the classes as far as they are known before the data are read."""
        return None

    @abstractmethod
    def loaders(self, settings: TrainSettings, architecture: str | Path | dict[str, Any]) -> Loaders:
        """Return the augmented batches to train on and the plain ones to validate on."""

    @abstractmethod
    def new_model(
        self, settings: TrainSettings, pretrained: Mapping[str, Any] | None, loaders: Loaders
    ) -> nn.Module:
        """Return a network for this data, with the weights of the checkpoint `pretrained` that fit."""

    @abstractmethod
    def loss(self, settings: TrainSettings, model: nn.Module) -> Loss:
        """Return the loss."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, loaders: Loaders, on_batch: OnBatch | None = None
    ) -> tuple[dict[str, Any], float]:
        """Return the metrics on the validation batches, and the fitness; the best epoch has the highest.

        Args:
            model: in eval mode.
            loaders: of the run.
            on_batch: is called with the network's output for each batch, and the batch.
        """

    def before_epoch(  # noqa: B027 (may be left out)
        self, settings: TrainSettings, loaders: Loaders, metrics: Mapping[str, Any]
    ) -> None:
        """Choose what the epoch shows, by the metrics of the last evaluation."""

    def after_epoch(self, model: nn.Module, folder: Path, epoch: int) -> None:  # noqa: B027 (may be left out)
        """Note in the run's folder what the network learned besides its weights."""

    @abstractmethod
    def plot_data(self, folder: Path, loaders: Loaders) -> None:
        """Draw what is trained on."""

    @abstractmethod
    def report(self, settings: TrainSettings, run: TrainRun, loaders: Loaders) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""

    def image_names(self, loader: Loader, batch: TrainBatch) -> Sequence[str]:
        """Name the images of a batch."""
        return [f"number {index}" for index in batch.indices]

    def repeated(self, batch: TrainBatch, count: int) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the first image of a batch `count` times, with targets of that size, to see what fits."""
        return batch.images[:1].expand(count, -1, -1, -1), batch.ground_truth
