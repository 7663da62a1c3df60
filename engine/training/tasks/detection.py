"""Training a detector: boxes to learn from, AP to be judged by."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from data.augment.settings import AugmentationSettings
from data.dataset_yaml import read_dataset_yaml
from data.detection.batch import Batch
from data.detection.dataset import AugmentOn, DetectionDataset, validation_set
from data.detection.image_weights import image_weights
from data.detection.loader import BatchLoader, build_loader
from data.detection.split import read_split
from engine.evaluation.evaluator import evaluate
from engine.training.autoanchor import suit_anchors
from engine.training.hyperparameters import Hyperparameters, read_hyp
from engine.training.losses.detection import DetectionLoss
from engine.training.tasks.task import Task
from models.build import build_model
from models.detection_model import DetectionModel, require_detector
from models.load import load_model, transfer_weights
from utils.errors import UserError

if TYPE_CHECKING:
    from engine.training.config import TrainConfig
    from engine.training.run_folder import TrainRun

DEFAULT_MODEL = "yolov5n-spd"
WARM_UP, MEASURED_SECONDS = 4, 3.0  # batches and time of --augment-on auto


class DetectionTask(Task):
    """Boxes around objects.

    Args:
        data: the data-set YAML.
    """

    kind = "detect"
    fallback: Mapping[str, Any] = {
        "hyp": "data/hyps/low.yaml",
        "imgsz": 640,
        "epochs": 100,
        "batch_size": 16,
    }
    columns = ("AP50", "AP", "AP75", "AP_S", "AP_M", "AP_L", "AR100")
    shown = ("AP50", "AP", "AP_S")

    def __init__(self, data: Path) -> None:
        self.description = read_dataset_yaml(data)
        self.names = self.description.names
        self.recipe = self.description.recipe
        tile = self.description.tile
        self.details = {"tile": dataclasses.asdict(tile) if tile else None}  # detection then knows

    def read_hyp(self, path: Path) -> Hyperparameters:
        """Return the recipe."""
        return read_hyp(path)

    def loaders(
        self, cfg: TrainConfig, hyp: Hyperparameters, device: torch.device
    ) -> tuple[BatchLoader, BatchLoader]:
        """Return the augmented batches to train on and the plain ones to validate on.

        Raises:
            UserError: the size is no multiple of 32, or the data cannot be used.
        """
        if cfg.imgsz % 32:
            raise UserError(
                f"--imgsz must be a multiple of 32, got {cfg.imgsz}; try {cfg.imgsz // 32 * 32 + 32}"
            )
        if cfg.single_cls:
            self.names = ("object",)
        workers = default_workers(device) if cfg.workers is None else cfg.workers
        on = cfg.augment_on
        if on == "auto":
            on = self._faster(cfg, hyp, device, workers)
        val = validation_set(read_split(self.description, "val", cfg.single_cls), cfg.imgsz, cache=cfg.cache)
        return (
            self._train_loader(cfg, hyp, device, workers, on),
            build_loader(val, cfg.batch_size * 2, False, workers, world=self.world),
        )

    def _train_loader(
        self, cfg: TrainConfig, hyp: Hyperparameters, device: torch.device, workers: int, on: AugmentOn
    ) -> BatchLoader:
        strengths = {name: getattr(hyp, name) for name in AugmentationSettings.model_fields}
        dataset = DetectionDataset(
            read_split(self.description, "train", cfg.single_cls),
            cfg.imgsz,
            AugmentationSettings(**strengths),
            rect=cfg.rect,
            cache=cfg.cache,
            seed=cfg.seed,
            mosaic_until=cfg.epochs - hyp.close_mosaic if hyp.close_mosaic else None,
            augment_on=on,
        )
        return build_loader(dataset, cfg.batch_size, True, workers, cfg.seed, self.world, device)

    def _faster(
        self, cfg: TrainConfig, hyp: Hyperparameters, device: torch.device, workers: int
    ) -> AugmentOn:
        """Where images are made sooner, by measurement; beside a network on the CPU always in workers."""
        if device.type != "cuda":
            return "cpu"
        forms: tuple[AugmentOn, ...] = ("cpu", "device")
        seconds = {on: seconds_a_batch(self._train_loader(cfg, hyp, device, workers, on)) for on in forms}
        chosen = min(forms, key=lambda on: seconds[on])
        shown = ", ".join(f"{on} {1000 * seconds[on]:.1f} ms" for on in forms)
        print(f"--augment-on {chosen}: a batch takes {shown}")
        return self.world.broadcast(chosen)

    def new_model(
        self,
        cfg: TrainConfig,
        hyp: Hyperparameters,
        pretrained: Mapping[str, Any] | None,
        dataset: DetectionDataset,
    ) -> DetectionModel:
        """Return a detector with weights and anchors that suit the data."""
        architecture = cfg.cfg or (pretrained["model"] if pretrained else DEFAULT_MODEL)
        names = list(self.names)
        model = require_detector(
            build_model(architecture, num_classes=len(names), downsample=cfg.downsample),
            cfg.cfg or cfg.weights,
        )
        model.names = names
        if pretrained:
            copied, total = transfer_weights(model, pretrained["weights"])
            print(f"{copied} of {total} tensors copied from {cfg.weights}")
        if cfg.autoanchor:
            sizes = box_sizes(dataset)
            print(suit_anchors(model, sizes, hyp.anchor_t, hyp.anchor_recall, cfg.seed))
        return model

    def loss(self, cfg: TrainConfig, hyp: Hyperparameters, model: nn.Module) -> DetectionLoss:
        """Return the loss with gains scaled to levels, classes and input size, as YOLOv5 trains."""
        head = require_detector(model, cfg.cfg).head
        per_level = 3 / head.nl
        return DetectionLoss(
            head.anchors,
            head.nc,
            box=hyp.box * per_level,
            cls=hyp.cls * per_level * head.nc / 80,
            obj=hyp.obj * per_level * (cfg.imgsz / 640) ** 2,
            cls_pw=hyp.cls_pw,
            obj_pw=hyp.obj_pw,
            anchor_t=hyp.anchor_t,
            mask_ignored=cfg.mask_ignored,
            label_smoothing=hyp.label_smoothing,
            box_loss=hyp.box_loss,
            nwd_constant=hyp.nwd_constant,
            fl_gamma=hyp.fl_gamma,
            strides=head.stride,
            world=self.world,
        )

    def evaluate(self, model: nn.Module, loader: BatchLoader) -> tuple[dict[str, Any], float]:
        """Return AP and its kin on the validation views, and 0.1·AP50 + 0.9·AP."""
        metrics = evaluate(model, loader, self.names, progress=False, gather=self.world.gather).metrics
        class_ap = [values["AP"] for values in metrics.per_class]
        return {**metrics.values, "class_AP": class_ap}, metrics.fitness

    def before_epoch(self, cfg: TrainConfig, loader: BatchLoader, metrics: Mapping[str, Any]) -> None:
        """With --image-weights, draw images of rare and hard classes more often."""
        if cfg.image_weights:
            records = loader.dataset.records
            loader.set_weights(image_weights(records, len(self.names), metrics.get("class_AP")))

    def plot_data(self, folder: Path, loader: BatchLoader) -> None:
        """Draw the training boxes' statistics and the first batch as the network will see it."""
        from engine.evaluation.report.plots import plot_batch, plot_labels

        dataset, names = loader.dataset, self.names
        classes, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4))]
        for record in dataset.records:
            low, high = record.boxes_xyxy[~record.crowd, :2], record.boxes_xyxy[~record.crowd, 2:]
            boxes.append(np.concatenate(((low + high) / 2, high - low), 1) / max(record.width, record.height))
            classes.append(record.classes[~record.crowd])
        shown = np.concatenate(classes), np.concatenate(boxes)
        plot_labels(*shown, names, dataset.imgsz, folder / "labels.png")
        loader.set_epoch(0)
        batch = next(iter(loader))
        plot_batch(batch.images, batch.targets, names, folder / "train_batch0.png", "first training batch")

    def report(self, cfg: TrainConfig, run: TrainRun, loader: BatchLoader) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""
        from data.media.image_files import read_image
        from engine.evaluation.outputs import plot, report, write_metrics
        from engine.evaluation.report.page import write_report

        model = load_model(run.best, run.state.device)
        loader = build_loader(loader.dataset, loader.batch_size, False, loader.workers)  # not a share of it
        evaluation = evaluate(model, loader, model.names, progress=False)
        print(report(evaluation))
        write_metrics(evaluation, run.folder / "metrics.json")
        if cfg.plots:
            page, title = run.folder / "report.html", f"{run.best} on {cfg.data}"
            write_report(page, title, evaluation, plot(evaluation, run.folder), cfg.plain(), read_image)
            print(f"\n{page} shows where objects are lost")

    def images(self, loader: BatchLoader, batch: Batch) -> list[str]:
        """Return the paths of a batch's images."""
        return [str(loader.dataset.records[index].path) for index in batch.indices]


def seconds_a_batch(loader: BatchLoader) -> float:
    """Seconds that a batch takes, by as many as a few seconds allow; the first ones do not count."""
    loader.set_epoch(0)
    start, counted = 0.0, 0
    for number, _ in enumerate(loader):
        torch.cuda.synchronize()
        now = time.perf_counter()
        if number == WARM_UP:
            start = now
        elif number > WARM_UP:
            counted = number - WARM_UP
            if now - start > MEASURED_SECONDS:
                break
    return (time.perf_counter() - start) / max(counted, 1) if start else 0.0


def default_workers(device: torch.device) -> int:
    """Feed a GPU from up to 8 processes; beside a network on the CPU one process is enough."""
    cores = os.cpu_count() or 1
    return min(cores, 8) if device.type == "cuda" else min(cores - 1, 1)


def box_sizes(dataset: DetectionDataset) -> np.ndarray:
    """(n, 2) width and height of the training boxes in pixels at the network's input."""
    sizes = [
        (record.boxes_xyxy[:, 2:] - record.boxes_xyxy[:, :2])[~record.crowd]
        * (dataset.imgsz / max(record.width, record.height))
        for record in dataset.records
    ]
    return np.concatenate(sizes)
