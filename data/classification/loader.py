"""Batches of labeled images, which are shifted, mirrored and mixed a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.classification.images import ImageSet
from utils.distributed import World


@dataclass(frozen=True)
class ClassificationAugmentation:
    """Strengths of the training augmentation.

    Attributes:
        crop: random shift, px either way; pixels from outside are 0.
        fliplr: probability of a left-right flip.
        mixup: alpha of mixup (arXiv:1710.09412), which draws the share of the second image from
            Beta(alpha, alpha), once for each batch; 0: none.
    """

    crop: int = 0
    fliplr: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True)
class ClassificationBatch:
    """What the loader yields.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        targets: (B, K) float32, the share of each class.
        labels: (B,) int64, of the images before mixup.
        indices: of the images, into the data set.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    indices: list[int]

    @property
    def ground_truth(self) -> tuple[Tensor]:
        """The targets: what the loss takes beside the network's output."""
        return (self.targets,)


class ClassificationLoader:
    """Iterates over batches; `set_epoch` decides, together with the seed, the order and the augmentation.

    In training, a smaller last batch is left out: BatchNorm cannot normalize a single image.

    Args:
        dataset: the images.
        batch_size: images per batch.
        augmentation: of training; None yields all images in order and as they are.
        seed: of order and augmentation.
        world: the processes that share each batch.

    Attributes:
        position: batches of the epoch up to the one just yielded.
    """

    def __init__(
        self,
        dataset: ImageSet,
        batch_size: int,
        augmentation: ClassificationAugmentation | None = None,
        seed: int = 0,
        world: World = World(),  # noqa: B008  (frozen)
    ):
        self.dataset, self.augmentation, self.seed, self.world = dataset, augmentation, seed, world
        self.batch_size = min(batch_size, len(dataset))
        self.epoch, self.start, self.position = 0, 0, 0
        self._pixels, self._labels = torch.from_numpy(dataset.pixels), torch.from_numpy(dataset.labels)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration will load, and the batch it starts with."""
        self.epoch, self.start = epoch, start

    def close(self) -> None:
        """Do nothing: there are no worker processes."""

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.augmentation else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[ClassificationBatch]:
        count = len(self.dataset)
        order = torch.arange(count)
        if self.augmentation:
            order = torch.from_numpy(np.random.default_rng((self.seed, self.epoch)).permutation(count))
        for number, indices in list(enumerate(order.split(self.batch_size)))[self.start : len(self)]:
            self.position = number + 1
            yield self._batch(indices, np.random.default_rng((self.seed, self.epoch, number)))

    def _batch(self, indices: Tensor, rng: np.random.Generator) -> ClassificationBatch:
        """Make the whole batch, the same in every process, and take this process's share."""
        pixels, labels = self._pixels[indices], self._labels[indices]  # (B, S, S, C)
        targets = F.one_hot(labels, len(self.dataset.names)).float()
        if self.augmentation:
            pixels = shift_and_flip(pixels, self.augmentation, rng)
            if self.augmentation.mixup:
                pixels, targets = mix(pixels, targets, self.augmentation.mixup, rng)
        share = slice(self.world.rank, None, self.world.size)
        images = pixels[share].expand(-1, -1, -1, 3).permute(0, 3, 1, 2)
        return ClassificationBatch(images, targets[share], labels[share], indices[share].tolist())


def shift_and_flip(
    pixels: Tensor, augmentation: ClassificationAugmentation, rng: np.random.Generator
) -> Tensor:
    """(B, S, S, C) uint8 -> the same shape, each image shifted and mirrored at random."""
    batch, side, crop = len(pixels), pixels.shape[1], augmentation.crop
    top, left = torch.from_numpy(rng.integers(0, 2 * crop + 1, (2, batch, 1)))  # (B, 1)
    mirrored = torch.from_numpy(rng.random((batch, 1)) < augmentation.fliplr)
    pixel = torch.arange(side).unsqueeze(0)
    rows = top + pixel  # (B, S) in the padded image
    columns = left + torch.where(mirrored, side - 1 - pixel, pixel)
    padded = F.pad(pixels, (0, 0, crop, crop, crop, crop))
    return padded[torch.arange(batch).view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1)]


def mix(pixels: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend each image of a batch and its target with another one, all by the same share."""
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(pixels)))
    mixed = (share * pixels.float() + (1 - share) * pixels[other].float()).round().to(torch.uint8)
    return mixed, share * targets + (1 - share) * targets[other]
