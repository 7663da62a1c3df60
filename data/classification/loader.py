"""Batches of labeled images: gathered, cropped, mirrored and mixed a batch at a time."""

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
class Augmentation:
    """What training does to images.

    Attributes:
        crop: random shift either way, px; zeros come in from outside.
        fliplr: probability of a left-right flip.
        mixup: alpha of mixup (arXiv:1710.09412): the share of a batch's second image is drawn from
            Beta(alpha, alpha); 0 for none.
    """

    crop: int = 0
    fliplr: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True)
class ClassBatch:
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
    def truth(self) -> tuple[Tensor]:
        """What the loss takes beside the network's output."""
        return (self.targets,)


class ClassLoader:
    """Iterates over batches; `set_epoch` decides order and augmentation, which seed and epoch determine.

    In training, a last batch that would be smaller is left out: BatchNorm cannot normalize a single image.

    Args:
        dataset: the images.
        batch_size: images a batch.
        augmentation: of training; None goes through the images in order, as they are, to the last.
        seed: of order and augmentation.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        dataset: ImageSet,
        batch_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        world: World = World(),  # noqa: B008  (frozen)
    ):
        self.dataset, self.augmentation, self.seed, self.world = dataset, augmentation, seed, world
        self.batch_size = min(batch_size, len(dataset))
        self.epoch, self.start = 0, 0
        self._pixels, self._labels = torch.from_numpy(dataset.pixels), torch.from_numpy(dataset.labels)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration will load, and the batch it starts with."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.augmentation else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[ClassBatch]:
        count = len(self.dataset)
        order = torch.arange(count)
        if self.augmentation:
            order = torch.from_numpy(np.random.default_rng((self.seed, self.epoch)).permutation(count))
        for number, part in list(enumerate(order.split(self.batch_size)))[self.start : len(self)]:
            yield self._batch(part, np.random.default_rng((self.seed, self.epoch, number)))

    def _batch(self, indices: Tensor, rng: np.random.Generator) -> ClassBatch:
        """Make the whole batch, the same in every process, and take this process's share."""
        pixels, labels = self._pixels[indices], self._labels[indices]  # (B, S, S, C)
        targets = F.one_hot(labels, len(self.dataset.names)).float()
        if self.augmentation:
            pixels = shift_and_flip(pixels, self.augmentation, rng)
            if self.augmentation.mixup:
                pixels, targets = mix(pixels, targets, self.augmentation.mixup, rng)
        share = slice(self.world.rank, None, self.world.size)
        images = pixels[share].expand(-1, -1, -1, 3).permute(0, 3, 1, 2)
        return ClassBatch(images, targets[share], labels[share], indices[share].tolist())


def shift_and_flip(pixels: Tensor, augmentation: Augmentation, rng: np.random.Generator) -> Tensor:
    """(B, S, S, C) uint8 -> the same shape, each image moved and mirrored by chance."""
    batch, side, crop = len(pixels), pixels.shape[1], augmentation.crop
    top, left = torch.from_numpy(rng.integers(0, 2 * crop + 1, (2, batch, 1)))  # (B, 1)
    mirrored = torch.from_numpy(rng.random((batch, 1)) < augmentation.fliplr)
    place = torch.arange(side).unsqueeze(0)
    rows = top + place  # (B, S) in the padded image
    columns = left + torch.where(mirrored, side - 1 - place, place)
    padded = F.pad(pixels, (0, 0, crop, crop, crop, crop))
    return padded[torch.arange(batch).view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1)]


def mix(pixels: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend every image and its target with those of another one of the batch; one share a batch."""
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(pixels)))
    mixed = (share * pixels.float() + (1 - share) * pixels[other].float()).round().to(torch.uint8)
    return mixed, share * targets + (1 - share) * targets[other]
