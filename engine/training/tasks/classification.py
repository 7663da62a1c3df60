"""Training a classifier: one label an image, top-1 to be judged by."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from data.classification.dataset_yaml import read_classification_yaml
from data.classification.loader import ClassificationAugmentation, ClassificationLoader
from data.classification.reading import read_labeled_images
from engine.evaluation.classification.metrics import classify
from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.losses.classification import ClassificationLoss
from engine.training.results_csv import Columns, append_row, drop_rows_from
from engine.training.tasks.task import Loader, Loaders, OnBatch, Task, TrainBatch
from models.build import build_model
from models.classification.model import ClassificationModel
from models.downsample.diffstride import DiffStride2d, learned_strides, stride_complexity
from models.load import load_model, transfer_weights
from utils.errors import UserError
from utils.log import RESULT

if TYPE_CHECKING:
    from engine.training.run_folder import TrainRun
    from engine.training.settings import TrainSettings

LOG = logging.getLogger(__name__)
EVALUATED = 250  # images a batch where nobody says
MANY_CLASSES = 20  # more are not listed


class ClassificationTask(Task):
    """One class an image.

    Args:
        data: the data-set YAML, or a folder.
    """

    kind = "classify"
    usual_model = "resnet18-spd"
    fallback: ClassVar[Mapping[str, Any]] = {
        "hyp": "data/hyps/mnist5k.yaml",
        "imgsz": 64,
        "epochs": 100,
        "batch_size": 64,
    }
    hyperparameters = ClassifierHyperparameters
    columns = Columns(
        metrics={"val/loss": "val/loss", "metrics/accuracy_top1": "top1", "metrics/accuracy_top5": "top5"},
        rate="lr/{}",
        groups=(0, 1, 2),
        extra={"metrics/cross_entropy": "loss"},  # without label smoothing
        former={
            "train/loss": "train_loss",
            "train/complexity": "complexity",
            "metrics/accuracy_top1": "top1",
            "metrics/accuracy_top5": "top5",
            "metrics/cross_entropy": "loss",
            "lr/1": "lr",
        },
    )
    shown: ClassVar[Mapping[str, str]] = {"top1": "top1", "top5": "top5"}

    def __init__(self, data: Path) -> None:
        self.description = read_classification_yaml(data)
        self.recipe = self.description.recipe
        self.details = {"resize": self.description.resize}  # by which detect.py shows images as in training

    def loaders(self, settings: TrainSettings, architecture: str | Path | dict[str, Any]) -> Loaders:
        """Return the augmented batches to train on and the plain ones to validate on.

        Raises:
            UserError: the data cannot be used.
        """
        hyp = _of_classifier(settings)
        transform = self.description.transform(settings.imgsz)
        train, val = (read_labeled_images(self.description, split, transform) for split in ("train", "val"))
        if train.names != val.names:
            raise UserError(
                f"{self.description.file}: 'train' has {len(train.names)} classes, 'val' {len(val.names)}: "
                "give their 'names'"
            )
        augmentation = ClassificationAugmentation(hyp.crop, hyp.fliplr, hyp.mixup)
        seed = settings.options.seed
        return Loaders(
            ClassificationLoader(train, settings.batch_size, augmentation, seed, settings.world),
            ClassificationLoader(val, EVALUATED),
            train.names,
            settings.world,
        )

    def new_model(
        self, settings: TrainSettings, pretrained: Mapping[str, Any] | None, loaders: Loaders
    ) -> ClassificationModel:
        """Return a classifier of the data's classes.

        Raises:
            UserError: the recipe's penalty on strides is asked of a network that learns none.
        """
        options = settings.options
        architecture = options.cfg or (pretrained["model"] if pretrained else self.default_model)
        model = build_model(architecture, num_classes=len(loaders.names), downsample=options.downsample)
        assert isinstance(model, ClassificationModel)
        if _of_classifier(settings).stride_penalty and not learned_strides(model):
            raise UserError(
                f"stride_penalty in {settings.hyp_file} is for networks with DiffStride layers; "
                f"{options.cfg or self.default_model} has none, resnet18-diffstride has"
            )
        model.names = list(loaders.names)
        if pretrained:
            copied, total = transfer_weights(model, pretrained["weights"])
            LOG.info("%d of %d tensors copied from %s", copied, total, options.weights)
        return model

    def loss(self, settings: TrainSettings, model: nn.Module) -> ClassificationLoss:
        """Return the loss; the strides' penalty is part of it where the recipe gives it weight."""
        penalty, hyp = None, _of_classifier(settings)
        if hyp.stride_penalty:
            layers = [module for module in model.modules() if isinstance(module, DiffStride2d)]
            penalty = partial(stride_complexity, layers)
        return ClassificationLoss(hyp.label_smoothing, penalty, hyp.stride_penalty)

    def evaluate(
        self, model: nn.Module, loaders: Loaders, on_batch: OnBatch | None = None
    ) -> tuple[dict[str, Any], float]:
        """Return top-1, top-5 and the cross entropy on the validation images, and top-1."""
        device = next(model.parameters()).device
        values = classify(model, _classification(loaders.val), loaders.names, device, on_batch).values
        return dict(values), values["top1"] or 0.0

    def after_epoch(self, model: nn.Module, folder: Path, epoch: int) -> None:
        """Add the learned strides to strides.csv."""
        strides = learned_strides(model)
        if strides:
            drop_rows_from(folder / "strides.csv", epoch)
            ways = {
                f"{layer} {way}": value
                for layer, pair in strides.items()
                for way, value in zip(("rows", "columns"), pair, strict=True)
            }
            append_row(folder / "strides.csv", {"epoch": epoch, **ways})

    def image_names(self, loader: Loader, batch: TrainBatch) -> list[str]:
        """Return where a batch's images are from."""
        where = _classification(loader).dataset.where
        return [where[index] for index in batch.indices]

    def repeated(self, batch: TrainBatch, count: int) -> tuple[Tensor, tuple[Tensor]]:
        """Return the first image of a batch `count` times, and its target as often."""
        (targets,) = batch.ground_truth
        return batch.images[:1].expand(count, -1, -1, -1), (targets[:1].expand(count, -1),)

    def plot_data(self, folder: Path, loaders: Loaders) -> None:
        """Draw the first training batch as the network will see it."""
        from engine.evaluation.classification.report import GALLERY, plot_images

        loader = _classification(loaders.train)
        loader.set_epoch(0)
        batch = next(iter(loader))
        pixels = batch.images[:GALLERY].permute(0, 2, 3, 1).numpy()
        captions = [loaders.names[label] for label in batch.labels[:GALLERY]]
        plot_images(pixels, captions, folder / "train_batch0.png", "first training batch")

    def report(self, settings: TrainSettings, run: TrainRun, loaders: Loaders) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""
        from engine.evaluation.classification.report import plot_strides, report, write_evaluation

        loader, plots = _classification(loaders.val), settings.options.saving.plots
        model, images = load_model(run.best, settings.device), loader.dataset
        result = classify(model, loader, images.names, settings.device)
        LOG.log(RESULT, report(result, len(images.names) <= MANY_CLASSES))
        write_evaluation(result, images.pixels, images.where, run.folder, plots)
        strides = run.folder / "strides.csv"
        if plots and strides.exists():
            with strides.open(newline="", encoding="utf-8") as file:
                plot_strides(list(csv.DictReader(file)), run.folder / "strides.png")


def _classification(loader: Loader) -> ClassificationLoader:
    assert isinstance(loader, ClassificationLoader)
    return loader


def _of_classifier(settings: TrainSettings) -> ClassifierHyperparameters:
    assert isinstance(settings.hyp, ClassifierHyperparameters)
    return settings.hyp
