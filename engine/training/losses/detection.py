"""The detection loss: YOLOv5's assignment, box, objectness and class terms.

The assignment and its order, the gains and the objectness target follow YOLOv5 v7.0
(github.com/ultralytics/yolov5); tests/golden holds the values that this file must reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.training.choices import BoxLoss
from utils.boxes import ciou, nwd
from utils.distributed import World

# Weights of the levels' objectness terms, finest level first.
THREE_LEVELS = (4.0, 1.0, 0.4)
OTHER_LEVELS = (4.0, 1.0, 0.25, 0.06, 0.02)
FOCAL_ALPHA = 0.25  # the focal loss weights positives by this, negatives by 1 - this
NEIGHBORS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))  # itself, left, up, right, down: (x, y) to subtract
NEIGHBOR_REACH = 0.5  # of a cell: nearer than this to a neighboring cell, that cell predicts the object too


@dataclass(frozen=True)
class Assignment:
    """The M positive predictions of one level, and the object that each is positive for.

    Attributes:
        image: (M,) int64, in the batch.
        anchor: (M,) int64.
        row: (M,) int64, of the cell.
        column: (M,) int64, of the cell.
        category: (M,) int64, class of the object.
        box: (M, 4) the object's center, relative to the cell's corner, and its size, all in cells.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    category: Tensor
    box: Tensor


def assign(targets: Tensor, anchors: Tensor, grid: tuple[int, int], anchor_t: float = 4.0) -> Assignment:
    """Match objects with the cells and anchors of one level that shall predict them.

    An anchor is positive for an object whose width and height differ from its own by a factor less than
    `anchor_t`, in the cell that holds the object's center and in the one or two nearest cells beside it.

    Args:
        targets: (N, 6) image, class, cx, cy, w, h as fractions of the image.
        anchors: (A, 2) width and height in cells of this level.
        grid: height and width of this level, cells.
        anchor_t: limit of that factor.

    Returns:
        The positives, ordered by neighbor (center, left, up, right, down), then anchor, then target: where
        two of them share a cell and anchor, the last one sets the objectness target.
    """
    height, width = grid
    size = targets.new_tensor([width, height])
    center, extent = targets[:, 2:4] * size, targets[:, 4:6] * size  # (N, 2) in cells

    ratio = extent[None] / anchors[:, None]  # (A, N, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t  # (A, N)

    from_end = size - center
    left, up = ((center % 1 < NEIGHBOR_REACH) & (center > 1)).T
    right, down = ((from_end % 1 < NEIGHBOR_REACH) & (from_end > 1)).T
    used = torch.stack((torch.ones_like(left), left, up, right, down))  # (5, N)
    offsets = targets.new_tensor(NEIGHBORS) * NEIGHBOR_REACH

    neighbor, anchor, target = (used[:, None] & fits[None]).nonzero(as_tuple=True)  # each (M,)
    cell = (center[target] - offsets[neighbor]).long()
    column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    box = torch.cat((center[target] - torch.stack((column, row), 1), extent[target]), 1)  # (M, 4)
    image, category = targets[target, 0].long(), targets[target, 1].long()
    return Assignment(image, anchor, row, column, category, box)


class DetectionLoss:
    """Sum of the box, objectness and class losses over all levels, times the batch size.

    Args:
        anchors: (levels, A, 2) width and height in cells of each level.
        num_classes: number of classes; the class term vanishes for one.
        box: gain of 1 - the similarity of boxes that `box_loss` names.
        obj: gain of the objectness cross-entropy, whose target is the CIoU of the assigned prediction.
        cls: gain of the class cross-entropy.
        obj_pw: weight of positives in the objectness term.
        cls_pw: weight of positives in the class term.
        anchor_t: see `assign`.
        label_smoothing: e; class targets become 1 - e/2 and e/2.
        mask_ignored: leave cells in ignored regions out of the objectness term.
        box_loss: "ciou", "nwd" or the mean of both. The target of objectness is the CIoU in any case: scores
            should rank detections as the evaluation does, by overlap.
        nwd_constant: C of the normalized Wasserstein distance, pixels of the input.
        fl_gamma: focusing strength of the focal loss (arXiv:1708.02002) on objectness and classes; 0: off.
        strides: side of a cell at each level, pixels of the input; NWD needs them.
        world: the processes that train together; the loss is that of their joint batch.

    Raises:
        ValueError: NWD without strides.
    """

    names = ("box_loss", "obj_loss", "cls_loss")

    def __init__(
        self,
        anchors: Tensor,
        num_classes: int,
        *,
        box: float = 0.05,
        obj: float = 1.0,
        cls: float = 0.5,
        obj_pw: float = 1.0,
        cls_pw: float = 1.0,
        anchor_t: float = 4.0,
        label_smoothing: float = 0.0,
        mask_ignored: bool = True,
        box_loss: BoxLoss = "ciou",
        nwd_constant: float = 12.8,
        fl_gamma: float = 0.0,
        strides: Sequence[float] | Tensor | None = None,
        world: World = World(),  # noqa: B008  (frozen)
    ) -> None:
        if box_loss != "ciou" and strides is None:
            raise ValueError(f"box loss {box_loss!r} measures in pixels: it needs the strides of the levels")
        self.world = world
        self.anchors, self.num_classes, self.anchor_t = anchors, num_classes, anchor_t
        self.gains = torch.tensor([box, obj, cls], device=anchors.device)
        self.obj_pw = torch.tensor([obj_pw], device=anchors.device)
        self.cls_pw = torch.tensor([cls_pw], device=anchors.device)
        self.positive, self.negative = 1 - label_smoothing / 2, label_smoothing / 2
        self.balance = THREE_LEVELS if len(anchors) == 3 else OTHER_LEVELS[: len(anchors)]
        self.mask_ignored = mask_ignored
        self.box_loss, self.nwd_constant, self.fl_gamma = box_loss, nwd_constant, fl_gamma
        self.strides = None if strides is None else [float(stride) for stride in strides]

    def __call__(
        self, raw: Sequence[Tensor], targets: Tensor, ignores: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch.

        Args:
            raw: per level (B, A, H_i, W_i, 5 + classes), a detector's output in training mode.
            targets: (N, 6) image, class, cx, cy, w, h as fractions of the image.
            ignores: (K, 5) image, cx, cy, w, h: regions, such as crowds, where unlabeled objects are
                expected: a cell whose center lies in one has no objectness loss, unless it is positive.

        Returns:
            The scalar to minimize, and (3,) its box, objectness and class terms per image, detached.
        """
        grids = [(maps.shape[2], maps.shape[3]) for maps in raw]
        positives = [
            assign(targets, anchors, grid, self.anchor_t)
            for anchors, grid in zip(self.anchors, grids, strict=True)
        ]
        levels = torch.stack(  # (nl, 3)
            [self._level(i, maps, positives[i], ignores) for i, maps in enumerate(raw)]
        )
        images: float | Tensor = raw[0].shape[0]
        if self.world.size > 1:
            counts = [len(level.image) for level in positives]
            levels, images = self._joint(levels, counts, raw[0].shape[0])
        terms = levels.sum(0) * self.gains
        return terms.sum() * images, terms.detach()

    def _joint(self, levels: Tensor, positives: list[int], images: int) -> tuple[Tensor, Tensor]:
        """Weight this process's means, so that the mean of all processes' losses is that of the joint batch.

        Args:
            levels: (nl, 3) box, objectness and class terms: means over positives, cells and positives.
            positives: their number at each level.
            images: in this process's batch.

        Returns:
            The weighted means, and the number of images in the joint batch.
        """
        own = torch.tensor([*positives, images], dtype=levels.dtype, device=levels.device)
        mean = self.world.mean(own)
        share = own / mean.clamp(min=1e-9)  # (nl + 1,)
        by_positives, by_cells = share[:-1], share[-1:].expand(len(positives))
        weights = torch.stack((by_positives, by_cells, by_positives), 1)  # (nl, 3)
        return levels * weights, mean[-1] * self.world.size

    def _level(self, level: int, maps: Tensor, positives: Assignment, ignores: Tensor | None) -> Tensor:
        """Return (3,) box, objectness and class terms of one level, without gains."""
        maps = maps.float()  # sums over half a million cells need float32
        anchors = self.anchors[level]
        box_loss = class_loss = maps.new_zeros(())
        objectness = maps.new_zeros(maps.shape[:4])  # targets
        if len(positives.image):
            where = positives.image, positives.anchor, positives.row, positives.column
            predicted = maps[where]  # (M, 5 + classes)
            xy = predicted[:, :2].sigmoid() * 2 - 0.5
            wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * anchors[positives.anchor]
            boxes = torch.cat((xy, wh), 1)
            iou = ciou(boxes, positives.box)  # (M,)
            box_loss = (1 - self._similarity(level, iou, boxes, positives.box)).mean()
            objectness = _write_last(objectness, positives, iou.detach().clamp(0))
            if self.num_classes > 1:
                class_targets = torch.full_like(predicted[:, 5:], self.negative)
                class_targets.scatter_(1, positives.category[:, None], self.positive)
                class_loss = self._cross_entropy(predicted[:, 5:], class_targets, self.cls_pw)
        weight = None
        if self.mask_ignored and ignores is not None and len(ignores):
            ones = torch.ones_like(positives.box[:, 0])
            is_positive = _write_last(torch.zeros_like(objectness), positives, ones)
            outside = ~_cells_inside(ignores, maps.shape[0], maps.shape[2], maps.shape[3])
            weight = torch.maximum(is_positive, outside[:, None].to(is_positive.dtype))  # (B, A, H, W)
        object_loss = self._cross_entropy(maps[..., 4], objectness, self.obj_pw, weight)
        return torch.stack((box_loss, object_loss * self.balance[level], class_loss))

    def _similarity(self, level: int, iou: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the (M,) similarity that the box loss raises, from boxes (M, 4) in cells and their CIoU."""
        if self.box_loss == "ciou" or self.strides is None:
            return iou
        stride = self.strides[level]
        distance = nwd(predicted * stride, target * stride, self.nwd_constant)
        return distance if self.box_loss == "nwd" else (iou + distance) / 2

    def _cross_entropy(
        self, logits: Tensor, targets: Tensor, positive: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean cross-entropy or focal loss; `positive` weights positives, `weight` elements."""
        if self.fl_gamma:
            # 1 - the probability given to the target; never 0, where a power below 1 has no finite gradient
            missed = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
            missed = missed.clamp(min=torch.finfo(missed.dtype).tiny)
            balance = targets * FOCAL_ALPHA + (1 - targets) * (1 - FOCAL_ALPHA)
            focus = balance * missed**self.fl_gamma
            weight = focus if weight is None else focus * weight
            loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none")
            return (loss * weight).mean()
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weight, pos_weight=positive)


def _cells_inside(regions: Tensor, batch: int, height: int, width: int) -> Tensor:
    """(K, 5) image, cx, cy, w, h as fractions -> (B, H, W) bool: the cell's center lies in a region."""
    x = (torch.arange(width, device=regions.device) + 0.5) / width
    y = (torch.arange(height, device=regions.device) + 0.5) / height
    _, cx, cy, w, h = regions.T[..., None]  # each (K, 1)
    in_columns, in_rows = (x - cx).abs() < w / 2, (y - cy).abs() < h / 2  # (K, W), (K, H)
    inside = (in_rows[:, :, None] & in_columns[:, None]).flatten(1)  # (K, H*W)
    counts = torch.zeros(batch, height * width, device=regions.device)
    counts.index_add_(0, regions[:, 0].long(), inside.to(counts.dtype))
    return (counts > 0).view(batch, height, width)


def _write_last(target: Tensor, positives: Assignment, values: Tensor) -> Tensor:
    """Write `values` (M,) at the positives' places in `target` (B, A, H, W); the last one in a place wins.

    Plain indexing leaves open which one wins; keeping the largest number per place does not, on any device.
    """
    _, anchors, height, width = target.shape
    plane = positives.image * anchors + positives.anchor
    place = (plane * height + positives.row) * width + positives.column  # (M,) into the flat target
    number = torch.arange(1, len(place) + 1, device=place.device)
    winner = place.new_zeros(target.numel()).scatter_reduce_(0, place, number, "amax")
    padded = torch.cat((values.new_zeros(1), values))  # number 0: no object
    return padded[winner].view_as(target)
