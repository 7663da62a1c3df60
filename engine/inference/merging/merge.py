"""From the tiles of an image back to the image: shift the detections and make one box of each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.inference.merging.neighbors import Metric, later_neighbors, suppress_scattered
from engine.inference.merging.seams import covered, cut_hulls, cut_sides, parts_of_one
from utils.overlap import spread_classes

MergeMethod = Literal["seams", "nms", "nmm"]


@dataclass(frozen=True)
class MergeRule:
    """How the doubles and the parts of an object become one box.

    Attributes:
        method: "seams" drops what a seam has cut where another tile saw the object whole, joins the parts of
            objects that no tile saw whole, and leaves the doubles to NMS. "nms" knows no seams: of boxes that
            overlap, the best stays. "nmm", greedy non-max merging, puts a box around them instead.
        metric: what overlap is: "iou", or "ios", the intersection over the smaller box.
        threshold: the largest overlap that two boxes of one class may have.
    """

    method: MergeMethod = "seams"
    metric: Metric = "iou"
    threshold: float = 0.6


def merge_tiles(
    detections: Sequence[NDArray],
    windows: NDArray | Sequence[Sequence[int]],
    rule: MergeRule | float = MergeRule(),
    max_det: int | None = None,
    agnostic: bool = False,
) -> NDArray[np.float32]:
    """Merge what was found on overlapping tiles of one image; the full image may be one of the tiles.

    Args:
        detections: for each tile (n, 6): x1, y1, x2, y2 in pixels of the tile, confidence, class.
        windows: (T, 4) left, top, right, bottom of each tile in pixels of the image.
        rule: how; a number is the threshold of the default.
        max_det: largest number of boxes kept in the image; None is all.
        agnostic: let boxes of different classes belong to one object.

    Returns:
        (m, 6) in pixels of the image, best first.

    Raises:
        ValueError: the numbers of tiles and windows differ.
    """
    if len(detections) != len(windows):
        raise ValueError(f"{len(detections)} tiles of detections but {len(windows)} windows")
    rule = rule if isinstance(rule, MergeRule) else MergeRule(threshold=rule)
    sides = np.asarray(windows, np.float32).reshape(-1, 4)
    rows, tile = _on_image(detections, sides)
    if rule.method == "seams":
        rows = _without_parts(rows, tile, sides, rule, agnostic)
    boxes = _apart(rows, agnostic)
    if rule.method == "nmm":
        return _merge_greedily(rows, boxes, rule)[:max_det]
    return rows[suppress_scattered(boxes, rule.threshold, max_det, rule.metric)]


def _on_image(detections: Sequence[NDArray], sides: NDArray) -> tuple[NDArray, NDArray]:
    """Return all rows in pixels of the image, best first, and the tile of each."""
    parts = [np.asarray(rows, np.float32).reshape(-1, 6) for rows in detections]
    rows = np.concatenate([np.zeros((0, 6), np.float32), *parts])
    tile = np.repeat(np.arange(len(sides)), [len(part) for part in parts])
    rows[:, :4] += np.tile(sides[:, :2], 2)[tile]
    order = np.argsort(-rows[:, 4], kind="stable")
    return rows[order], tile[order]


def _apart(rows: NDArray, agnostic: bool) -> NDArray:
    """(n, 4) boxes whose classes do not overlap."""
    return rows[:, :4] if agnostic else spread_classes(rows[:, :4], rows[:, 5])


def _without_parts(
    rows: NDArray, tile: NDArray, sides: NDArray, rule: MergeRule, agnostic: bool
) -> NDArray[np.float32]:
    """Return whole objects, and the parts that nothing explains, best first."""
    cut = cut_sides(rows[:, :4], sides, tile)
    boxes, part = _apart(rows, agnostic), cut.any(1)
    whole = np.flatnonzero(~part)
    whole = whole[suppress_scattered(boxes[whole], rule.threshold, metric=rule.metric)]
    loose = np.flatnonzero(part)
    loose = loose[~covered(boxes[loose], rows[loose, 4], boxes[whole], rows[whole, 4])]

    classes = np.zeros(len(loose)) if agnostic else rows[loose, 5]
    labels = parts_of_one(rows[loose, :4], cut[loose], sides, tile[loose], classes)
    joined = _hulls(rows[loose], labels)
    still_cut = cut_hulls(rows[loose, :4], cut[loose], joined[:, :4], labels, sides)
    joined = joined[~_inside_larger(joined, still_cut, agnostic)]
    merged = np.concatenate((rows[whole], joined))
    return merged[np.argsort(-merged[:, 4], kind="stable")]


def _inside_larger(rows: NDArray, part: NDArray, agnostic: bool) -> NDArray[np.bool_]:
    """(n,) whether a box is the part of an object and lies in a larger box."""
    boxes, drop = _apart(rows, agnostic), np.zeros(len(rows), bool)
    drop[part] = covered(boxes[part], rows[part, 4], boxes, rows[:, 4], larger=True)
    return drop


def _hulls(rows: NDArray, labels: NDArray) -> NDArray[np.float32]:
    """The box around the rows of each label 0, 1, ..., confidence and class of the first, its best."""
    _, first = np.unique(labels, return_index=True)
    hulls = rows[first].copy()
    for column, reduce in ((0, np.minimum), (1, np.minimum), (2, np.maximum), (3, np.maximum)):
        reduce.at(hulls[:, column], labels, rows[:, column])
    return hulls


def _merge_greedily(rows: NDArray, boxes: NDArray, rule: MergeRule) -> NDArray[np.float32]:
    """Put a box around each best box and all those left that overlap it too much; rows best first."""
    labels = np.arange(len(rows))  # of each box, the one that it is merged into
    free = np.ones(len(rows), bool)
    for i, later in later_neighbors(boxes, rule.threshold, rule.metric).items():
        if free[i]:
            taken = later[free[later]]
            labels[taken], free[taken] = i, False
    return _hulls(rows, np.unique(labels, return_inverse=True)[1])
