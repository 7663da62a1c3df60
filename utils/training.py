"""One training run: everything that changes while it goes on, and one epoch of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.hyp import Hyperparameters
from utils.optim import EMA, Schedule, build_optimizer

CLIP_NORM = 10.0  # of the gradient, as in YOLOv5
LossFunction = Callable[..., tuple[Tensor, Tensor]]  # of the output and the truth


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class TrainState:
    """Model, moving average, optimizer, scaler, schedule and progress of a run.

    Args:
        model: already on its device.
        hyp: the recipe.
        schedule: rates per iteration.
        amp: mixed precision; only CUDA has it.
    """

    def __init__(self, model: nn.Module, hyp: Hyperparameters, schedule: Schedule, amp: bool = True) -> None:
        # channels_last: the same numbers, faster convolutions, a space-to-depth that copies whole pixels
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule = schedule
        self.device = next(model.parameters()).device
        pictures = schedule.batch_size * schedule.full_accumulation  # in one optimizer step
        decay = hyp.weight_decay * pictures / schedule.nominal_batch
        self.optimizer = build_optimizer(model, hyp.optimizer, hyp.lr0, hyp.momentum, decay)
        self.ema = EMA(model, hyp.ema_decay, hyp.ema_tau)
        self.amp = amp and self.device.type == "cuda"
        self.amp_dtype = torch.bfloat16 if self.amp and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp and self.amp_dtype == torch.float16
        )
        self.epoch = 0  # finished epochs
        self.last_step = -1  # iteration of the last optimizer step
        self.best_fitness, self.best_epoch = -1.0, -1

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on exactly, the average's weights aside."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": self.ema.updates,
            "epoch": self.epoch,
            "last_step": self.last_step,
            "best_fitness": self.best_fitness,
            "best_epoch": self.best_epoch,
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any], ema_weights: dict[str, Tensor]) -> None:
        """Go back to where `state_dict` was called."""
        self.model.load_state_dict(state["weights"])
        self.ema.model.load_state_dict(ema_weights)
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.last_step = state["epoch"], state["last_step"]
        self.best_fitness, self.best_epoch = state["best_fitness"], state["best_epoch"]
        torch.set_rng_state(state["torch_rng"].cpu())

    def step(self, images: Tensor, truth: Sequence[Tensor], loss_fn: LossFunction, iteration: int) -> Tensor:
        """Forward, backward and, where enough batches have come together, an optimizer step.

        Args:
            images: (B, 3, H, W) uint8.
            truth: what `loss_fn` takes after the model's output.
            loss_fn: returns the loss to minimise and its parts.
            iteration: counted over all epochs.

        Returns:
            The loss's parts, detached.

        Raises:
            TrainingDivergedError: the loss is not finite; nothing was changed.
        """
        accumulate = self.schedule.apply(self.optimizer, iteration)
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last).float() / 255
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp):
            output = self.model(images)
        truth = [part.to(self.device, non_blocking=True) for part in truth]
        loss, parts = loss_fn(output, *truth)
        if not torch.isfinite(loss):
            raise TrainingDivergedError(f"the loss became {loss.item()} at iteration {iteration}")
        self.scaler.scale(loss).backward()
        if iteration - self.last_step >= accumulate:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.update(self.model)
            self.last_step = iteration
        return parts


def train_one_epoch(
    state: TrainState, loader: Iterable[Any], loss_fn: LossFunction, names: tuple[str, ...], title: str
) -> dict[str, float]:
    """Show every batch once to the model.

    Returns:
        The mean of each part of the loss, by `names`, and `images_per_s`.
    """
    from tqdm import tqdm

    batches = state.schedule.batches
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    total, seen, start = torch.zeros(len(names), device=state.device), 0, time.perf_counter()
    with tqdm(loader, total=batches, desc=title, disable=None, leave=False, dynamic_ncols=True) as progress:
        for index, batch in enumerate(progress):
            iteration = state.epoch * batches + index
            total += state.step(batch.images, batch.truth, loss_fn, iteration)
            seen += len(batch.images)
            if index % 10 == 0 and not progress.disable:
                now = {
                    name: f"{x:.4f}" for name, x in zip(names, (total / (index + 1)).tolist(), strict=True)
                }
                speed = seen / (time.perf_counter() - start)
                progress.set_postfix(now | {"images/s": f"{speed:.1f}"}, refresh=False)
    state.epoch += 1
    means = dict(zip(names, (total / batches).tolist(), strict=True))
    return means | {"images_per_s": seen / (time.perf_counter() - start)}
