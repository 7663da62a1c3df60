"""What passes between data set, loader and training: requests, samples and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.letterbox import Letterbox


@dataclass(frozen=True)
class Request:
    """What a batch asks for: which record, in which epoch, in which input shape (height, width)."""

    index: int
    epoch: int = 0
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sample:
    """One picture for the network.

    Attributes:
        image: (3, H, W) uint8 RGB.
        labels: (n, 5) float32: class, cx, cy, w, h as fractions of W and H; crowds left out.
        index: into the data set's records.
        letterbox: where the view lies in the image; for an augmented one, the identity.
        problems: broken pictures met on the way, one line each.
    """

    image: Tensor
    labels: Tensor
    index: int
    letterbox: Letterbox
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What the loader yields.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        targets: (n, 6) float32: image in the batch, class, cx, cy, w, h as fractions of W and H.
        indices: of the images, into the data set's records.
        letterboxes: of the images.
    """

    images: Tensor
    targets: Tensor
    indices: list[int]
    letterboxes: list[Letterbox]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the DataLoader calls it."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.letterboxes)


def collate(found: Sequence[Sample | str]) -> tuple[Batch | None, list[str]]:
    """Return the batch of the samples (None if there are none) and the problems met."""
    samples = [sample for sample in found if isinstance(sample, Sample)]
    problems = [sample for sample in found if isinstance(sample, str)]
    problems += [problem for sample in samples for problem in sample.problems]
    if not samples:
        return None, problems
    targets = [
        torch.cat([torch.full((len(sample.labels), 1), float(place)), sample.labels], dim=1)  # (n, 6)
        for place, sample in enumerate(samples)
    ]
    images = torch.stack([sample.image for sample in samples])  # (B, 3, H, W)
    indices = [sample.index for sample in samples]
    return Batch(images, torch.cat(targets), indices, [sample.letterbox for sample in samples]), problems
