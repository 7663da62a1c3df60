"""From the tiles of a picture back to the picture: shift the detections, drop cut ones, merge the doubles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.overlap import coverage_matrix, spread_classes, suppress

CUT_MARGIN = 0.01  # a box this close to an inner side of its tile, as a share of the side, may be cut by it
COVERED = 0.6  # a cut box goes when this share of it lies in a box that a tile saw whole,
TRUSTED = 0.5  # unless the whole box is less than this share as confident


def merge_tiles(
    detections: Sequence[NDArray],
    windows: NDArray | Sequence[Sequence[int]],
    iou_thres: float = 0.6,
    max_det: int | None = None,
    agnostic: bool = False,
) -> NDArray[np.float32]:
    """Merge what was found on overlapping tiles of one picture.

    Doubles go by class-wise NMS. The part of an object that a tile's side cuts off overlaps the whole object
    too little for that; it goes when a box that touches no such side, and is not much less confident,
    covers it.

    Args:
        detections: for each tile (n, 6): x1, y1, x2, y2 in pixels of the tile, confidence, class.
        windows: (T, 4) left, top, right, bottom of each tile in pixels of the picture.
        iou_thres: the largest IoU that two boxes of one class may have.
        max_det: largest number of boxes kept in the picture; None is all.
        agnostic: let boxes of different classes suppress each other.

    Returns:
        (m, 6) in pixels of the picture, best first.

    Raises:
        ValueError: the numbers of tiles and windows differ.
    """
    if len(detections) != len(windows):
        raise ValueError(f"{len(detections)} tiles of detections but {len(windows)} windows")
    sides = np.asarray(windows, np.float32).reshape(-1, 4)
    parts = [
        np.zeros((0, 6), np.float32),
        *(np.asarray(rows, np.float32).reshape(-1, 6) for rows in detections),
    ]
    rows = np.concatenate(parts)
    tile = np.repeat(np.arange(len(sides)), [len(part) for part in parts[1:]])
    rows[:, :4] += np.tile(sides[:, :2], 2)[tile]
    order = np.argsort(-rows[:, 4], kind="stable")
    rows, tile = rows[order], tile[order]

    boxes = rows[:, :4] if agnostic else spread_classes(rows[:, :4], rows[:, 5])
    cut = _may_be_cut(rows[:, :4], sides, tile)
    whole = np.flatnonzero(~cut)
    whole = whole[suppress(boxes[whole], iou_thres)]
    alive = ~cut
    alive[cut] = ~_covered(boxes[cut], rows[cut, 4], boxes[whole], rows[whole, 4])
    rows, boxes = rows[alive], boxes[alive]
    return rows[suppress(boxes, iou_thres, max_det)]


def _may_be_cut(boxes_xyxy: NDArray, sides: NDArray, tile: NDArray) -> NDArray[np.bool_]:
    """(n,) whether a box reaches a side of its tile that is not the picture's own; pixels of the picture."""
    if not len(boxes_xyxy):
        return np.zeros(0, bool)
    margin = CUT_MARGIN * (sides[:, 2:] - sides[:, :2]).max(1, keepdims=True)
    low, high = sides[:, :2], sides[:, 2:]
    low_limit = np.where(low > low.min(0), low + margin, -np.inf)
    high_limit = np.where(high < high.max(0), high - margin, np.inf)
    reaches = (boxes_xyxy[:, :2] < low_limit[tile]) | (boxes_xyxy[:, 2:] > high_limit[tile])
    return reaches.any(1)


def _covered(
    boxes_xyxy: NDArray, scores: NDArray, whole_xyxy: NDArray, whole_scores: NDArray, block: int = 1024
) -> NDArray[np.bool_]:
    """(n,) whether most of a box lies in a whole one that is confident enough."""
    covered = np.zeros(len(boxes_xyxy), bool)
    for start in range(0, len(boxes_xyxy), block):
        part = slice(start, start + block)
        inside = coverage_matrix(boxes_xyxy[part], whole_xyxy) >= COVERED
        covered[part] = (inside & (whole_scores >= TRUSTED * scores[part, None])).any(1)
    return covered
