"""Overlap of boxes as NumPy arrays, and greedy suppression built on it. Boxes are corners, (n, 4) xyxy.

The evaluation and the merging of tiles stand on this file, so that neither needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # candidates compared at once in `suppress`: small enough for the cache


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


def iou_matrix(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[Any]:
    """IoU of every pair: (N, 4) and (M, 4) -> (N, M); 0 where both boxes are empty."""
    inter = intersections(a_xyxy, b_xyxy)
    union = areas(a_xyxy)[:, None] + areas(b_xyxy)[None]
    union -= inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def coverage_matrix(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[Any]:
    """Share of each box of `a` that lies inside each of `b`: (N, 4) and (M, 4) -> (N, M)."""
    inter, area = intersections(a_xyxy, b_xyxy), areas(a_xyxy)[:, None]
    return np.divide(inter, area, out=np.zeros_like(inter), where=area > 0)


def suppress(
    boxes_xyxy: NDArray[Any],
    iou_thres: float,
    max_keep: int | None = None,
    block: int = BLOCK,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of boxes in descending order of score.

    A box survives unless its IoU with an earlier survivor exceeds `iou_thres`. Boxes are taken in blocks:
    against the survivors so far, then among themselves; the search ends at `max_keep` survivors, which at low
    confidence is long before the last candidate.

    Args:
        boxes_xyxy: (n, 4), best score first.
        iou_thres: the largest overlap two survivors may have.
        max_keep: how many to keep at most; None is all.
        block: candidates per step; the result does not depend on it.

    Returns:
        Positions of the survivors, ascending.
    """
    limit = len(boxes_xyxy) if max_keep is None else max_keep
    kept = np.empty(min(limit, len(boxes_xyxy)), np.int64)
    count = 0
    for start in range(0, len(boxes_xyxy), block):
        if count >= limit:
            break
        rows = np.arange(start, min(start + block, len(boxes_xyxy)))
        if count:
            hit = _overlapping(boxes_xyxy[rows], boxes_xyxy[kept[:count]], iou_thres)
            rows = rows[~hit.any(1)]
        clash = _overlapping(boxes_xyxy[rows], boxes_xyxy[rows], iou_thres)
        alive = np.ones(len(rows), bool)
        for i in range(len(rows)):
            if alive[i]:
                alive[i + 1 :] &= ~clash[i, i + 1 :]
        rows = rows[alive][: limit - count]
        kept[count : count + len(rows)] = rows
        count += len(rows)
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

    float64, because an offset of many images' width would blur small boxes in float32.
    """
    spread = boxes_xyxy.astype(np.float64)
    if len(spread):
        extent = spread[:, [0, 2]].max() - spread[:, [0, 2]].min() + 1
        spread[:, [0, 2]] += (classes * extent)[:, None]
    return spread
