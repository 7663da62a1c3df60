"""Train a detector or a classifier, on one device or on many.

python train.py                                             # YOLOv5n-SPD on the tree crowns that ship
python train.py --cfg resnet18-spd                          # ResNet18-SPD on the digits that ship
python train.py --data coco.yaml --cfg yolov5s-spd --epochs 300 --batch-size 64
python train.py --resume                                    # go on with the newest run
torchrun --nproc-per-node 4 train.py --batch-size 128       # four GPUs, 32 images on each
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.training.config import FREE_ON_RESUME, OVERRIDES, TrainConfig
from utils.errors import UserError
from utils.options import flag_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from engine.training.run_folder import TrainRun
    from engine.training.state import TrainState
    from engine.training.tasks import Task
    from utils.distributed import World


def main(cfg: TrainConfig) -> int:
    """Train, alone or among torchrun's processes; the first of them prints and writes."""
    from utils.distributed import joined_world

    with joined_world() as world:
        if world.is_main:
            return train(cfg, world)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return train(cfg, world)


def train(cfg: TrainConfig, world: World) -> int:
    """Train, keep the best checkpoint, evaluate it and say where everything is."""
    from engine.training.run_folder import TrainRun
    from engine.training.state import seed_everything
    from engine.training.tasks import choose_task, default_data
    from models.checkpoint import read_checkpoint
    from utils.device import select_device
    from utils.run_folders import make_run_folder

    folder, checkpoint = None, None
    if cfg.resume:
        cfg, folder, checkpoint = interrupted_run(cfg)
    pretrained = checkpoint or (read_checkpoint(cfg.weights) if cfg.weights else None)
    given = checkpoint["model"] if checkpoint else cfg.cfg or (pretrained and pretrained["model"])
    cfg = dataclasses.replace(cfg, data=cfg.data or default_data(given))
    task = choose_task(cfg.data, given)
    task.world = world
    cfg = with_recipe(cfg, task.recipe, task.fallback)
    hyp = with_overrides(cfg, task.read_hyp(cfg.hyp))
    device = select_device(world.device(cfg.device))
    seed_everything(cfg.seed)
    if cfg.batch_size == -1:
        cfg = dataclasses.replace(cfg, batch_size=fitting_batch(cfg, task, hyp, device, pretrained))
        print(f"--batch-size {cfg.batch_size} is what fits")
    if cfg.batch_size % world.size:
        raise UserError(f"--batch-size {cfg.batch_size} cannot be shared equally by {world.size} processes")

    loaders = task.loaders(cfg, hyp, device)
    model = make_model(cfg, task, hyp, loaders[0].dataset, pretrained, checkpoint).to(device)
    state = make_state(cfg, hyp, model, len(loaders[0]), checkpoint, world)
    run = None
    if world.is_main:
        folder = folder or make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
        run = TrainRun(folder, cfg, hyp, state, task.kind, task.columns, task.details)
        if cfg.plots and not checkpoint:
            task.plot_data(folder, loaders[0])
    title = cfg.cfg or cfg.weights or "the default model"
    where = f"{device}, {world.size} processes" if world.size > 1 else device
    images = len(loaders[0].dataset)
    print(f"{title} on {where}: {cfg.epochs} epochs of {images} images, into {folder}")
    with stop_on_sigterm(state):
        code = run_to_the_end(cfg, task, hyp, state, run, loaders)
    return code


def run_to_the_end(
    cfg: TrainConfig, task: Task, hyp: Any, state: TrainState, run: TrainRun | None, loaders: tuple[Any, Any]
) -> int:
    """Fit and report; return the exit code. What is interrupted can be resumed."""
    from engine.evaluation.report.plots import plot_results
    from engine.training.state import StopRequested, TrainingDivergedError

    last = run.last if run else None
    try:
        fit(cfg, task, state, run, task.loss(cfg, hyp, state.model), *loaders)
    except StopRequested:
        if run:
            run.save()
        print(f"\nsaved in epoch {state.epoch + 1}, as asked; go on with: python train.py --resume {last}")
        return 0
    except KeyboardInterrupt:
        print(f"\nstopped in epoch {state.epoch + 1}; go on with: python train.py --resume {last}")
        return 130
    except TrainingDivergedError as error:
        print(f"{error}; the last good weights are in {last}; try a lower lr0 or another --seed")
        return 1
    if run:
        run.finish()
        print(f"\nbest epoch: {state.best_epoch + 1}")
        task.report(cfg, run, loaders[1])
        if cfg.plots:
            plot_results(run.csv, run.folder / "results.png")
        print(f"\neverything is in {run.folder}; try: python detect.py --weights {run.best}")
    return 0


def fit(
    cfg: TrainConfig,
    task: Task,
    state: TrainState,
    run: TrainRun | None,
    loss_fn: Any,
    train_loader: Any,
    val_loader: Any,
) -> None:
    """Train until the last epoch, or until `patience` epochs brought nothing better."""
    from engine.training.state import train_one_epoch

    start, first = time.perf_counter(), state.epoch
    header = ("epoch", *loss_fn.names, "img/s", *task.shown, "time", "left")
    print("".join(f"{cell:>11}" for cell in header))
    while state.epoch < cfg.epochs:
        task.before_epoch(cfg, train_loader, state.metrics)
        train_loader.set_epoch(state.epoch, state.batch)
        title = f"{state.epoch + 1}/{cfg.epochs}"
        losses = train_one_epoch(
            state, train_loader, loss_fn, loss_fn.names, title, functools.partial(task.images, train_loader)
        )
        values: dict[str, Any] = {}
        fitness = None
        if not cfg.noval or state.epoch + 1 == cfg.epochs:
            values, fitness = task.evaluate(state.ema.model, val_loader)
        if run:
            run.end_epoch(losses, values, fitness)
            task.after_epoch(state.model, run.folder, state.epoch - 1)
        else:
            state.end_epoch(values, fitness)
        spent = time.perf_counter() - start
        left = spent / (state.epoch - first) * (cfg.epochs - state.epoch)
        print_row(title, losses, [values.get(key) for key in task.shown], spent, left)
        if state.epoch - 1 - state.best_epoch >= cfg.patience:
            print(f"no better fitness in {cfg.patience} epochs: stopped")
            return


@contextlib.contextmanager
def stop_on_sigterm(state: TrainState) -> Iterator[None]:
    """Let a scheduler's SIGTERM end the run after the next optimizer step, or at once between epochs."""
    from engine.training.state import StopRequested

    def stop(_signal: int, _frame: Any) -> None:
        state.stop_asked = True
        if state.batch == state.schedule.batches:  # the epoch is trained, and being evaluated
            raise StopRequested

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def print_row(title: str, losses: dict[str, float], metrics: Sequence[float | None], *seconds: float) -> None:
    """Print one epoch under fit's header."""
    cells = [f"{loss:.4f}" for loss in list(losses.values())[:-1]]
    cells.append(f"{losses['images_per_s']:.1f}")
    cells += ["-" if value is None else f"{value:.3f}" for value in metrics]
    cells += [f"{int(s) // 60}:{int(s) % 60:02d}" for s in seconds]
    print("".join(f"{cell:>11}" for cell in [title, *cells]), flush=True)


def interrupted_run(cfg: TrainConfig) -> tuple[TrainConfig, Path, dict[str, Any]]:
    """Return config, folder and checkpoint of the run to go on with.

    Raises:
        UserError: no such run, a finished one, or options that differ from the run's.
    """
    from models.checkpoint import read_checkpoint

    last = Path(cfg.resume or "")
    if cfg.resume == "newest":
        runs = sorted(cfg.run.project.glob("*/weights/last.pt"), key=lambda file: file.stat().st_mtime)
        if not runs:
            raise UserError(f"no run to resume in {cfg.run.project}; give the path of its last.pt")
        last = runs[-1]
    checkpoint = read_checkpoint(last)
    if "training" not in checkpoint:
        raise UserError(f"{last} is of a finished run: start from it with --weights {last}")
    saved = TrainConfig.of(**checkpoint["config"])
    given, default, before = cfg.plain(), TrainConfig.of().plain(), saved.plain()
    for key, value in given.items():
        if key not in FREE_ON_RESUME and value not in (default[key], before[key]):
            raise UserError(f"--resume goes on with {flag_of(key)} {before[key]}, not {value}: leave it out")
    free = {key: getattr(cfg, key) for key in FREE_ON_RESUME}
    return dataclasses.replace(saved, **free), last.parent.parent, checkpoint


def with_recipe(cfg: TrainConfig, recipe: Mapping[str, Any], fallback: Mapping[str, Any]) -> TrainConfig:
    """Fill what was left out from the data set's recipe, then from the task's defaults."""
    values = {key: recipe.get(key, value) for key, value in fallback.items() if getattr(cfg, key) is None}
    return dataclasses.replace(cfg, **values)


def with_overrides(cfg: TrainConfig, hyp: Any) -> Any:
    """Replace the hyperparameters that were given on the command line."""
    given = {key: getattr(cfg, flag) for key, flag in OVERRIDES.items() if getattr(cfg, flag) is not None}
    for key in given:
        if not hasattr(hyp, key):
            raise UserError(f"{flag_of(OVERRIDES[key])} is for detectors, and this network is a classifier")
    return dataclasses.replace(hyp, **given)


def make_model(
    cfg: TrainConfig,
    task: Task,
    hyp: Any,
    dataset: Any,
    pretrained: dict[str, Any] | None,
    checkpoint: dict[str, Any] | None,
) -> nn.Module:
    """Return the interrupted run's network, or a new one."""
    from engine.training.freeze import freeze_layers
    from models.load import from_checkpoint

    if checkpoint:
        model: nn.Module = from_checkpoint(checkpoint, str(cfg.resume)).requires_grad_(True)
    else:
        model = task.new_model(cfg, hyp, pretrained, dataset)
    if cfg.freeze:
        print(f"{len(freeze_layers(model, cfg.freeze))} tensors stay as they are")
    return model


def make_state(
    cfg: TrainConfig,
    hyp: Any,
    model: nn.Module,
    batches: int,
    checkpoint: dict[str, Any] | None,
    world: World,
) -> TrainState:
    """Return a fresh state, or the interrupted run's."""
    from engine.training.multi_scale import rescaled, scaled_side
    from engine.training.optimizer import Schedule
    from engine.training.state import TrainState
    from models.fast_training import fast_training
    from models.layers.sync_norm import synchronize_norms

    if cfg.sync_bn and world.size > 1:
        model = synchronize_norms(model)
    shared = {field.name for field in dataclasses.fields(Schedule)} & set(vars(hyp))
    recipe = {name: getattr(hyp, name) for name in shared}
    recipe["cosine"] = cfg.cos_lr or recipe.get("cosine", False)
    schedule = Schedule(cfg.epochs, batches, cfg.batch_size, **recipe)
    fast_training(model)

    def resize(images: Tensor, iteration: int) -> Tensor:
        return rescaled(
            images, scaled_side(cfg.imgsz, 32, cfg.seed, iteration // batches, iteration % batches)
        )

    scale = resize if cfg.multi_scale else None
    state = TrainState(model, hyp, schedule, cfg.amp, world, cfg.compile, scale)
    if checkpoint:
        state.load_state_dict(checkpoint["training"], checkpoint["weights"])
    return state


def fitting_batch(
    cfg: TrainConfig, task: Task, hyp: Any, device: torch.device, pretrained: dict[str, Any] | None
) -> int:
    """Return the largest batch that fits, by training steps on the first images of the data set."""
    import torch

    from engine.training.auto_batch import largest_batch
    from utils.distributed import World

    probe = dataclasses.replace(cfg, batch_size=2, workers=0)
    loader, _ = task.loaders(probe, hyp, device)
    model = task.new_model(probe, hyp, pretrained, loader.dataset).to(device)
    loss_fn = task.loss(probe, hyp, model)
    state = make_state(probe, hyp, model, 1, None, World())
    loader.set_epoch(0)
    batch = next(iter(loader))

    def step(count: int) -> None:
        torch.manual_seed(cfg.seed)
        state.step(*task.repeated(batch, count), loss_fn, 0)

    return largest_batch(step, device, len(loader.dataset) // task.world.size) * task.world.size
