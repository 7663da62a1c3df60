"""The validation loss: the training's loss of what the evaluation sees anyway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from engine.training.tasks.task import Loss, TrainBatch


class ValidationLoss:
    """The terms of a loss, averaged over the validation batches, as YOLOv5 averages them.

    It is fed with the outputs that the evaluation computes, so that it costs no forward pass.

    Args:
        loss_fn: of this process alone, whoever shares the batches: their numbers differ.
        gather: from this process's sums to those of all processes.
    """

    def __init__(
        self, loss_fn: Loss, gather: Callable[[list[float]], Sequence[list[float]]] = lambda own: [own]
    ) -> None:
        self.loss_fn, self.gather = loss_fn, gather
        self.total: Tensor | None = None
        self.batches = 0

    def add(self, output: Any, batch: TrainBatch) -> None:
        """Add the loss of a batch.

        Args:
            output: of the network in eval mode: a detector's (decoded, raw maps), or logits (B, K).
            batch: what it was computed from.
        """
        raw = output[1] if isinstance(output, tuple) else output
        device = raw.device if isinstance(raw, Tensor) else raw[0].device
        targets = [target.to(device, non_blocking=True) for target in batch.ground_truth]
        terms = self.loss_fn(raw, *targets)[1]
        self.total = terms if self.total is None else self.total + terms
        self.batches += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each term over the batches of all processes, as "val/box_loss" and so on."""
        own = [] if self.total is None else [float(self.batches), *self.total.tolist()]
        sums = torch.tensor([part for part in self.gather(own) if part], dtype=torch.float64).sum(0)
        if not sums.ndim:
            return {}
        means = (sums[1:] / sums[0]).tolist()
        return {f"val/{name}": mean for name, mean in zip(self.loss_fn.names, means, strict=True)}
