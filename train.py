"""Train a detector.

python train.py                                             # YOLOv5n-SPD on the tree crowns that ship
python train.py --data coco.yaml --cfg yolov5s-spd --epochs 300 --batch-size 64
python train.py --resume                                    # go on with the newest run
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import as_plain, flag_of, opt, run, validate
from utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from data.dataset import DetectionDataset
    from data.description import DataDescription
    from data.loader import BatchLoader
    from models.detector import Detector
    from utils.hyp import Hyperparameters
    from utils.loss import DetectionLoss
    from utils.train_run import TrainRun
    from utils.training import TrainState

DEFAULT_MODEL = "yolov5n-spd"
FALLBACK = {"hyp": "data/hyps/low.yaml", "imgsz": 640, "epochs": 100, "batch_size": 16}
FREE_ON_RESUME = {"resume", "device", "workers", "cache"}  # may differ from the interrupted run's


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector. What is left out comes from the data set's own recipe, where its YAML has one."""

    weights: Path | None = opt(None, "start from this checkpoint's weights, as far as they fit")
    cfg: str | None = opt(
        None, "architecture, such as yolov5s-spd or a model YAML (default: that of --weights, or yolov5n-spd)"
    )
    downsample: str | None = opt(
        None,
        "block that replaces each strided convolution: strided, spd, max, avg, blur, spectral, diffstride",
    )
    data: Path = opt("data/treecrowns.yaml", "data-set YAML")
    hyp: Path = opt(None, "hyperparameter YAML (default: the data's recipe, or data/hyps/low.yaml)")
    epochs: int = opt(None, "epochs (default: the data's recipe, or 100)", min=1)
    batch_size: int = opt(None, "pictures a batch (default: the data's recipe, or 16)", "--batch", min=1)
    imgsz: int = opt(
        None, "square input side, px (default: the data's recipe, or 640)", "--img", "--img-size", min=32
    )
    optimizer: Literal["SGD", "Adam", "AdamW"] | None = opt(None, "optimizer (default: the hyp file's)")
    cos_lr: bool = opt(False, "let the learning rate fall along a cosine instead of a line")
    patience: int = opt(100, "stop after this many epochs without a better fitness", min=1)
    seed: int = opt(0, "of weights, order and augmentation", min=0)
    amp: bool = opt(True, "mixed precision on CUDA")
    autoanchor: bool = opt(True, "fit new anchors where the model's do not suit the boxes", "--auto-anchor")
    cache: Literal["ram", "disk"] | None = opt(
        None, "keep decoded pictures in memory or on disk", const="ram"
    )
    workers: int | None = opt(None, "processes that read pictures (default: by the machine)", min=0)
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    mask_ignored: bool = opt(True, "no loss for what is found in crowds and regions to ignore")
    noval: bool = opt(False, "evaluate after the last epoch only")
    plots: bool = opt(True, "draw label statistics, training batches and results")
    project: Path = opt("runs/train", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")
    resume: str | None = opt(None, "go on with this last.pt, or with the newest run", const="newest")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)


def main(cfg: TrainConfig) -> int:
    """Train, keep the best checkpoint, evaluate it and say where everything is."""
    from data.description import read_description
    from utils.device import select_device
    from utils.hyp import read_hyp
    from utils.runs import make_run_folder
    from utils.train_run import TrainRun
    from utils.training import TrainingDivergedError, seed_everything

    folder, checkpoint = None, None
    if cfg.resume:
        cfg, folder, checkpoint = interrupted_run(cfg)
    description = read_description(cfg.data)
    cfg = with_recipe(cfg, description.recipe)
    hyp = read_hyp(cfg.hyp)
    if cfg.optimizer:
        hyp = dataclasses.replace(hyp, optimizer=cfg.optimizer)
    device = select_device(cfg.device)
    seed_everything(cfg.seed)

    train_loader, val_loader = build_loaders(cfg, hyp, description, device)
    model = make_model(cfg, hyp, description.names, train_loader.dataset, checkpoint).to(device)
    state = make_state(cfg, hyp, model, len(train_loader), checkpoint)
    folder = folder or make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    tile = dataclasses.asdict(description.tile) if description.tile else None
    train_run = TrainRun(folder, cfg, hyp, state, tile)
    if cfg.plots and not checkpoint:
        plot_data(folder, train_loader, model.names)
    pictures = len(train_loader.dataset)
    print(
        f"{cfg.cfg or DEFAULT_MODEL} on {device}: {cfg.epochs} epochs of {pictures} pictures, into {folder}"
    )
    try:
        fit(cfg, train_run, make_loss(cfg, hyp, model), train_loader, val_loader)
    except KeyboardInterrupt:
        print(f"\nstopped in epoch {state.epoch + 1}; go on with: python train.py --resume {train_run.last}")
        return 130
    except TrainingDivergedError as error:
        print(f"{error}; the last good weights are in {train_run.last}; try a lower lr0 or another --seed")
        return 1
    train_run.finish()
    report(cfg, train_run, val_loader)
    return 0


def fit(
    cfg: TrainConfig,
    run: TrainRun,
    loss_fn: DetectionLoss,
    train_loader: BatchLoader,
    val_loader: BatchLoader,
) -> None:
    """Train until the last epoch, or until `patience` epochs brought nothing better."""
    from utils.evaluation import evaluate
    from utils.training import train_one_epoch

    state, epochs, start = run.state, cfg.epochs, time.perf_counter()
    first = state.epoch
    header = ("epoch", *loss_fn.names, "img/s", "AP50", "AP", "AP_S", "time", "left")
    print("".join(f"{cell:>9}" for cell in header))
    while state.epoch < epochs:
        train_loader.set_epoch(state.epoch)
        title = f"{state.epoch + 1}/{epochs}"
        losses = train_one_epoch(state, train_loader, loss_fn, loss_fn.names, title)
        values, fitness = {}, None
        if not cfg.noval or state.epoch == epochs:
            evaluation = evaluate(state.ema.model, val_loader, run.names, progress=False)
            values, fitness = evaluation.metrics.values, evaluation.metrics.fitness
        run.end_epoch(losses, values, fitness)
        spent = time.perf_counter() - start
        left = spent / (state.epoch - first) * (epochs - state.epoch)
        print_row(title, losses, values, spent, left)
        if state.epoch - 1 - state.best_epoch >= cfg.patience:
            print(f"no better fitness in {cfg.patience} epochs: stopped")
            return


def plot_data(folder: Path, loader: BatchLoader, names: Sequence[str]) -> None:
    """Draw the training boxes' statistics and the first batch as the network will see it."""
    import numpy as np

    from utils.plots import plot_batch, plot_labels

    dataset = loader.dataset
    classes, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4))]
    for record in dataset.records:
        low, high = record.boxes_xyxy[~record.crowd, :2], record.boxes_xyxy[~record.crowd, 2:]
        boxes.append(np.concatenate(((low + high) / 2, high - low), 1) / max(record.width, record.height))
        classes.append(record.classes[~record.crowd])
    plot_labels(np.concatenate(classes), np.concatenate(boxes), names, dataset.imgsz, folder / "labels.png")
    loader.set_epoch(0)
    batch = next(iter(loader))
    plot_batch(batch.images, batch.targets, names, folder / "train_batch0.png", "first training batch")


def report(cfg: TrainConfig, run: TrainRun, loader: BatchLoader) -> None:
    """Evaluate the best checkpoint as val.py does; print its tables and where everything is."""
    from data.pictures import read_picture
    from models import load_model
    from utils.evaluation import evaluate
    from utils.plots import plot_results
    from utils.report import write_report
    from utils.val_run import plot, report, write_metrics

    model = load_model(run.best, run.state.device)
    evaluation = evaluate(model, loader, model.names, progress=False)
    print(f"\nbest epoch: {run.state.best_epoch + 1}\n{report(evaluation)}")
    write_metrics(evaluation, run.folder / "metrics.json")
    if cfg.plots:
        page, title = run.folder / "report.html", f"{run.best} on {cfg.data}"
        write_report(page, title, evaluation, plot(evaluation, run.folder), as_plain(cfg), read_picture)
        plot_results(run.csv, run.folder / "results.png")
        print(f"\n{page} shows where objects are lost")
    print(f"\neverything is in {run.folder}; try: python detect.py --weights {run.best}")


def print_row(title: str, losses: dict[str, float], values: dict[str, float | None], *seconds: float) -> None:
    """Print one epoch under fit's header."""
    cells = [f"{loss:.4f}" for loss in list(losses.values())[:-1]]
    cells.append(f"{losses['images_per_s']:.1f}")
    cells += ["-" if values.get(key) is None else f"{values[key]:.3f}" for key in ("AP50", "AP", "AP_S")]
    cells += [f"{int(s) // 60}:{int(s) % 60:02d}" for s in seconds]
    print("".join(f"{cell:>9}" for cell in [title, *cells]), flush=True)


def interrupted_run(cfg: TrainConfig) -> tuple[TrainConfig, Path, dict[str, Any]]:
    """Return config, folder and checkpoint of the run to go on with.

    Raises:
        UserError: no such run, a finished one, or options that differ from the run's.
    """
    from utils.checkpoint import read_checkpoint

    last = Path(cfg.resume or "")
    if cfg.resume == "newest":
        runs = sorted(cfg.project.glob("*/weights/last.pt"), key=lambda file: file.stat().st_mtime)
        if not runs:
            raise UserError(f"no run to resume in {cfg.project}; give the path of its last.pt")
        last = runs[-1]
    checkpoint = read_checkpoint(last)
    if "training" not in checkpoint:
        raise UserError(f"{last} is of a finished run: start from it with --weights {last}")
    saved = TrainConfig(**checkpoint["config"])
    given, default, before = as_plain(cfg), as_plain(TrainConfig()), as_plain(saved)
    for key, value in given.items():
        if key not in FREE_ON_RESUME and value not in (default[key], before[key]):
            raise UserError(f"--resume goes on with {flag_of(key)} {before[key]}, not {value}: leave it out")
    free = {key: getattr(cfg, key) for key in FREE_ON_RESUME}
    return dataclasses.replace(saved, **free), last.parent.parent, checkpoint


def with_recipe(cfg: TrainConfig, recipe: Mapping[str, Any]) -> TrainConfig:
    """Fill what was left out from the data set's recipe, then from YOLOv5's defaults."""
    values = {key: recipe.get(key, value) for key, value in FALLBACK.items() if getattr(cfg, key) is None}
    return dataclasses.replace(cfg, **values)


def build_loaders(
    cfg: TrainConfig, hyp: Hyperparameters, description: DataDescription, device: torch.device
) -> tuple[BatchLoader, BatchLoader]:
    """Return the augmented batches to train on and the plain ones to validate on."""
    from data.augment import Augmentation
    from data.dataset import DetectionDataset, validation_set
    from data.loader import build_loader
    from val import read_views

    if cfg.imgsz % 32:
        raise UserError(f"--imgsz must be a multiple of 32, got {cfg.imgsz}; try {cfg.imgsz // 32 * 32 + 32}")
    workers = default_workers(device) if cfg.workers is None else cfg.workers
    strength = {field.name: getattr(hyp, field.name) for field in dataclasses.fields(Augmentation)}
    train = DetectionDataset(
        read_views(description, "train"), cfg.imgsz, Augmentation(**strength), cache=cfg.cache, seed=cfg.seed
    )
    val = validation_set(read_views(description, "val"), cfg.imgsz, cache=cfg.cache)
    return (
        build_loader(train, cfg.batch_size, shuffle=True, workers=workers, seed=cfg.seed),
        build_loader(val, cfg.batch_size * 2, shuffle=False, workers=workers),
    )


def default_workers(device: torch.device) -> int:
    """Feed a GPU from up to 8 processes; beside a network on the CPU one process is enough."""
    cores = os.cpu_count() or 1
    return min(cores, 8) if device.type == "cuda" else min(cores - 1, 1)


def make_model(
    cfg: TrainConfig,
    hyp: Hyperparameters,
    names: Sequence[str],
    dataset: DetectionDataset,
    checkpoint: dict[str, Any] | None,
) -> Detector:
    """Return the network: an interrupted run's, or a new one, with weights and anchors that suit the data."""
    from models import build_model
    from models.autoanchor import suit_anchors
    from models.detector import require_detector
    from models.load import from_checkpoint, transfer_weights
    from utils.checkpoint import read_checkpoint

    if checkpoint:
        return require_detector(from_checkpoint(checkpoint), cfg.resume)
    pretrained = read_checkpoint(cfg.weights) if cfg.weights else None
    architecture = cfg.cfg or (pretrained["model"] if pretrained else DEFAULT_MODEL)
    model = require_detector(
        build_model(architecture, num_classes=len(names), downsample=cfg.downsample), cfg.cfg or cfg.weights
    )
    model.names = list(names)
    if pretrained:
        copied, total = transfer_weights(model, pretrained["weights"])
        print(f"{copied} of {total} tensors copied from {cfg.weights}")
    if cfg.autoanchor:
        sizes = box_sizes(dataset)
        print(suit_anchors(model, sizes, hyp.anchor_t, hyp.anchor_recall, cfg.seed))
    return model


def box_sizes(dataset: DetectionDataset) -> np.ndarray:
    """(n, 2) width and height of the training boxes in pixels at the network's input."""
    import numpy as np

    sizes = [
        (record.boxes_xyxy[:, 2:] - record.boxes_xyxy[:, :2])[~record.crowd]
        * (dataset.imgsz / max(record.width, record.height))
        for record in dataset.records
    ]
    return np.concatenate(sizes)


def make_state(
    cfg: TrainConfig,
    hyp: Hyperparameters,
    model: Detector,
    batches: int,
    checkpoint: dict[str, Any] | None,
) -> TrainState:
    """Return a fresh state, or the interrupted run's."""
    from utils.optim import Schedule
    from utils.training import TrainState

    shared = {field.name for field in dataclasses.fields(Schedule)} & set(vars(hyp))
    recipe = {name: getattr(hyp, name) for name in shared}
    schedule = Schedule(cfg.epochs, batches, cfg.batch_size, cosine=cfg.cos_lr, **recipe)
    state = TrainState(model, hyp, schedule, cfg.amp)
    if checkpoint:
        state.load_state_dict(checkpoint["training"], checkpoint["weights"])
    return state


def make_loss(cfg: TrainConfig, hyp: Hyperparameters, model: Detector) -> DetectionLoss:
    """Return the loss with gains scaled to levels, classes and input size, as YOLOv5 trains."""
    from utils.loss import DetectionLoss

    head = model.head
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
    )


if __name__ == "__main__":
    run(TrainConfig, main)
