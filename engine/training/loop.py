"""The training loop: epochs, evaluation after each, and one epoch's batches."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from engine.training.freeze import set_train_mode
from engine.training.state import LossFunction, StopRequested, TrainState
from engine.training.validation_loss import ValidationLoss
from utils.distributed import World
from utils.log import RESULT

if TYPE_CHECKING:
    from engine.training.run_folder import TrainRun
    from engine.training.settings import TrainSettings
    from engine.training.tasks import Loaders, Loss, Task

LOG = logging.getLogger(__name__)
SHOWN_EVERY = 10  # iterations; showing losses makes the host wait for the device


def fit(
    settings: TrainSettings,
    task: Task,
    state: TrainState,
    run: TrainRun | None,
    loss_fn: Loss,
    loaders: Loaders,
) -> None:
    """Train until the last epoch, or until `patience` epochs brought nothing better.

    Raises:
        StopRequested: the run was asked to stop, and can be saved.
        TrainingDivergedError: losses or weights are not finite.
    """
    start, first = time.perf_counter(), state.epoch
    patience = settings.options.optimization.patience
    terms = {name.removesuffix("_loss"): f"val/{name}" for name in loss_fn.names}
    titles = {f"val_{term}": name for term, name in terms.items()} | dict(task.shown)
    width = len(f"{settings.epochs}/{settings.epochs}")
    LOG.log(RESULT, table_row(["epoch".rjust(width), *terms, "img/s", *titles, "time", "left"]))
    while state.epoch < settings.epochs:
        if state.epoch - 1 - state.best_epoch >= patience:
            LOG.info("no better fitness in %d epochs: stopped", patience)
            return
        task.before_epoch(settings, loaders, state.metrics)
        loaders.train.set_epoch(state.epoch, state.batch)
        title = f"{state.epoch + 1}/{settings.epochs}".rjust(width)
        name_images = functools.partial(task.image_names, loaders.train)
        losses = train_one_epoch(state, loaders.train, loss_fn, loss_fn.names, title, name_images)
        metrics: dict[str, Any] = {}
        fitness = None
        if not settings.options.saving.noval or state.epoch + 1 == settings.epochs:
            metrics, fitness = evaluate_average(settings, task, state, loaders)
        if run:
            run.end_epoch(losses, metrics, fitness)
            task.after_epoch(state.model, run.folder, state.epoch - 1)
        else:
            state.end_epoch(metrics, fitness)
        spent = time.perf_counter() - start
        left = spent / (state.epoch - first) * (settings.epochs - state.epoch)
        shown = {name: metrics.get(name) for name in titles.values()}
        LOG.log(RESULT, epoch_row(title, losses, shown, spent, left))
        if state.stop_asked and state.world.size == 1:  # several processes agree in the next step
            raise StopRequested


def evaluate_average(
    settings: TrainSettings, task: Task, state: TrainState, loaders: Loaders
) -> tuple[dict[str, Any], float]:
    """Return the moving average's metrics with its validation losses, from one forward pass, and its fitness.

    Raises:
        StopRequested: between two batches.
    """
    alone = settings.replace(world=World())  # processes may have different numbers of validation batches
    loss = ValidationLoss(task.loss(alone, state.model), loaders.world.gather)

    def on_batch(output: Any, batch: Any) -> None:
        if state.stop_asked:
            raise StopRequested
        loss.add(output, batch)

    metrics, fitness = task.evaluate(state.ema.model, loaders, on_batch)
    return metrics | loss.means(), fitness


def epoch_row(
    title: str, losses: Mapping[str, float], metrics: Mapping[str, float | None], *seconds: float
) -> str:
    """Return one epoch as a row under fit's header; `metrics` are in its order."""
    cells = [f"{loss:.4f}" for name, loss in losses.items() if name != "images_per_s"]
    cells.append(f"{losses['images_per_s']:.1f}")
    for name, value in metrics.items():
        digits = 4 if name.startswith("val/") else 3
        cells.append("-" if value is None else f"{value:.{digits}f}")
    cells += [f"{int(s) // 60}:{int(s) % 60:02d}" for s in seconds]
    return table_row([title, *cells])


def table_row(cells: Sequence[str]) -> str:
    """Return cells aligned under each other; a detector's 15 fit into 120 columns."""
    return " ".join(f"{cell:>7}" for cell in cells)


@contextlib.contextmanager
def stop_on_signals(state: TrainState) -> Iterator[None]:
    """Let a scheduler's SIGTERM, and Ctrl-C, end the run at the next safe place; a second Ctrl-C at once.

    Safe places are the end of an optimizer step, of a batch that is evaluated, and of an epoch.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        state.stop_asked = True
        if number == signal.SIGINT:
            state.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train_one_epoch(
    state: TrainState,
    loader: Any,
    loss_fn: LossFunction,
    names: tuple[str, ...],
    title: str,
    name_images: Callable[[Any], Sequence[str]],
) -> dict[str, float]:
    """Train on the batches of the epoch that are left.

    Args:
        state: what is trained; an interrupted epoch goes on at `state.batch`.
        loader: the epoch's batches that are left.
        loss_fn: see `TrainState.step`.
        names: of the loss's terms.
        title: of the progress bar.
        name_images: names the images of a batch, for a loss that is not finite.

    Returns:
        The mean of each term of the loss, by `names`, and `images_per_s`.

    Raises:
        StopRequested: the run was asked to stop and has just made an optimizer step.
        TrainingDivergedError: losses or weights are not finite.
    """
    from tqdm import tqdm

    batches = state.schedule.batches
    set_train_mode(state.model)
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.tensor(state.totals or [0.0] * len(names), device=state.device)
    before, start = state.seen, time.perf_counter()
    hidden = None if state.world.is_main else True  # None: shown on a terminal
    with tqdm(
        loader, title, batches, initial=state.batch, disable=hidden, leave=False, dynamic_ncols=True
    ) as progress:
        for batch in progress:
            iteration = state.epoch * batches + loader.position - 1
            terms = state.step(batch.images, batch.ground_truth, loss_fn, iteration)
            state.batch = loader.position
            state.seen += len(batch.images)
            if terms is None:
                paths = ", ".join(name_images(batch))
                LOG.warning("loss or gradient is not finite, the step is left out; its images: %s", paths)
            else:
                total += terms
            if state.stopping and state.last_step == iteration:
                state.totals = total.tolist()
                state.check_finite()
                raise StopRequested
            if state.batch % SHOWN_EVERY == 1 and not progress.disable:
                now = (total / state.batch).tolist()
                speed = (state.seen - before) / (time.perf_counter() - start)
                shown = {name: f"{mean:.4f}" for name, mean in zip(names, now, strict=True)}
                progress.set_postfix(shown | {"images/s": f"{speed:.1f}"}, refresh=False)
    state.totals = total.tolist()
    state.check_finite()
    means = {name: value / batches for name, value in zip(names, state.totals, strict=True)}
    seconds = time.perf_counter() - start
    return means | {"images_per_s": (state.seen - before) * state.world.size / seconds}
