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

THREE_LEVELS, OTHER_LEVELS = (
    (4.0, 1.0, 0.4),
    (4.0, 1.0, 0.25, 0.06, 0.02),
)  # weights of objectness, finest first
FOCAL_ALPHA = 0.25  # weight of positives, 1 - this of negatives, wherever the focal loss is on
NEIGHBORS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))  # itself, left, up, right, down: (x, y) to subtract
NEIGHBOR_REACH = 0.5  # of a cell: nearer than this to a neighboring cell, that cell predicts the object too


@dataclass(frozen=True)
class Assignment:
    """The M predictions of one level that answer for an object.

    image, anchor, row, column, category: (M,) int64; box: (M, 4) x, y offset inside the cell and w, h, all in
    cells.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    category: Tensor
    box: Tensor


def assign(targets: Tensor, anchors: Tensor, grid: tuple[int, int], anchor_t: float = 4.0) -> Assignment:
    """Find the cells and anchors of one level that predict each object.

    An anchor answers for an object when no side is more than `anchor_t` times the other's; it does so in the
    object's cell and in its up to two nearest neighbors.

    Args:
        targets: (N, 6) image, class, cx, cy, w, h as fractions of the image.
        anchors: (A, 2) width and height in cells of this level.
        grid: height and width of this level, cells.
        anchor_t: largest ratio of sides.

    Returns:
        Rows ordered by neighbor (center, left, up, right, down), then anchor, then target: where two rows
        meet in one cell and anchor, the last one counts.
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
        box: gain of 1 - the likeness of boxes that `box_loss` names.
        obj: gain of the objectness cross-entropy, whose target is the CIoU of the assigned prediction.
        cls: gain of the class cross-entropy.
        obj_pw: weight of positives in the objectness term.
        cls_pw: weight of positives in the class term.
        anchor_t: largest ratio of sides between an object and the anchors that answer for it.
        label_smoothing: e; class targets become 1 - e/2 and e/2.
        mask_ignored: leave cells in ignored regions out of the objectness term.
        box_loss: "ciou", "nwd" or half of each. Objectness has the CIoU as its target in any case: a score
            shall rank detections as the evaluation does, by overlap.
        nwd_constant: C of the normalized Wasserstein distance, pixels of the input.
        fl_gamma: strength of the focal loss (arXiv:1708.02002) on objectness and classes; 0 is off.
        strides: pixels of the input in a cell of each level; NWD needs them.
        world: the processes whose gradients are averaged; their batches count as one.

    Raises:
        ValueError: NWD without strides.
    """

    names = ("box", "obj", "cls")

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
        """Compare raw maps with the truth.

        Args:
            raw: per level (B, A, H_i, W_i, 5 + classes), a detector's output in training mode.
            targets: (N, 6) image, class, cx, cy, w, h as fractions of the image.
            ignores: (K, 5) image, cx, cy, w, h: regions, such as crowds, in which an object that was not
                labeled is no mistake: a cell whose center lies there has no objectness loss, unless it
                answers for a labeled object.

        Returns:
            The scalar to minimize, and (3,) its box, objectness and class parts per image, detached.
        """
        grids = [(maps.shape[2], maps.shape[3]) for maps in raw]
        rows = [
            assign(targets, anchors, grid, self.anchor_t)
            for anchors, grid in zip(self.anchors, grids, strict=True)
        ]
        levels = torch.stack(
            [self._level(i, maps, rows[i], ignores) for i, maps in enumerate(raw)]
        )  # (nl, 3)
        images: float | Tensor = raw[0].shape[0]
        if self.world.size > 1:
            levels, images = self._of_the_world(levels, [len(level.image) for level in rows], raw[0].shape[0])
        parts = levels.sum(0) * self.gains
        return parts.sum() * images, parts.detach()

    def _of_the_world(self, levels: Tensor, rows: list[int], images: int) -> tuple[Tensor, Tensor]:
        """Weigh own means, so that the mean of the processes' losses is the loss of their joint batch.

        Args:
            levels: (nl, 3) means over this process's rows, cells and rows.
            rows: their number at each level.
            images: in this process's batch.

        Returns:
            The weighed means, and the images of the joint batch.
        """
        own = torch.tensor([*rows, images], dtype=levels.dtype, device=levels.device)
        mean = self.world.mean(own)
        share = own / mean.clamp(min=1e-9)  # (nl + 1,)
        per_row, per_cell = share[:-1], share[-1:].expand(len(rows))
        return levels * torch.stack((per_row, per_cell, per_row), 1), mean[-1] * self.world.size

    def _level(self, level: int, maps: Tensor, rows: Assignment, ignores: Tensor | None) -> Tensor:
        """(3,) box, objectness and class loss of one level, without gains."""
        maps = maps.float()  # sums over half a million cells need float32
        anchors = self.anchors[level]
        box_loss = class_loss = maps.new_zeros(())
        objectness = maps.new_zeros(maps.shape[:4])
        if len(rows.image):
            predicted = maps[rows.image, rows.anchor, rows.row, rows.column]  # (M, 5 + classes)
            xy = predicted[:, :2].sigmoid() * 2 - 0.5
            wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * anchors[rows.anchor]
            boxes = torch.cat((xy, wh), 1)
            iou = ciou(boxes, rows.box)  # (M,)
            box_loss = (1 - self._likeness(level, iou, boxes, rows.box)).mean()
            objectness = _write_last(objectness, rows, iou.detach().clamp(0))
            if self.num_classes > 1:
                wanted = torch.full_like(predicted[:, 5:], self.negative)
                wanted.scatter_(1, rows.category[:, None], self.positive)
                class_loss = self._cross_entropy(predicted[:, 5:], wanted, self.cls_pw)
        counts = None
        if self.mask_ignored and ignores is not None and len(ignores):
            answers = _write_last(torch.zeros_like(objectness), rows, torch.ones_like(rows.box[:, 0]))
            outside = ~_cells_inside(ignores, maps.shape[0], maps.shape[2], maps.shape[3])
            counts = torch.maximum(answers, outside[:, None].to(answers.dtype))  # (B, A, H, W)
        object_loss = self._cross_entropy(maps[..., 4], objectness, self.obj_pw, counts)
        return torch.stack((box_loss, object_loss * self.balance[level], class_loss))

    def _likeness(self, level: int, iou: Tensor, predicted: Tensor, wanted: Tensor) -> Tensor:
        """(M,) of what the box loss leaves to improve: from boxes (M, 4) in cells and their CIoU (M,)."""
        if self.box_loss == "ciou" or self.strides is None:
            return iou
        stride = self.strides[level]
        distance = nwd(predicted * stride, wanted * stride, self.nwd_constant)
        return distance if self.box_loss == "nwd" else (iou + distance) / 2

    def _cross_entropy(
        self, logits: Tensor, targets: Tensor, positive: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Mean binary cross-entropy, or focal loss; `positive` weighs positives, `weight` each element."""
        if self.fl_gamma:
            sure = logits.sigmoid()
            missed = targets + sure - 2 * targets * sure  # 1 - the probability given to the target
            balance = targets * FOCAL_ALPHA + (1 - targets) * (1 - FOCAL_ALPHA)
            focus = balance * missed.clamp(min=0) ** self.fl_gamma
            weight = focus if weight is None else focus * weight
            loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none")
            return (loss * weight).mean()
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weight, pos_weight=positive)


def _cells_inside(regions: Tensor, batch: int, height: int, width: int) -> Tensor:
    """(K, 5) image, cx, cy, w, h as fractions -> (B, H, W) whether a cell's center lies in a region."""
    x = (torch.arange(width, device=regions.device) + 0.5) / width
    y = (torch.arange(height, device=regions.device) + 0.5) / height
    _, cx, cy, w, h = regions.T[..., None]  # each (K, 1)
    columns, lines = (x - cx).abs() < w / 2, (y - cy).abs() < h / 2  # (K, W), (K, H)
    inside = (lines[:, :, None] & columns[:, None]).flatten(1)  # (K, H*W)
    counts = torch.zeros(batch, height * width, device=regions.device)
    counts.index_add_(0, regions[:, 0].long(), inside.to(counts.dtype))
    return (counts > 0).view(batch, height, width)


def _write_last(target: Tensor, rows: Assignment, values: Tensor) -> Tensor:
    """Write `values` (M,) at the rows' cells of `target` (B, A, H, W); in a shared cell the last row wins.

    Plain indexing leaves the winner open; keeping the largest row number per cell does not, on any device.
    """
    _, anchors, height, width = target.shape
    cell = ((rows.image * anchors + rows.anchor) * height + rows.row) * width + rows.column  # (M,)
    number = torch.arange(1, len(cell) + 1, device=cell.device)
    winner = cell.new_zeros(target.numel()).scatter_reduce_(0, cell, number, "amax")
    padded = torch.cat((values.new_zeros(1), values))  # row 0: no object
    return padded[winner].view_as(target)
