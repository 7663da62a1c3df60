"""Metrics of a classifier: top-1 and top-5 accuracy, accuracy by class, confusion, worst mistakes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The predictions of a classifier for labeled images, and their metrics.

    Attributes:
        log_probabilities: (N, K) float32.
        labels: (N,) the true classes.
        names: the classes.
        seconds: time in the network per image.
    """

    log_probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    seconds: float

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the most probable class."""
        return self.log_probabilities.argmax(1)

    @cached_property
    def losses(self) -> NDArray[np.float32]:
        """(N,) cross entropy of each image."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    def top(self, k: int) -> float:
        """Return the share of images whose class is among the k most probable."""
        best = np.argsort(-self.log_probabilities, 1, kind="stable")[:, :k]
        return float((best == self.labels[:, None]).any(1).mean())

    @property
    def values(self) -> dict[str, float | None]:
        """Top-1, top-5 and the mean cross entropy."""
        return {"top1": self.top(1), "top5": self.top(5), "loss": float(self.losses.mean())}

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) numbers of images, predicted class by true class."""
        classes = len(self.names)
        cells = self.predicted * classes + self.labels
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def per_class(self) -> list[float | None]:
        """Return the accuracy of each class; None for a class without images."""
        counts, right = self.confusion.sum(0), self.confusion.diagonal()
        return [float(r / n) if n else None for r, n in zip(right, counts, strict=True)]

    def worst(self, most: int) -> NDArray[np.int64]:
        """Return the wrongly classified images with the highest losses, worst first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")][:most]


@torch.no_grad()
def classify(
    predict: Callable[[Tensor], Tensor],
    loader: Iterable[Any],
    names: tuple[str, ...],
    device: torch.device,
    on_batch: Callable[[Tensor, Any], None] | None = None,
) -> ClassificationResult:
    """Run a classifier over all batches of a loader.

    Args:
        predict: (B, 3, S, S) float in 0..1 -> logits (B, K); a module must be in eval mode.
        loader: batches with `images` (B, 3, S, S) uint8 and `labels` (B,).
        names: the classes.
        device: where `predict` takes its images.
        on_batch: is called with the logits (B, K), float32 on the CPU, and the batch.
    """
    log_probabilities, labels, seconds = [], [], 0.0
    for batch in loader:
        images = batch.images.to(device, memory_format=torch.channels_last).float() / 255
        start = time.perf_counter()
        logits = predict(images).float().cpu()  # which waits for the device
        seconds += time.perf_counter() - start
        log_probabilities.append(F.log_softmax(logits, 1))
        labels.append(batch.labels)
        if on_batch is not None:
            on_batch(logits, batch)
    every = torch.cat(labels).numpy()
    return ClassificationResult(torch.cat(log_probabilities).numpy(), every, names, seconds / len(every))
