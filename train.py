"""Train a detector.

python train.py                                             # YOLOv5n-SPD on the tree crowns that ship
python train.py --data coco.yaml --cfg yolov5s-spd --epochs 300 --batch-size 64
python train.py --resume                                    # go on with the newest run
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import as_plain, flag_of, opt, run, validate
from utils.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from models.tasks import Task
    from utils.train_run import TrainRun
    from utils.training import TrainState

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
    from models.load import from_checkpoint
    from models.tasks import choose_task
    from utils.checkpoint import read_checkpoint
    from utils.device import select_device
    from utils.plots import plot_results
    from utils.runs import make_run_folder
    from utils.train_run import TrainRun
    from utils.training import TrainingDivergedError, seed_everything

    folder, checkpoint = None, None
    if cfg.resume:
        cfg, folder, checkpoint = interrupted_run(cfg)
    pretrained = checkpoint or (read_checkpoint(cfg.weights) if cfg.weights else None)
    given = checkpoint["model"] if checkpoint else cfg.cfg or (pretrained and pretrained["model"])
    task = choose_task(cfg.data, given)
    cfg = with_recipe(cfg, task.recipe, task.fallback)
    hyp = task.read_hyp(cfg.hyp)
    if cfg.optimizer:
        hyp = dataclasses.replace(hyp, optimizer=cfg.optimizer)
    device = select_device(cfg.device)
    seed_everything(cfg.seed)

    train_loader, val_loader = task.loaders(cfg, hyp, device)
    if checkpoint:
        model: nn.Module = from_checkpoint(checkpoint, str(cfg.resume))
    else:
        model = task.new_model(cfg, hyp, pretrained, train_loader.dataset)
    state = make_state(cfg, hyp, model.to(device), len(train_loader), checkpoint)
    folder = folder or make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    train_run = TrainRun(folder, cfg, hyp, state, task.kind, task.columns, task.details)
    if cfg.plots and not checkpoint:
        task.plot_data(folder, train_loader)
    title = cfg.cfg or cfg.weights or "the default model"
    pictures = len(train_loader.dataset)
    print(f"{title} on {device}: {cfg.epochs} epochs of {pictures} pictures, into {folder}")
    try:
        fit(cfg, task, train_run, task.loss(cfg, hyp, model), train_loader, val_loader)
    except KeyboardInterrupt:
        print(f"\nstopped in epoch {state.epoch + 1}; go on with: python train.py --resume {train_run.last}")
        return 130
    except TrainingDivergedError as error:
        print(f"{error}; the last good weights are in {train_run.last}; try a lower lr0 or another --seed")
        return 1
    train_run.finish()
    print(f"\nbest epoch: {state.best_epoch + 1}")
    task.report(cfg, train_run, val_loader)
    if cfg.plots:
        plot_results(train_run.csv, folder / "results.png")
    print(f"\neverything is in {folder}; try: python detect.py --weights {train_run.best}")
    return 0


def fit(
    cfg: TrainConfig, task: Task, run: TrainRun, loss_fn: Any, train_loader: Any, val_loader: Any
) -> None:
    """Train until the last epoch, or until `patience` epochs brought nothing better."""
    from utils.training import train_one_epoch

    state, epochs, start = run.state, cfg.epochs, time.perf_counter()
    first = state.epoch
    header = ("epoch", *loss_fn.names, "img/s", *task.shown, "time", "left")
    print("".join(f"{cell:>9}" for cell in header))
    while state.epoch < epochs:
        train_loader.set_epoch(state.epoch)
        title = f"{state.epoch + 1}/{epochs}"
        losses = train_one_epoch(state, train_loader, loss_fn, loss_fn.names, title)
        values: dict[str, float | None] = {}
        fitness = None
        if not cfg.noval or state.epoch == epochs:
            values, fitness = task.evaluate(state.ema.model, val_loader)
        run.end_epoch(losses, values, fitness)
        spent = time.perf_counter() - start
        left = spent / (state.epoch - first) * (epochs - state.epoch)
        print_row(title, losses, [values.get(key) for key in task.shown], spent, left)
        if state.epoch - 1 - state.best_epoch >= cfg.patience:
            print(f"no better fitness in {cfg.patience} epochs: stopped")
            return


def print_row(title: str, losses: dict[str, float], metrics: Sequence[float | None], *seconds: float) -> None:
    """Print one epoch under fit's header."""
    cells = [f"{loss:.4f}" for loss in list(losses.values())[:-1]]
    cells.append(f"{losses['images_per_s']:.1f}")
    cells += ["-" if value is None else f"{value:.3f}" for value in metrics]
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


def with_recipe(cfg: TrainConfig, recipe: Mapping[str, Any], fallback: Mapping[str, Any]) -> TrainConfig:
    """Fill what was left out from the data set's recipe, then from the task's defaults."""
    values = {key: recipe.get(key, value) for key, value in fallback.items() if getattr(cfg, key) is None}
    return dataclasses.replace(cfg, **values)


def make_state(
    cfg: TrainConfig, hyp: Any, model: nn.Module, batches: int, checkpoint: dict[str, Any] | None
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


if __name__ == "__main__":
    run(TrainConfig, main)
