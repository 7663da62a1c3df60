"""The classification loss: cross entropy with label smoothing, and DiffStride's penalty on small strides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


class ClassificationLoss:
    """Cross entropy with label smoothing, and DiffStride's penalty on small strides.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        penalty: returns the penalty; None for none.
        weight: of the penalty.
    """

    def __init__(
        self, label_smoothing: float = 0.0, penalty: Callable[[], Tensor] | None = None, weight: float = 0.0
    ) -> None:
        self.label_smoothing, self.penalty, self.weight = label_smoothing, penalty, weight
        self.names = ("loss", "complexity") if penalty else ("loss",)

    def __call__(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch.

        Args:
            logits: (B, K).
            targets: (B, K) share of each class.

        Returns:
            The scalar to minimize, and (1,) or (2,) its terms, detached; the penalty's without its weight.
        """
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        if self.penalty is None:
            return loss, loss.detach().unsqueeze(0)
        penalty = self.penalty()
        return loss + self.weight * penalty, torch.stack([loss, penalty]).detach()
