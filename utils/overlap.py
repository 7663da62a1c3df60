"""Overlap of boxes as NumPy arrays, and greedy suppression. Boxes are corners, (n, 4) xyxy.

`xywh` is left, top, width, height, as in COCO's files. Evaluation and merging of tiles use this file, so
neither needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # candidates that `suppress` compares at once: few enough for the processor's cache


def xywh_of(boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
    """Corners -> left, top, width, height: (n, 4) -> (n, 4)."""
    return np.concatenate((boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]), 1)


def xyxy_of(boxes_xywh: NDArray[Any]) -> NDArray[Any]:
    """Left, top, width, height -> corners: (n, 4) -> (n, 4)."""
    return np.concatenate((boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]), 1)


def intersections(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[Any]:
    """Area shared by every pair: (N, 4) and (M, 4) -> (N, M)."""
    a_left, a_top, a_right, a_bottom = a_xyxy.T[:, :, None]
    b_left, b_top, b_right, b_bottom = b_xyxy.T[:, None, :]
    width = np.minimum(a_right, b_right)
    width -= np.maximum(a_left, b_left)
    height = np.minimum(a_bottom, b_bottom)
    height -= np.maximum(a_top, b_top)
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    return width


def areas(boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
    """(n, 4) -> (n,)."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def iou_matrix(
    a_xyxy: NDArray[Any],
    b_xyxy: NDArray[Any],
    a_areas: NDArray[Any] | None = None,
    b_areas: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """IoU of every pair: (N, 4) and (M, 4) -> (N, M); 0 where both boxes are empty.

    Areas (N,) and (M,) may be given where corners would not give back all their digits.
    """
    inter = intersections(a_xyxy, b_xyxy)
    a_areas = areas(a_xyxy) if a_areas is None else a_areas
    b_areas = areas(b_xyxy) if b_areas is None else b_areas
    union = a_areas[:, None] + b_areas[None]
    union -= inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def coverage_matrix(
    a_xyxy: NDArray[Any], b_xyxy: NDArray[Any], a_areas: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Share of each box of `a` that lies inside each of `b`: (N, 4) and (M, 4) -> (N, M).

    Areas (N,) as for `iou_matrix`.
    """
    area = (areas(a_xyxy) if a_areas is None else a_areas)[:, None]
    inter = intersections(a_xyxy, b_xyxy)
    return np.divide(inter, area, out=np.zeros_like(inter), where=area > 0)


def suppress(
    boxes_xyxy: NDArray[Any],
    iou_thres: float,
    max_keep: int | None = None,
    block: int = BLOCK,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of boxes in descending order of score.

    A box is kept unless its IoU with one kept before exceeds `iou_thres`. Boxes are compared in blocks: with
    those kept so far, then among themselves. The search ends when `max_keep` boxes are kept, which at a low
    confidence threshold is long before the last candidate.

    Args:
        boxes_xyxy: (n, 4), best score first.
        iou_thres: the largest IoU of two boxes that are kept.
        max_keep: the most boxes to keep; None is all.
        block: candidates per step; the result does not depend on it.

    Returns:
        Indices of the boxes kept, ascending.
    """
    limit = len(boxes_xyxy) if max_keep is None else max_keep
    kept = np.empty(min(limit, len(boxes_xyxy)), np.int64)
    count = 0
    for start in range(0, len(boxes_xyxy), block):
        if count >= limit:
            break
        candidates = np.arange(start, min(start + block, len(boxes_xyxy)))
        if count:
            overlapping = _overlapping(boxes_xyxy[candidates], boxes_xyxy[kept[:count]], iou_thres)
            candidates = candidates[~overlapping.any(1)]
        overlapping = _overlapping(boxes_xyxy[candidates], boxes_xyxy[candidates], iou_thres)
        alive = np.ones(len(candidates), bool)
        for i in range(len(candidates)):
            if alive[i]:
                alive[i + 1 :] &= ~overlapping[i, i + 1 :]
        candidates = candidates[alive][: limit - count]
        kept[count : count + len(candidates)] = candidates
        count += len(candidates)
    return kept[:count]


def _overlapping(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Overlap > threshold for every pair, (N, M), without a division."""
    inter = intersections(a_xyxy, b_xyxy)
    a_area, b_area = areas(a_xyxy)[:, None], areas(b_xyxy)[None]
    union = a_area + b_area
    union -= inter
    union *= threshold
    return inter > union


def spread_classes(boxes_xyxy: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Move each class to a strip of its own, (n, 4) -> (n, 4) float64, so that classes never overlap.

    The result is float64: in float32, an offset of many image widths would round small boxes coarsely.
    """
    spread = boxes_xyxy.astype(np.float64)
    if len(spread):
        extent = spread[:, [0, 2]].max() - spread[:, [0, 2]].min() + 1
        spread[:, [0, 2]] += (classes * extent)[:, None]
    return spread
