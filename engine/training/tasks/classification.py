"""Training a classifier: one label an image, top-1 to be judged by."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data.classification.dataset_yaml import read_classification_yaml
from data.classification.images import ImageSet
from data.classification.loader import ClassificationAugmentation, ClassificationBatch, ClassificationLoader
from data.classification.reading import read_labeled_images
from engine.evaluation.classification.metrics import classify
from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.hyperparameters import read_hyp
from engine.training.losses.classification import ClassificationLoss
from engine.training.results_csv import append_row, drop_rows_from
from engine.training.tasks.task import Task
from models.build import build_model
from models.classification.model import ClassificationModel
from models.downsample.diffstride import DiffStride2d, learned_strides, stride_complexity
from models.load import load_model, transfer_weights
from utils.errors import UserError

if TYPE_CHECKING:
    from engine.training.config import TrainConfig
    from engine.training.run_folder import TrainRun

DEFAULT_MODEL = "resnet18-spd"
EVALUATED = 250  # images a batch where nobody says
MANY_CLASSES = 20  # more are not listed


class ClassificationTask(Task):
    """One class an image.

    Args:
        data: the data-set YAML, or a folder.
    """

    kind = "classify"
    fallback: Mapping[str, Any] = {
        "hyp": "data/hyps/mnist5k.yaml",
        "imgsz": 64,
        "epochs": 100,
        "batch_size": 64,
    }
    columns = ("top1", "top5", "loss")
    shown = ("top1", "top5", "loss")

    def __init__(self, data: Path) -> None:
        self.description = read_classification_yaml(data)
        self.recipe = self.description.recipe
        self.details = {"resize": self.description.resize}  # detect.py then shows images alike

    def read_hyp(self, path: Path) -> ClassifierHyperparameters:
        """Return the recipe."""
        return read_hyp(path, ClassifierHyperparameters)

    def loaders(
        self, cfg: TrainConfig, hyp: ClassifierHyperparameters, device: torch.device
    ) -> tuple[ClassificationLoader, ClassificationLoader]:
        """Return the augmented batches to train on and the plain ones to validate on.

        Raises:
            UserError: an option is for detectors, or the data cannot be used.
        """
        cfg.refuse_other_tasks("classify", str(cfg.cfg or cfg.weights or DEFAULT_MODEL))
        view = self.description.transform(cfg.imgsz)
        train, val = (read_labeled_images(self.description, split, view) for split in ("train", "val"))
        if train.names != val.names:
            raise UserError(
                f"{self.description.file}: 'train' has {len(train.names)} classes, 'val' {len(val.names)}: "
                "give their 'names'"
            )
        augmentation = ClassificationAugmentation(hyp.crop, hyp.fliplr, hyp.mixup)
        return (
            ClassificationLoader(train, cfg.batch_size, augmentation, cfg.seed, self.world),
            ClassificationLoader(val, EVALUATED),
        )

    def new_model(
        self,
        cfg: TrainConfig,
        hyp: ClassifierHyperparameters,
        pretrained: Mapping[str, Any] | None,
        dataset: ImageSet,
    ) -> ClassificationModel:
        """Return a classifier of the data's classes.

        Raises:
            UserError: the recipe's penalty on strides is asked of a network that learns none.
        """
        architecture = cfg.cfg or (pretrained["model"] if pretrained else DEFAULT_MODEL)
        model = build_model(architecture, num_classes=len(dataset.names), downsample=cfg.downsample)
        assert isinstance(model, ClassificationModel)
        if hyp.stride_penalty and not learned_strides(model):
            raise UserError(
                f"stride_penalty in {cfg.hyp} is for networks with DiffStride layers; "
                f"{cfg.cfg or DEFAULT_MODEL} has none, resnet18-diffstride has"
            )
        model.names = list(dataset.names)
        if pretrained:
            copied, total = transfer_weights(model, pretrained["weights"])
            print(f"{copied} of {total} tensors copied from {cfg.weights}")
        return model

    def loss(self, cfg: TrainConfig, hyp: ClassifierHyperparameters, model: nn.Module) -> ClassificationLoss:
        """Return the loss; the strides' penalty is part of it where the recipe gives it weight."""
        penalty = None
        if hyp.stride_penalty:
            layers = [module for module in model.modules() if isinstance(module, DiffStride2d)]
            penalty = partial(stride_complexity, layers)
        return ClassificationLoss(hyp.label_smoothing, penalty, hyp.stride_penalty)

    def evaluate(self, model: nn.Module, loader: ClassificationLoader) -> tuple[dict[str, Any], float]:
        """Return top-1, top-5 and the loss on the validation images, and top-1."""
        device = next(model.parameters()).device
        values = classify(model, loader, loader.dataset.names, device).values
        return values, values["top1"] or 0.0

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

    def images(self, loader: ClassificationLoader, batch: ClassificationBatch) -> list[str]:
        """Return where a batch's images are from."""
        return [loader.dataset.where[index] for index in batch.indices]

    def repeated(self, batch: ClassificationBatch, count: int) -> tuple[Tensor, tuple[Tensor]]:
        """Return the first image of a batch `count` times, and its target as often."""
        return batch.images[:1].expand(count, -1, -1, -1), (batch.targets[:1].expand(count, -1),)

    def plot_data(self, folder: Path, loader: ClassificationLoader) -> None:
        """Draw the first training batch as the network will see it."""
        from engine.evaluation.classification.report import GALLERY, plot_images

        loader.set_epoch(0)
        batch = next(iter(loader))
        pixels = batch.images[:GALLERY].permute(0, 2, 3, 1).numpy()
        captions = [loader.dataset.names[label] for label in batch.labels[:GALLERY]]
        plot_images(pixels, captions, folder / "train_batch0.png", "first training batch")

    def report(self, cfg: TrainConfig, run: TrainRun, loader: ClassificationLoader) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""
        from engine.evaluation.classification.report import plot_strides, report, write_evaluation

        model, images = load_model(run.best, run.state.device), loader.dataset
        classified = classify(model, loader, images.names, run.state.device)
        print(report(classified, len(images.names) <= MANY_CLASSES))
        write_evaluation(classified, images.pixels, images.where, run.folder, cfg.plots)
        strides = run.folder / "strides.csv"
        if cfg.plots and strides.exists():
            with strides.open(newline="", encoding="utf-8") as file:
                plot_strides(list(csv.DictReader(file)), run.folder / "strides.png")
