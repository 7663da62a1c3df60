"""Epochs and training steps for benchmarks/train.py, each epoch in a process of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARM_UP = 1  # epochs that do not count


@dataclass(frozen=True)
class Epoch:
    """What to train: `cfg` of ours, or one of Ultralytics' networks, on the data set in `folder`."""

    cfg: str
    ours: bool
    folder: str
    imgsz: int
    batch_size: int
    workers: int
    epochs: int
    threads: int
    device: str


@dataclass(frozen=True)
class Measured:
    """Seconds of an epoch, peak memory of the process in MB (10^6 bytes), 10^9 operations an image."""

    seconds: float
    megabytes: float
    gflops: float


def measure(epoch: Epoch) -> Measured:
    """Train for some epochs in a process of its own and return what one of them takes."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, epoch).result()


def _measure(epoch: Epoch) -> Measured:
    import torch

    from benchmarks.spd_memory import resident

    torch.set_num_threads(epoch.threads)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        seconds, gflops = (_ours if epoch.ours else _ultralytics)(epoch)
    return Measured(seconds, resident() / 1e6, gflops)


def _ours(epoch: Epoch) -> tuple[float, float]:
    """Epochs of train.py's own parts, without evaluation."""
    from engine.training.loop import train_one_epoch
    from models.summary import count_gflops

    state, loader, loss_fn = our_parts(epoch)
    laps = []
    for number in range(WARM_UP + epoch.epochs):
        loader.set_epoch(number)
        start = time.perf_counter()
        train_one_epoch(state, loader, loss_fn, loss_fn.names, "", lambda batch: [])
        laps.append(time.perf_counter() - start)
        state.end_epoch({}, None)
    return min(laps[WARM_UP:]), count_gflops(state.ema.model, epoch.imgsz)


def our_parts(epoch: Epoch) -> tuple[Any, Any, Any]:
    """Return state, loader and loss as train.py makes them."""
    from engine.training.command import make_state
    from engine.training.config import TrainConfig
    from engine.training.resolve import resolve
    from engine.training.tasks import choose_task
    from utils.device import select_device
    from utils.distributed import World

    data = Path(epoch.folder) / "data.yaml"
    options = TrainConfig.of(
        cfg=epoch.cfg,
        data=data,
        hyp="data/hyps/low.yaml",
        imgsz=epoch.imgsz,
        batch_size=epoch.batch_size,
        workers=epoch.workers,
        epochs=WARM_UP + epoch.epochs,
        cache="ram",
        nbs=epoch.batch_size,
    )
    task = choose_task(data, epoch.cfg)
    settings = resolve(options, task, data, select_device(epoch.device), World())
    loaders = task.loaders(settings, epoch.cfg)
    model = task.new_model(settings, None, loaders).to(settings.device)
    state = make_state(settings, model, len(loaders.train))
    return state, loaders.train, task.loss(settings, model)


def _ultralytics(epoch: Epoch) -> tuple[float, float]:
    """Epochs of their trainer on the same images, without evaluation."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.others import yolo
    from utils.ultralytics_adapter import load

    load("ultralytics.utils").LOGGER.setLevel(logging.ERROR)
    model, laps = yolo(epoch.cfg), []

    def lap(trainer: Any) -> None:
        laps.append(time.perf_counter())

    model.add_callback("on_train_epoch_start", lap)
    model.add_callback("on_train_epoch_end", lap)
    model.train(
        data=f"{epoch.folder}/data.yaml",
        imgsz=epoch.imgsz,
        batch=epoch.batch_size,
        nbs=epoch.batch_size,
        epochs=WARM_UP + epoch.epochs,
        workers=epoch.workers,
        device=epoch.device,
        cache="ram",
        close_mosaic=0,
        optimizer="SGD",
        val=False,
        plots=False,
        save=False,
        verbose=False,
        project=epoch.folder,
        amp=epoch.device != "cpu",
    )
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.model.float().cpu().eval()(torch.zeros(1, 3, epoch.imgsz, epoch.imgsz))
    seconds = [end - start for start, end in zip(laps[::2], laps[1::2], strict=True)]
    return min(seconds[WARM_UP:]), counter.get_total_flops() / 1e9


def plain_step(epoch: Epoch) -> Callable[[], object]:
    """Return a training step in plain eager float32: contiguous, without rewrites."""
    import torch

    from models.fast_training import fast_training

    state, images, ground_truth, loss_fn = one_batch(epoch)
    model = state.model.to(memory_format=torch.contiguous_format)
    fast_training(model, on=False)

    def step() -> None:
        loss, _ = loss_fn(model(images.float() / 255), *ground_truth)
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)

    return step


def our_step(epoch: Epoch) -> Callable[[], object]:
    """Return a training step as train.py makes it."""
    state, images, ground_truth, loss_fn = one_batch(epoch)
    return lambda: state.step(images, ground_truth, loss_fn, 10**6)


def one_batch(epoch: Epoch) -> tuple[Any, Any, Any, Any]:
    """Return the state, and images, ground truth and loss of the first batch, on the device."""
    state, loader, loss_fn = our_parts(epoch)
    state.model.train()
    loader.set_epoch(0)
    batch = next(iter(loader))
    return (
        state,
        batch.images.to(state.device),
        [part.to(state.device) for part in batch.ground_truth],
        loss_fn,
    )
