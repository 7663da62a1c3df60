"""The training loop: epochs, evaluation after each, and one epoch's batches."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from engine.training.state import LossFunction, StopRequested, TrainState
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
    """Train until the last epoch, or until `patience` epochs brought nothing better."""
    start, first = time.perf_counter(), state.epoch
    patience = settings.options.optimization.patience
    header = ("epoch", *loss_fn.names, "img/s", *task.shown, "time", "left")
    LOG.log(RESULT, "".join(f"{cell:>11}" for cell in header))
    while state.epoch < settings.epochs:
        task.before_epoch(settings, loaders, state.metrics)
        loaders.train.set_epoch(state.epoch, state.batch)
        title = f"{state.epoch + 1}/{settings.epochs}"
        name_images = functools.partial(task.image_names, loaders.train)
        losses = train_one_epoch(state, loaders.train, loss_fn, loss_fn.names, title, name_images)
        metrics: dict[str, Any] = {}
        fitness = None
        if not settings.options.saving.noval or state.epoch + 1 == settings.epochs:
            metrics, fitness = task.evaluate(state.ema.model, loaders)
        if run:
            run.end_epoch(losses, metrics, fitness)
            task.after_epoch(state.model, run.folder, state.epoch - 1)
        else:
            state.end_epoch(metrics, fitness)
        spent = time.perf_counter() - start
        left = spent / (state.epoch - first) * (settings.epochs - state.epoch)
        LOG.log(RESULT, epoch_row(title, losses, [metrics.get(key) for key in task.shown], spent, left))
        if state.epoch - 1 - state.best_epoch >= patience:
            LOG.info("no better fitness in %d epochs: stopped", patience)
            return


def epoch_row(title: str, losses: dict[str, float], metrics: Sequence[float | None], *seconds: float) -> str:
    """Return one epoch as a row under fit's header."""
    cells = [f"{loss:.4f}" for loss in list(losses.values())[:-1]]
    cells.append(f"{losses['images_per_s']:.1f}")
    cells += ["-" if value is None else f"{value:.3f}" for value in metrics]
    cells += [f"{int(s) // 60}:{int(s) % 60:02d}" for s in seconds]
    return "".join(f"{cell:>11}" for cell in [title, *cells])


@contextlib.contextmanager
def stop_on_sigterm(state: TrainState) -> Iterator[None]:
    """Let a scheduler's SIGTERM end the run after the next optimizer step, or at once between epochs."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        state.stop_asked = True
        if state.batch == state.schedule.batches:  # the epoch is trained, and being evaluated
            raise StopRequested

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
    """
    from tqdm import tqdm

    batches = state.schedule.batches
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.tensor(state.totals or [0.0] * len(names), device=state.device)
    before, start = state.seen, time.perf_counter()
    hidden = None if state.world.is_main else True  # None: shown on a terminal
    with tqdm(
        loader, title, batches, initial=state.batch, disable=hidden, leave=False, dynamic_ncols=True
    ) as progress:
        for batch in progress:
            iteration = state.epoch * batches + state.batch
            terms = state.step(batch.images, batch.ground_truth, loss_fn, iteration)
            state.batch += 1
            state.seen += len(batch.images)
            if terms is None:
                paths = ", ".join(name_images(batch))
                LOG.warning("the loss is not finite, the step is left out; its images: %s", paths)
            else:
                total += terms
            if state.stopping and state.last_step == iteration:
                state.totals = total.tolist()
                raise StopRequested
            if state.batch % SHOWN_EVERY == 1 and not progress.disable:
                now = (total / state.batch).tolist()
                speed = (state.seen - before) / (time.perf_counter() - start)
                shown = {name: f"{mean:.4f}" for name, mean in zip(names, now, strict=True)}
                progress.set_postfix(shown | {"images/s": f"{speed:.1f}"}, refresh=False)
    state.totals = total.tolist()
    means = {name: value / batches for name, value in zip(names, state.totals, strict=True)}
    seconds = time.perf_counter() - start
    return means | {"images_per_s": (state.seen - before) * state.world.size / seconds}
