"""The loss of anchor-free heads: cells are assigned to the objects that they already detect best.

Task-aligned assignment and its class targets: Feng et al., TOOD, ICCV 2021, arXiv:2108.07755. Distribution
focal loss: Li et al., arXiv:2006.04388.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.anchor_free import AnchorFreeDetect, cell_centers
from utils.boxes import box_iou, ciou, xywh_to_xyxy, xyxy_to_xywh
from utils.distributed import World

LEAST_OVERLAP = 1e-4  # of a cell inside an object, so that it can be assigned before its box fits at all
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Cells:
    """All K cells of all levels.

    Attributes:
        centers: (K, 2) x, y in pixels of the input.
        strides: (K, 1) pixels per cell.
    """

    centers: Tensor
    strides: Tensor

    @classmethod
    def of(cls, raw: Sequence[Tensor], strides: Sequence[float]) -> Cells:
        """Return the cells of raw maps (B, 1, H_i, W_i, values)."""
        centers, sides = [], []
        for maps, stride in zip(raw, strides, strict=True):
            height, width = maps.shape[2:4]
            centers.append(cell_centers(height, width, maps).float() * stride)
            sides.append(torch.full((height * width, 1), stride, device=maps.device))
        return cls(torch.cat(centers), torch.cat(sides))


@dataclass(frozen=True)
class Objects:
    """The objects of a batch, padded to as many in each image.

    Attributes:
        boxes_xyxy: (B, G, 4) pixels of the input.
        classes: (B, G) int64.
        exist: (B, G) bool; the others are padding.
    """

    boxes_xyxy: Tensor
    classes: Tensor
    exist: Tensor

    @classmethod
    def of(cls, targets: Tensor, images: int, size: Tensor) -> Objects:
        """Targets (N, 6): image, class, cx, cy, w, h as fractions of `size` (4,), pixels."""
        image = targets[:, 0].long()
        counts = torch.bincount(image, minlength=images)
        order = torch.argsort(image, stable=True)
        first = counts.cumsum(0) - counts
        place = torch.arange(len(image), device=image.device) - first[image[order]]
        most = int(counts.max()) if len(image) else 0
        boxes = targets.new_zeros(images, most, 4)
        classes = image.new_zeros(images, most)
        exist = torch.zeros(images, most, dtype=torch.bool, device=image.device)
        ordered = targets[order]
        where = image[order], place
        boxes[where] = xywh_to_xyxy(ordered[:, 2:6] * size)
        classes[where] = ordered[:, 1].long()
        exist[where] = True
        return cls(boxes, classes, exist)


@dataclass(frozen=True)
class Assignment:
    """Which object each cell is positive for.

    Attributes:
        positive: (B, K) bool.
        object: (B, K) int64, into the image's objects; 0 where the cell is not positive.
        score: (B, K) target of the class score: its alignment, scaled so that the best cell of an object gets
            the largest IoU that any of the object's cells has; 0 where the cell is not positive.
    """

    positive: Tensor
    object: Tensor
    score: Tensor


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes_xyxy: Tensor,
    cells: Cells,
    objects: Objects,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Assign to each object the `topk` cells inside it whose score^alpha · IoU^beta is largest.

    A cell that several objects claim goes to the one that the cell's box overlaps most. An object narrower or
    lower than two cells of the finest level counts as that large when cells inside it are looked for: else
    the smallest objects would have none.

    Args:
        scores: (B, K, nc) predicted, 0..1.
        boxes_xyxy: (B, K, 4) predicted, pixels.
        cells: where they are.
        objects: G of them per image.
        topk: cells for each object.
        alpha: weight of the score.
        beta: weight of the overlap.
    """
    images, count = scores.shape[:2]
    image, number, cell = _cells_inside(
        cells, objects
    )  # each (P,): only pairs of an object and a cell inside it
    box = objects.boxes_xyxy[image, number]
    overlap = box_iou(box[:, None], boxes_xyxy[image, cell][:, None]).flatten().clamp(min=LEAST_OVERLAP)
    alignment = scores[image, cell, objects.classes[image, number]] ** alpha * overlap**beta

    row = image * objects.classes.shape[1] + number  # (P,) ascending
    best = _among_best(alignment, row, images * objects.classes.shape[1], topk)
    place, number, row = (image * count + cell)[best], number[best], row[best]
    alignment, overlap = alignment[best], overlap[best]
    wins = overlap == _largest(overlap, place, images * count)  # of the objects that claim the cell
    first = torch.full((images * count,), objects.classes.shape[1], device=number.device)
    first.scatter_reduce_(0, place[wins], number[wins], "amin")
    wins &= number == first[place]

    place, number, row = place[wins], number[wins], row[wins]
    alignment, overlap = alignment[wins], overlap[wins]
    rows = objects.classes.numel()
    score = alignment / _largest(alignment, row, rows).clamp(min=TINY) * _largest(overlap, row, rows)
    assigned = number.new_zeros(images * count).index_put_((place,), number)
    goal = score.new_zeros(images * count).index_put_((place,), score)
    positive = torch.zeros_like(assigned, dtype=torch.bool).index_fill_(0, place, True)
    return Assignment(*(flat.view(images, count) for flat in (positive, assigned, goal)))


def _cells_inside(cells: Cells, objects: Objects) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, object and cell, each (P,), of the cells whose center lies inside an object."""
    center = (objects.boxes_xyxy[..., :2] + objects.boxes_xyxy[..., 2:]) / 2  # (B, G, 2)
    half = (objects.boxes_xyxy[..., 2:] - objects.boxes_xyxy[..., :2]) / 2
    reach = half.clamp(min=float(cells.strides.min()))
    inside = objects.exist[..., None]
    for axis in (0, 1):
        offset = (cells.centers[:, axis] - center[..., axis, None]).abs()  # (B, G, K)
        inside = inside & (offset < reach[..., axis, None])
    return inside.nonzero(as_tuple=True)  # type: ignore[return-value]


def _among_best(values: Tensor, row: Tensor, rows: int, topk: int) -> Tensor:
    """(P,) values above 0 and the row of each, ascending -> (P,) bool: among the `topk` largest of a row."""
    counts = torch.bincount(row, minlength=rows)
    longest = int(counts.max()) if len(row) else 0
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    table = values.new_zeros(rows, longest).index_put_((row, column), values)
    best = table.topk(min(topk, longest), -1)
    chosen = torch.zeros_like(table, dtype=torch.bool).scatter_(-1, best.indices, best.values > 0)
    return chosen[row, column]


def _largest(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(P,) values and the group of each -> (P,) the largest value of each one's group."""
    return values.new_zeros(groups).scatter_reduce_(0, group, values, "amax")[group]


class TaskAlignedLoss:
    """Box, class and distribution terms of an anchor-free head, each divided by the sum of score targets.

    Args:
        head: the head; it says how boxes are decoded.
        box: gain of 1 - CIoU.
        cls: gain of the class cross-entropy.
        dfl: gain of the distribution focal loss.
        topk: see `assign`.
        alpha: see `assign`.
        beta: see `assign`.
        mask_ignored: no class loss for cells whose center lies in a region to ignore, unless positive.
        world: the processes that train together; the loss is that of their joint batch.
    """

    names = ("box_loss", "cls_loss", "dfl_loss")

    def __init__(
        self,
        head: AnchorFreeDetect,
        *,
        box: float = 7.5,
        cls: float = 0.5,
        dfl: float = 1.5,
        topk: int = 10,
        alpha: float = 0.5,
        beta: float = 6.0,
        mask_ignored: bool = True,
        world: World = World(),  # noqa: B008  (frozen)
    ) -> None:
        self.bins, self.num_classes, self.distances = head.bins, head.nc, head.distances
        self.strides = [float(stride) for stride in head.stride]
        self.gains = torch.tensor([box, cls, dfl], device=head.stride.device)
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.mask_ignored, self.world = mask_ignored, world

    def __call__(
        self, raw: Sequence[Tensor], targets: Tensor, ignores: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch.

        Args:
            raw: per level (B, 1, H_i, W_i, 4·bins + classes), the head's output in training mode.
            targets: (N, 6) image, class, cx, cy, w, h as fractions of the image.
            ignores: (n, 5) image, cx, cy, w, h: regions, such as crowds, where unlabeled objects are
                expected.

        Returns:
            The scalar to minimize, and (3,) its box, class and distribution terms per image, detached.
        """
        height, width = (raw[0].shape[2] * self.strides[0], raw[0].shape[3] * self.strides[0])
        size = torch.tensor([width, height, width, height], device=raw[0].device)
        images = raw[0].shape[0]
        cells = Cells.of(raw, self.strides)
        objects = Objects.of(targets, images, size)
        values = torch.cat([maps.flatten(1, 3) for maps in raw], 1).float()  # (B, K, 4·bins + nc)
        distances = self.distances(values[..., : 4 * self.bins])  # (B, K, 4) strides
        logits = values[..., 4 * self.bins :]  # (B, K, nc)
        low, high = distances.chunk(2, -1)
        boxes = torch.cat((cells.centers - low * cells.strides, cells.centers + high * cells.strides), -1)
        matched = assign(
            logits.detach().sigmoid(), boxes.detach(), cells, objects, self.topk, self.alpha, self.beta
        )
        total = matched.score.sum()
        mean = self.world.mean(total[None])[0] if self.world.size > 1 else total
        terms = torch.stack(self._terms(values, logits, boxes, cells, objects, matched, ignores, size))
        terms = terms / mean.clamp(min=1) * self.gains
        return terms.sum() * images, terms.detach()

    def _terms(
        self,
        values: Tensor,
        logits: Tensor,
        boxes: Tensor,
        cells: Cells,
        objects: Objects,
        matched: Assignment,
        ignores: Tensor | None,
        size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of the box, class and distribution terms."""
        image, cell = matched.positive.nonzero(as_tuple=True)  # each (M,)
        number = matched.object[image, cell]
        weight = matched.score[image, cell]
        goal_scores = torch.zeros_like(logits)
        weights = None
        if self.mask_ignored and ignores is not None and len(ignores):
            weights = (matched.positive | ~_inside(cells.centers, ignores, len(logits), size))[
                ..., None
            ].float()
        box_term = dfl_term = logits.new_zeros(())
        if len(image):
            goal_scores[image, cell, objects.classes[image, number]] = weight
            goals = objects.boxes_xyxy[image, number]  # (M, 4)
            similarity = ciou(xyxy_to_xywh(boxes[image, cell]), xyxy_to_xywh(goals))
            box_term = ((1 - similarity) * weight).sum()
            sides = torch.cat((cells.centers[cell] - goals[:, :2], goals[:, 2:] - cells.centers[cell]), -1)
            predicted = values[image, cell, : 4 * self.bins].view(-1, self.bins)
            dfl = distribution_focal_loss(predicted, (sides / cells.strides[cell]).flatten())
            dfl_term = (dfl.view(-1, 4).mean(1) * weight).sum()
        class_term = F.binary_cross_entropy_with_logits(logits, goal_scores, weight=weights, reduction="sum")
        return box_term, class_term, dfl_term


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """(n, bins) logits and (n,) distances -> (n,) cross-entropy of the two bins beside each distance."""
    distances = distances.clamp(0, logits.shape[1] - 1 - 0.01)
    lower = distances.long()
    share = distances - lower
    below = F.cross_entropy(logits, lower, reduction="none")
    above = F.cross_entropy(logits, lower + 1, reduction="none")
    return below * (1 - share) + above * share


def _inside(centers: Tensor, regions: Tensor, images: int, size: Tensor) -> Tensor:
    """(K, 2) centers in pixels, (n, 5) regions -> (B, K) bool: the cell's center lies in a region."""
    boxes = regions[:, 1:] * size
    offset = (centers - boxes[:, None, :2]).abs()  # (n, K, 2)
    inside = (offset < boxes[:, None, 2:] / 2).all(-1)  # (n, K)
    counts = torch.zeros(images, len(centers), device=centers.device)
    return counts.index_add_(0, regions[:, 0].long(), inside.float()) > 0
