"""Merging: from the detections of overlapping tiles to those of the full image, one box per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    merged, tile = _on_image(detections, sides)
    if rule.method == "seams":
        merged = _without_fragments(merged, tile, sides, rule, agnostic)
    boxes = _apart(merged, agnostic)
    if rule.method == "nmm":
        return _merge_greedily(merged, boxes, rule)[:max_det]
    return merged[suppress_scattered(boxes, rule.threshold, max_det, rule.metric)]


def _on_image(detections: Sequence[Detections], sides: NDArray[Any]) -> tuple[Detections, NDArray[np.int64]]:
    """Return the detections of all tiles in pixels of the image, best first, and the (n,) tile of each."""
    together = Detections.concatenated(detections)
    tile = np.repeat(np.arange(len(sides)), [len(one) for one in detections])
    together = replace(together, xyxy=together.xyxy + np.tile(sides[:, :2], 2)[tile])
    order = _best_first(together)
    return together[order], tile[order]


def _best_first(detections: Detections) -> NDArray[np.intp]:
    return np.argsort(-detections.scores, kind="stable")


def _apart(detections: Detections, agnostic: bool) -> NDArray[Any]:
    """(n, 4) boxes whose classes do not overlap."""
    return detections.xyxy if agnostic else spread_classes(detections.xyxy, detections.class_ids)


def _without_fragments(
    detections: Detections, tile: NDArray[Any], sides: NDArray[Any], rule: MergeRule, agnostic: bool
) -> Detections:
    """Return whole objects, and the fragments that no other box explains, best first."""
    cut = cut_sides(detections.xyxy, sides, tile)
    boxes, scores, is_fragment = _apart(detections, agnostic), detections.scores, cut.any(1)
    whole = np.flatnonzero(~is_fragment)
    whole = whole[suppress_scattered(boxes[whole], rule.threshold, metric=rule.metric)]
    fragments = np.flatnonzero(is_fragment)
    fragments = fragments[~covered(boxes[fragments], scores[fragments], boxes[whole], scores[whole])]

    xyxy, cut, tile = detections.xyxy[fragments], cut[fragments], tile[fragments]
    classes = np.zeros(len(fragments)) if agnostic else detections.class_ids[fragments]
    labels = group_fragments(xyxy, cut, sides, tile, classes)
    joined = _enclosing_boxes(detections[fragments], labels)
    still_cut = cut_enclosing_boxes(xyxy, cut, joined.xyxy, labels, sides)
    joined = joined[~_inside_larger(joined, still_cut, agnostic)]
    merged = Detections.concatenated([detections[whole], joined])
    return merged[_best_first(merged)]


def _inside_larger(
    detections: Detections, is_fragment: NDArray[np.bool_], agnostic: bool
) -> NDArray[np.bool_]:
    """(n,) whether a box is a fragment and lies in a larger box."""
    boxes, scores, drop = _apart(detections, agnostic), detections.scores, np.zeros(len(detections), bool)
    drop[is_fragment] = covered(boxes[is_fragment], scores[is_fragment], boxes, scores, larger=True)
    return drop


def _enclosing_boxes(detections: Detections, labels: NDArray[Any]) -> Detections:
    """Return, for each label 0, 1, ..., the box around all that have it, else as the first, its best."""
    _, first = np.unique(labels, return_index=True)
    enclosing = detections[first]
    xyxy = enclosing.xyxy.copy()
    np.minimum.at(xyxy[:, :2], labels, detections.xyxy[:, :2])
    np.maximum.at(xyxy[:, 2:], labels, detections.xyxy[:, 2:])
    return replace(enclosing, xyxy=xyxy)


def _merge_greedily(detections: Detections, boxes: NDArray[Any], rule: MergeRule) -> Detections:
    """Put a box around each best box and all those left that overlap it too much; the best come first."""
    labels = np.arange(len(detections))  # of each box, the one that it is merged into
    free = np.ones(len(detections), bool)
    for i, later in later_neighbors(boxes, rule.threshold, rule.metric).items():
        if free[i]:
            taken = later[free[later]]
            labels[taken], free[taken] = i, False
    return _enclosing_boxes(detections, np.unique(labels, return_inverse=True)[1])
