"""What data set, loader and training pass to each other: requests, samples and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from data.letterbox import Letterbox


@dataclass(frozen=True)
class Request:
    """One sample of a batch: of which record, in which epoch, in which input shape (height, width)."""

    index: int
    epoch: int = 0
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sample:
    """One image for the network.

    Attributes:
        image: (3, H, W) uint8 RGB.
        labels: (n, 5) float32: class, cx, cy, w, h as fractions of W and H; crowds left out.
        ignores: (k, 4) float32 cx, cy, w, h as fractions: crowds, and regions where nothing is labeled.
        index: into the data set's records.
        letterbox: where the record's image lies in the sample; the identity for an augmented sample.
        problems: other images of a mosaic that are broken, one line each.
    """

    image: Tensor
    labels: Tensor
    ignores: Tensor
    index: int
    letterbox: Letterbox
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What the loader yields.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        targets: (n, 6) float32: image in the batch, class, cx, cy, w, h as fractions of W and H.
        ignores: (k, 5) float32: image in the batch, cx, cy, w, h as fractions: crowds and the data set's
            regions to ignore, in which a detection is neither right nor wrong.
        indices: of the images, into the data set's records.
        letterboxes: of the images.
    """

    images: Tensor
    targets: Tensor
    ignores: Tensor
    indices: list[int]
    letterboxes: list[Letterbox]

    @property
    def ground_truth(self) -> tuple[Tensor, Tensor]:
        """Targets and ignores: what the loss takes beside the network's output."""
        return self.targets, self.ignores

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the DataLoader calls it."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            ignores=self.ignores.pin_memory(),
        )


def collate(results: Sequence[Sample | str]) -> tuple[Batch | None, list[str]]:
    """Return the batch of the samples (None if there are none) and what was wrong with the others."""
    samples = [result for result in results if isinstance(result, Sample)]
    problems = [result for result in results if isinstance(result, str)]
    problems += [problem for sample in samples for problem in sample.problems]
    if not samples:
        return None, problems
    targets = numbered([sample.labels for sample in samples])  # (n, 6)
    ignores = numbered([sample.ignores for sample in samples])  # (k, 5)
    images = stacked([sample.image for sample in samples])  # (B, 3, H, W)
    indices = [sample.index for sample in samples]
    return Batch(images, targets, ignores, indices, [sample.letterbox for sample in samples]), problems


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """(...) each -> (B, ...); in a worker process, directly into memory that it shares."""
    return concatenated([tensor[None] for tensor in tensors])


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """(n_i, ...) each -> (sum of n_i, ...), as `stacked`."""
    if get_worker_info() is None:
        return torch.cat(list(tensors))
    count, like = sum(tensor.numel() for tensor in tensors), tensors[0]
    try:
        storage = like._typed_storage()._new_shared(count, device="cpu")
    except RuntimeError:  # too little of it, see `data.handover`
        return torch.cat(list(tensors))
    out = like.new(storage).view(-1, *like.shape[1:])
    return torch.cat(list(tensors), out=out)


def numbered(tensors: Sequence[Tensor]) -> Tensor:
    """(n_i, c) of each sample -> (n, 1 + c), the sample's number in the first column."""
    return torch.cat(
        [torch.cat([torch.full((len(rows), 1), float(i)), rows], dim=1) for i, rows in enumerate(tensors)]
    )
