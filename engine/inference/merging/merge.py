"""Merging: from the detections of overlapping tiles to those of the full image, one box per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.inference.merging.neighbors import Metric, later_neighbors, suppress_scattered
from engine.inference.merging.seams import covered, cut_enclosing_boxes, cut_sides, group_fragments
from utils.detections import Detections
from utils.overlap import spread_classes

MergeMethod = Literal["seams", "nms", "nmm"]


@dataclass(frozen=True)
class MergeRule:
    """How duplicates and fragments of an object become one box.

    Attributes:
        method: "seams" drops fragments, cut by a tile's side, where another tile shows the object whole,
            joins the fragments of objects that no tile shows whole, and leaves duplicates to NMS. "nms" knows
            no seams: of overlapping boxes the best stays. "nmm", greedy non-max merging, keeps the box that
            encloses them instead.
        metric: measure of overlap: "iou", or "ios", the intersection over the smaller box.
        threshold: the largest overlap that two boxes of one class may have.
    """

    method: MergeMethod = "seams"
    metric: Metric = "iou"
    threshold: float = 0.6


def merge_tiles(
    detections: Sequence[Detections],
    tiles_xyxy: ArrayLike,
    rule: MergeRule = MergeRule(),
    max_det: int | None = None,
    agnostic: bool = False,
) -> Detections:
    """Merge the detections of overlapping tiles of one image; the full image may be one of the tiles.

    Args:
        detections: of each tile, in its pixels.
        tiles_xyxy: (T, 4) left, top, right, bottom of each tile in pixels of the image.
        rule: how.
        max_det: largest number of detections kept in the image; None is all.
        agnostic: let boxes of different classes belong to one object.

    Returns:
        Detections in pixels of the image, best first.

    Raises:
        ValueError: the numbers of tiles and of their detections differ.
    """
    sides = np.asarray(tiles_xyxy, np.float32).reshape(-1, 4)
    if len(detections) != len(sides):
        raise ValueError(f"detections of {len(detections)} tiles, but {len(sides)} tiles")
    rows, tile = _on_image(detections, sides)
    if rule.method == "seams":
        rows = _without_fragments(rows, tile, sides, rule, agnostic)
    boxes = _apart(rows, agnostic)
    if rule.method == "nmm":
        return Detections.from_array(_merge_greedily(rows, boxes, rule)[:max_det])
    return Detections.from_array(rows[suppress_scattered(boxes, rule.threshold, max_det, rule.metric)])


def _on_image(detections: Sequence[Detections], sides: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n, 6) x1, y1, x2, y2 in pixels of the image, score, class, best first, and the tile of each."""
    parts = [one.to_array() for one in detections]
    rows = np.concatenate([np.zeros((0, 6), np.float32), *parts])
    tile = np.repeat(np.arange(len(sides)), [len(part) for part in parts])
    rows[:, :4] += np.tile(sides[:, :2], 2)[tile]
    order = np.argsort(-rows[:, 4], kind="stable")
    return rows[order], tile[order]


def _apart(rows: NDArray[Any], agnostic: bool) -> NDArray[Any]:
    """(n, 4) boxes whose classes do not overlap."""
    return rows[:, :4] if agnostic else spread_classes(rows[:, :4], rows[:, 5])


def _without_fragments(
    rows: NDArray[Any], tile: NDArray[Any], sides: NDArray[Any], rule: MergeRule, agnostic: bool
) -> NDArray[np.float32]:
    """Return whole objects, and the fragments that no other box explains, best first."""
    cut = cut_sides(rows[:, :4], sides, tile)
    boxes, is_fragment = _apart(rows, agnostic), cut.any(1)
    whole = np.flatnonzero(~is_fragment)
    whole = whole[suppress_scattered(boxes[whole], rule.threshold, metric=rule.metric)]
    fragments = np.flatnonzero(is_fragment)
    fragments = fragments[~covered(boxes[fragments], rows[fragments, 4], boxes[whole], rows[whole, 4])]

    classes = np.zeros(len(fragments)) if agnostic else rows[fragments, 5]
    labels = group_fragments(rows[fragments, :4], cut[fragments], sides, tile[fragments], classes)
    joined = _enclosing_boxes(rows[fragments], labels)
    still_cut = cut_enclosing_boxes(rows[fragments, :4], cut[fragments], joined[:, :4], labels, sides)
    joined = joined[~_inside_larger(joined, still_cut, agnostic)]
    merged = np.concatenate((rows[whole], joined))
    return merged[np.argsort(-merged[:, 4], kind="stable")]


def _inside_larger(rows: NDArray[Any], fragment: NDArray[Any], agnostic: bool) -> NDArray[np.bool_]:
    """(n,) whether a box is a fragment and lies in a larger box."""
    boxes, drop = _apart(rows, agnostic), np.zeros(len(rows), bool)
    drop[fragment] = covered(boxes[fragment], rows[fragment, 4], boxes, rows[:, 4], larger=True)
    return drop


def _enclosing_boxes(rows: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """The box that encloses the rows of each label 0, 1, ..., with score and class of the first, its best."""
    _, first = np.unique(labels, return_index=True)
    enclosing = rows[first].copy()
    for column, reduce in ((0, np.minimum), (1, np.minimum), (2, np.maximum), (3, np.maximum)):
        reduce.at(enclosing[:, column], labels, rows[:, column])
    return enclosing


def _merge_greedily(rows: NDArray[Any], boxes: NDArray[Any], rule: MergeRule) -> NDArray[np.float32]:
    """Put a box around each best box and all those left that overlap it too much; rows best first."""
    labels = np.arange(len(rows))  # of each box, the one that it is merged into
    free = np.ones(len(rows), bool)
    for i, later in later_neighbors(boxes, rule.threshold, rule.metric).items():
        if free[i]:
            taken = later[free[later]]
            labels[taken], free[taken] = i, False
    return _enclosing_boxes(rows, np.unique(labels, return_inverse=True)[1])
