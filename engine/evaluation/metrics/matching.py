"""Which detection found which object, by COCO's rules, at one IoU threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from utils.overlap import coverage_matrix, iou_matrix


@dataclass(frozen=True)
class Matching:
    """What became of each of the m detections."""

    truth: NDArray[np.int64]  # (m,) number of the object it found, -1 for none
    ignored: NDArray[np.bool_]  # (m,) found none but lies in a crowd: neither right nor wrong


def match(
    truth: GroundTruthColumns, detections: DetectionColumns, iou_thres: float = 0.5, by_class: bool = True
) -> Matching:
    """Give each detection, best score first, the free object it overlaps most.

    Args:
        truth: the objects.
        detections: what was found, in any order.
        iou_thres: smallest IoU of a pair; in a crowd, the share of the detection inside the crowd's box.
        by_class: pair equal classes only.
    """
    found = np.full(len(detections.image), -1)
    ignored = np.zeros(len(detections.image), bool)
    truth_key, key = truth.image, detections.image
    if by_class and len(truth.image) and len(detections.image):
        num_classes = 1 + max(truth.classes.max(), detections.classes.max())
        truth_key = truth_key * num_classes + truth.classes
        key = key * num_classes + detections.classes

    truth_order, order = np.argsort(truth_key, kind="stable"), np.lexsort((-detections.scores, key))
    groups, first = np.unique(truth_key[truth_order], return_index=True)
    last = np.append(first[1:], len(truth_order))
    low, high = (np.searchsorted(key[order], groups, side) for side in ("left", "right"))
    for i in np.flatnonzero(high > low):
        objects, rows = truth_order[first[i] : last[i]], order[low[i] : high[i]]
        crowd = truth.crowd[objects]
        single, crowds = objects[~crowd], objects[crowd]
        boxes = detections.boxes_xyxy[rows]
        picked = _assign(iou_matrix(boxes, truth.boxes_xyxy[single]), iou_thres)
        found[rows] = np.where(picked >= 0, np.append(single, -1)[picked], -1)
        if len(crowds):
            inside = coverage_matrix(boxes, truth.boxes_xyxy[crowds]).max(1) >= iou_thres
            ignored[rows] = inside & (picked < 0)
    return Matching(found, ignored)


def _assign(iou: NDArray, iou_thres: float) -> NDArray[np.int64]:
    """(detections best first, objects) IoU -> column of each detection's object, -1 for none."""
    picked = np.full(len(iou), -1)
    if not iou.size:
        return picked
    iou = np.where(iou >= min(iou_thres, 1 - 1e-10), iou, -1.0)
    for row in np.flatnonzero(iou.max(1) >= 0):
        column = iou.shape[1] - 1 - iou[row, ::-1].argmax()  # of equals the last, as pycocotools
        if iou[row, column] >= 0:
            picked[row] = column
            iou[:, column] = -1
    return picked
