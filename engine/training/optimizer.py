"""Optimization: parameter groups, the schedule with its warm-up, the moving average of weights."""

from __future__ import annotations

import bisect
import copy
import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import nn

from engine.training.choices import OptimizerName
from engine.training.hyperparameters import OptimizerSettings


def build_optimizer(
    model: nn.Module, name: OptimizerName, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum, Adam or AdamW over three groups: biases, weights, weights of norms.

    Only the second group, weights of convolutions and linear layers, has weight decay. `momentum` is Adam's
    first beta.
    """
    biases: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
        for key, parameter in module.named_parameters(recurse=False):
            group = biases if key == "bias" else norms if is_norm or parameter.ndim <= 1 else weights
            group.append(parameter)
    groups = [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    fused = weights[0].is_cuda  # one kernel for all tensors; on the CPU it is no faster
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True, fused=fused)
    adam = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name]
    return adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused)


@dataclass(frozen=True)
class Schedule:
    """Learning rate, momentum and gradient accumulation at each iteration, as in YOLOv5.

    The learning rate falls from `lr0` to `lr0 * lrf` epoch by epoch, linearly or along a cosine. During
    warm-up it rises from 0 (that of biases falls from `warmup_bias_lr`), the momentum rises from
    `warmup_momentum`, and the batches per optimizer step grow from one to `nominal_batch / batch_size`.

    With `milestones` it is `lr0` times the first of the `factors` until the first milestone, then times the
    second, and so on; milestones are epochs, or optimizer steps of full accumulation.
    """

    epochs: int
    batches: int  # per epoch
    batch_size: int
    nominal_batch: int = 64
    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    warmup_epochs: float = 3.0
    warmup_iterations: int = 100  # at least
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    cosine: bool = False
    milestones: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()  # one more than milestones
    milestone_unit: Literal["epochs", "steps"] = "epochs"

    @property
    def warmup(self) -> int:
        """Length of the warm-up in iterations."""
        if self.warmup_epochs <= 0:
            return 0
        return max(round(self.warmup_epochs * self.batches), self.warmup_iterations)

    @property
    def full_accumulation(self) -> int:
        """Batches per optimizer step after the warm-up."""
        return max(round(self.nominal_batch / self.batch_size), 1)

    def lr(self, epoch: int, iteration: int = 0) -> float:
        """Return the learning rate without warm-up; milestones in steps need the iteration."""
        if self.milestones:
            at = epoch if self.milestone_unit == "epochs" else iteration / self.full_accumulation
            return self.lr0 * self.factors[bisect.bisect_right(self.milestones, at)]
        progress = epoch / self.epochs
        decay = (1 - math.cos(progress * math.pi)) / 2 if self.cosine else progress  # from 0 to 1
        return self.lr0 * (1 - decay * (1 - self.lrf))

    def apply(self, optimizer: torch.optim.Optimizer, iteration: int) -> int:
        """Set learning rate and momentum for `iteration`, counted over all epochs.

        Returns:
            Batches per optimizer step.
        """
        lr = self.lr(iteration // self.batches, iteration)
        rise = min(iteration / self.warmup, 1.0) if self.warmup else 1.0
        momentum = self.warmup_momentum + rise * (self.momentum - self.warmup_momentum)
        for index, group in enumerate(optimizer.param_groups):
            start = self.warmup_bias_lr if index == 0 else 0.0  # group 0 holds the biases
            group["lr"] = start + rise * (lr - start)
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])
        return max(round(1 + rise * (self.nominal_batch / self.batch_size - 1)), 1)


def schedule_of(
    hyp: OptimizerSettings, epochs: int, batches: int, batch_size: int, cosine: bool = False
) -> Schedule:
    """Return the schedule of a recipe; `cosine` turns the cosine on where the recipe does not."""
    shared = {field.name for field in fields(Schedule)} & type(hyp).model_fields.keys()
    values = {name: getattr(hyp, name) for name in shared}
    values["cosine"] = cosine or values.get("cosine", False)
    return Schedule(epochs, batches, batch_size, **values)


class EMA:
    """An exponential moving average of a model's parameters and buffers.

    At update n the average keeps the share decay * (1 - exp(-n / tau)) of its old value: little at first,
    `decay` in the end. Integers, such as BatchNorm's counter, are copied.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.9999, tau: float = 2000.0, updates: int = 0
    ) -> None:
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, updates

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the model's current weights."""
        self.updates += 1
        keep = self.decay * (1 - math.exp(-self.updates / self.tau))
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([old for old, _ in moving], [new for _, new in moving], 1 - keep)
        if counters:
            torch._foreach_copy_([old for old, _ in counters], [new for _, new in counters])
