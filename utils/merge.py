"""From the tiles of a picture back to the picture: shift the detections, merge the doubles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.overlap import spread_classes, suppress


def merge_tiles(
    detections: Sequence[NDArray],
    windows: NDArray | Sequence[Sequence[int]],
    iou_thres: float = 0.6,
    max_det: int | None = None,
    agnostic: bool = False,
) -> NDArray[np.float32]:
    """Merge what was found on overlapping tiles of one picture by class-wise NMS.

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
    shifted = [np.zeros((0, 6), np.float32)]
    for rows, window in zip(detections, windows, strict=True):
        moved = np.array(rows, np.float32).reshape(-1, 6)
        moved[:, [0, 2]] += window[0]
        moved[:, [1, 3]] += window[1]
        shifted.append(moved)
    rows = np.concatenate(shifted)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    boxes = rows[:, :4] if agnostic else spread_classes(rows[:, :4], rows[:, 5])
    return rows[suppress(boxes, iou_thres, max_det)]
