"""Matching of detections to objects by COCO's rules, at one IoU threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from utils.overlap import coverage_matrix, iou_matrix


@dataclass(frozen=True)
class Matching:
    """The object that each of the m detections matches."""

    matched_object: NDArray[np.int64]  # (m,) number of the object in the ground truth, -1 for none
    ignored: NDArray[np.bool_]  # (m,) matches no object but lies in a crowd: neither right nor wrong


def match(
    ground_truth: GroundTruthColumns,
    detections: DetectionColumns,
    iou_thres: float = 0.5,
    by_class: bool = True,
) -> Matching:
    """Match each detection, in order of falling scores, to the unmatched object that it overlaps most.

    Args:
        ground_truth: the objects.
        detections: in any order.
        iou_thres: smallest IoU of a match; for crowds, smallest share of a detection inside.
        by_class: match detections only to objects of their class.
    """
    matched = np.full(len(detections.image), -1)
    ignored = np.zeros(len(detections.image), bool)
    ground_truth_key, key = ground_truth.image, detections.image
    if by_class and len(ground_truth.image) and len(detections.image):
        num_classes = 1 + max(ground_truth.classes.max(), detections.classes.max())
        ground_truth_key = ground_truth_key * num_classes + ground_truth.classes
        key = key * num_classes + detections.classes

    ground_truth_order, order = (
        np.argsort(ground_truth_key, kind="stable"),
        np.lexsort((-detections.scores, key)),
    )
    groups, first = np.unique(ground_truth_key[ground_truth_order], return_index=True)
    last = np.append(first[1:], len(ground_truth_order))
    low, high = (np.searchsorted(key[order], groups, side) for side in ("left", "right"))
    for i in np.flatnonzero(high > low):
        objects, rows = ground_truth_order[first[i] : last[i]], order[low[i] : high[i]]
        crowd = ground_truth.crowd[objects]
        single, crowds = objects[~crowd], objects[crowd]
        picked = _assign(iou_of(detections, rows, ground_truth, single), iou_thres)
        matched[rows] = np.where(picked >= 0, np.append(single, -1)[picked], -1)
        if len(crowds):
            boxes, areas = detections.boxes_xyxy[rows], detections.boxes_xywh[rows, 2:].prod(1)
            share = coverage_matrix(boxes, ground_truth.boxes_xyxy[crowds], areas).max(1)
            ignored[rows] = (share >= iou_thres) & (picked < 0)
    return Matching(matched, ignored)


def iou_of(
    detections: DetectionColumns, rows: NDArray[Any], ground_truth: GroundTruthColumns, objects: NDArray[Any]
) -> NDArray[np.float64]:
    """(m,) detections and (n,) objects by number -> (m, n) IoU with pycocotools' digits."""
    return iou_matrix(
        detections.boxes_xyxy[rows],
        ground_truth.boxes_xyxy[objects],
        detections.boxes_xywh[rows, 2:].prod(1),
        ground_truth.boxes_xywh[objects, 2:].prod(1),
    )


def _assign(iou: NDArray[Any], iou_thres: float) -> NDArray[np.int64]:
    """(detections, objects) IoU, best score first -> column of each detection's object, -1 for none."""
    picked = np.full(len(iou), -1)
    if not iou.size:
        return picked
    iou = np.where(iou >= min(iou_thres, 1 - 1e-10), iou, -1.0)
    for row in np.flatnonzero(iou.max(1) >= 0):
        column = iou.shape[1] - 1 - iou[row, ::-1].argmax()  # the last of equals, as in pycocotools
        if iou[row, column] >= 0:
            picked[row] = column
            iou[:, column] = -1
    return picked
