"""Training a detector: boxes to learn from, AP to be judged by."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from data.augment.settings import AugmentationSettings
from data.dataset_yaml import read_dataset_yaml
from data.detection.dataset import AugmentOn, DetectionDataset, validation_set
from data.detection.image_weights import image_weights
from data.detection.loader import BatchLoader, build_loader
from data.detection.split import read_split
from data.image_record import ImageRecord
from engine.evaluation.evaluator import evaluate
from engine.evaluation.predictions import predict_loader
from engine.training.autoanchor import suit_anchors
from engine.training.hyperparameters import Hyperparameters
from engine.training.losses.detection import DetectionLoss
from engine.training.losses.task_aligned import TaskAlignedLoss
from engine.training.results_csv import Columns
from engine.training.tasks.task import Loader, Loaders, OnBatch, Task, TrainBatch
from models.build import build_model, largest_stride
from models.detection_model import DetectionModel, require_detector
from models.layers.anchor_free import AnchorFreeDetect
from models.layers.head import Detect
from models.load import load_model, transfer_weights
from utils.errors import UserError
from utils.log import RESULT, counted

if TYPE_CHECKING:
    from engine.training.config import TrainConfig
    from engine.training.run_folder import TrainRun
    from engine.training.settings import TrainSettings

LOG = logging.getLogger(__name__)
WARM_UP, MEASURED_SECONDS = 4, 3.0  # batches and time of --augment-on auto


class DetectionTask(Task):
    """Boxes around objects.

    Args:
        data: the data-set YAML.
    """

    kind = "detect"
    usual_model = "yolov5n-spd"
    fallback: ClassVar[Mapping[str, Any]] = {
        "hyp": "data/hyps/low.yaml",
        "imgsz": 640,
        "epochs": 100,
        "batch_size": 16,
    }
    hyperparameters = Hyperparameters
    columns = Columns(
        metrics={
            "metrics/precision": "P",
            "metrics/recall": "R",
            "metrics/mAP_0.5": "AP50",
            "metrics/mAP_0.5:0.95": "AP",
            **{f"val/{name}": f"val/{name}" for name in DetectionLoss.names},
        },
        rate="x/lr{}",
        groups=(0, 1, 2),
        extra={name: name for name in ("AP75", "AP_S", "AP_M", "AP_L", "AR100")},
        former={
            **{f"train/{name}": name.removesuffix("_loss") for name in DetectionLoss.names},
            "metrics/mAP_0.5": "AP50",
            "metrics/mAP_0.5:0.95": "AP",
            "x/lr1": "lr",
        },
    )
    shown: ClassVar[Mapping[str, str]] = {name: name for name in ("P", "R", "AP50", "AP", "AP_S")}

    def __init__(self, data: Path) -> None:
        self.description = read_dataset_yaml(data)
        self.recipe = self.description.recipe
        self._splits: dict[tuple[str, bool], list[ImageRecord]] = {}
        tile = self.description.tile
        self.details = {  # by which detection shows images as in training
            "tile": dataclasses.asdict(tile) if tile else None,
            "interpolation": "area",
        }

    def known_names(self, options: TrainConfig) -> tuple[str, ...]:
        """Return the classes: those of the YAML, or one."""
        return ("object",) if options.image.single_cls else self.description.names

    def loaders(self, settings: TrainSettings, architecture: str | Path | dict[str, Any]) -> Loaders:
        """Return the augmented batches to train on and the plain ones to validate on.

        Raises:
            UserError: the size is no multiple of the network's largest stride, or the data cannot be used.
        """
        imgsz, options = settings.imgsz, settings.options.image
        stride = largest_stride(architecture)
        if imgsz % stride:
            nearest = imgsz // stride * stride + stride
            raise UserError(f"--imgsz must be a multiple of {stride}, got {imgsz}; try {nearest}")
        names = self.known_names(settings.options)
        workers = default_workers(settings.device) if options.workers is None else options.workers
        on = options.augment_on
        if on == "auto":
            on = self._faster(settings, workers, stride)
        records = self._records("val", options.single_cls)
        val = validation_set(records, imgsz, stride, cache=options.cache)
        return Loaders(
            self._train_loader(settings, workers, on, stride),
            build_loader(val, settings.batch_size * 2, False, workers, world=settings.world),
            names,
            settings.world,
        )

    def _records(self, split: str, single_cls: bool) -> list[ImageRecord]:
        """The images or tiles of a split, read once: what is wrong with them is said once.

        Raises:
            UserError: they cannot be used, or there is no object to train on.
        """
        key = (split, single_cls)
        if key not in self._splits:
            self._splits[key] = read_split(self.description, split, single_cls)
        records = self._splits[key]
        if split == "train" and not any(len(record.classes) for record in records):
            raise UserError(
                f"{self.description.file}: no object is labeled in 'train', whose first image is "
                f"{records[0].path}; python -m tools.doctor looks for the reason"
            )
        return records

    def _train_loader(self, settings: TrainSettings, workers: int, on: AugmentOn, stride: int) -> BatchLoader:
        hyp, options = _of_detector(settings), settings.options.image
        strengths = {name: getattr(hyp, name) for name in AugmentationSettings.model_fields}
        dataset = DetectionDataset(
            self._records("train", options.single_cls),
            settings.imgsz,
            AugmentationSettings(**strengths),
            stride=stride,
            rect=options.rect,
            cache=options.cache,
            seed=settings.options.seed,
            mosaic_until=settings.epochs - hyp.close_mosaic if hyp.close_mosaic else None,
            augment_on=on,
        )
        seed, world, device = settings.options.seed, settings.world, settings.device
        return build_loader(dataset, settings.batch_size, True, workers, seed, world, device)

    def _faster(self, settings: TrainSettings, workers: int, stride: int) -> AugmentOn:
        """Where images are made faster, by measurement; beside a network on the CPU always in workers."""
        if settings.device.type != "cuda":
            return "cpu"
        forms: tuple[AugmentOn, ...] = ("cpu", "device")
        seconds = {on: seconds_per_batch(self._train_loader(settings, workers, on, stride)) for on in forms}
        chosen = min(forms, key=lambda on: seconds[on])
        shown = ", ".join(f"{on} {1000 * seconds[on]:.1f} ms" for on in forms)
        LOG.info("--augment-on %s: a batch takes %s", chosen, shown)
        return settings.world.broadcast(chosen)

    def new_model(
        self, settings: TrainSettings, pretrained: Mapping[str, Any] | None, loaders: Loaders
    ) -> DetectionModel:
        """Return a detector with weights and anchors that suit the data."""
        options, names = settings.options, list(loaders.names)
        architecture = options.cfg or (pretrained["model"] if pretrained else self.default_model)
        model = require_detector(
            build_model(architecture, num_classes=len(names), downsample=options.downsample),
            settings.architecture,
        )
        model.names = names
        sizes = box_sizes(_detection(loaders.train).dataset)
        if isinstance(model.head, AnchorFreeDetect):
            _refuse_options_of_anchors(settings)
            warn_of_long_boxes(model.head, sizes)
        if pretrained:
            copied, total = transfer_weights(model, pretrained["weights"])
            LOG.info("%d of %d tensors copied from %s", copied, total, options.weights)
        if options.optimization.autoanchor:
            hyp = _of_detector(settings)
            LOG.info("%s", suit_anchors(model, sizes, hyp.anchor_t, hyp.anchor_recall, options.seed))
        return model

    def loss(self, settings: TrainSettings, model: nn.Module) -> DetectionLoss | TaskAlignedLoss:
        """Return the loss of the head; with anchors, its gains are scaled as YOLOv5 trains."""
        hyp, head = _of_detector(settings), require_detector(model, settings.architecture).head
        if isinstance(head, AnchorFreeDetect):
            return TaskAlignedLoss(
                head,
                box=hyp.tal_box,
                cls=hyp.tal_cls,
                dfl=hyp.tal_dfl,
                topk=hyp.tal_topk,
                alpha=hyp.tal_alpha,
                beta=hyp.tal_beta,
                mask_ignored=settings.options.optimization.mask_ignored,
                world=settings.world,
            )
        assert isinstance(head, Detect)
        per_level = 3 / head.nl
        return DetectionLoss(
            head.anchors,
            head.nc,
            box=hyp.box * per_level,
            cls=hyp.cls * per_level * head.nc / 80,
            obj=hyp.obj * per_level * (settings.imgsz / 640) ** 2,
            cls_pw=hyp.cls_pw,
            obj_pw=hyp.obj_pw,
            anchor_t=hyp.anchor_t,
            mask_ignored=settings.options.optimization.mask_ignored,
            label_smoothing=hyp.label_smoothing,
            box_loss=hyp.box_loss,
            nwd_constant=hyp.nwd_constant,
            fl_gamma=hyp.fl_gamma,
            strides=head.stride,
            world=settings.world,
        )

    def evaluate(
        self, model: nn.Module, loaders: Loaders, on_batch: OnBatch | None = None
    ) -> tuple[dict[str, Any], float]:
        """Return AP and its kin on the validation images, P and R where F1 is best, and 0.1·AP50 + 0.9·AP."""
        loader = _detection(loaders.val)
        predictions = predict_loader(
            model, loader, progress=False, gather=loaders.world.gather, on_batch=on_batch
        )
        scored = evaluate(predictions, loaders.names).inputs
        metrics, point = scored.metrics, scored.operating_point.values()
        class_ap = [values["AP"] for values in metrics.per_class]
        values = {**metrics.values, "P": point["P"], "R": point["R"], "class_AP": class_ap}
        return values, metrics.fitness

    def before_epoch(self, settings: TrainSettings, loaders: Loaders, metrics: Mapping[str, Any]) -> None:
        """With --image-weights, draw images of rare and hard classes more often."""
        if settings.options.image.image_weights:
            loader = _detection(loaders.train)
            records = loader.dataset.records
            loader.set_weights(image_weights(records, len(loaders.names), metrics.get("class_AP")))

    def plot_data(self, folder: Path, loaders: Loaders) -> None:
        """Draw the training boxes' statistics and the first batch as the network will see it."""
        from engine.evaluation.report.plots import plot_batch
        from engine.training.plots import plot_labels

        loader = _detection(loaders.train)
        dataset, names = loader.dataset, loaders.names
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

    def report(self, settings: TrainSettings, run: TrainRun, loaders: Loaders) -> None:
        """Evaluate the best checkpoint as val.py does; print its tables, write metrics and figures."""
        from data.media.image_files import read_image
        from engine.evaluation.outputs import plot, report, write_metrics
        from engine.evaluation.report.page import write_report

        model, val = load_model(run.best, settings.device), _detection(loaders.val)
        loader = build_loader(val.dataset, val.batch_size, False, val.workers)  # all of it, not a share
        result = evaluate(predict_loader(model, loader, progress=False), model.names)
        LOG.log(RESULT, report(result))
        write_metrics(result, run.folder / "metrics.json")
        if settings.options.saving.plots:
            page, title = run.folder / "report.html", f"{run.best} on {settings.data}"
            config = settings.config().plain()
            write_report(page, title, result, plot(result, run.folder), config, read_image)
            LOG.log(RESULT, f"\n{page} shows where objects are lost")

    def image_names(self, loader: Loader, batch: TrainBatch) -> list[str]:
        """Return the paths of a batch's images."""
        records = _detection(loader).dataset.records
        return [str(records[index].path) for index in batch.indices]


def _detection(loader: Loader) -> BatchLoader:
    assert isinstance(loader, BatchLoader)
    return loader


def _of_detector(settings: TrainSettings) -> Hyperparameters:
    assert isinstance(settings.hyp, Hyperparameters)
    return settings.hyp


def _refuse_options_of_anchors(settings: TrainSettings) -> None:
    """Raise a UserError for an option that only the loss of heads with anchors knows."""
    for name in ("box_loss", "label_smoothing"):
        if getattr(settings.options.optimization, name) is not None:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is for heads with anchors, and {settings.architecture} has none")


def seconds_per_batch(loader: BatchLoader) -> float:
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
    loader.close()
    return (time.perf_counter() - start) / max(counted, 1) if start else 0.0


def default_workers(device: torch.device) -> int:
    """Feed a GPU from up to 8 processes; beside a network on the CPU one process is enough."""
    cores = os.cpu_count() or 1
    return min(cores, 8) if device.type == "cuda" else min(cores - 1, 1)


def warn_of_long_boxes(head: AnchorFreeDetect, sizes: np.ndarray) -> None:
    """Say how many objects, (N, 2) pixels of the input, are larger than the head can frame."""
    beyond = int((sizes.max(axis=1, initial=0) > head.longest_side).sum())
    if beyond:
        LOG.warning(
            "%s of %d %s %d px, the most that this network can frame; one with an output "
            "at stride 32, such as yolov5n-p2-u, frames larger ones",
            counted(beyond, "object"),
            len(sizes),
            "exceeds" if beyond == 1 else "exceed",
            head.longest_side,
        )


def box_sizes(dataset: DetectionDataset) -> np.ndarray:
    """(n, 2) width and height of the training boxes in pixels at the network's input."""
    sizes = [
        (record.boxes_xyxy[:, 2:] - record.boxes_xyxy[:, :2])[~record.crowd]
        * (dataset.imgsz / max(record.width, record.height))
        for record in dataset.records
    ]
    return np.concatenate(sizes)
