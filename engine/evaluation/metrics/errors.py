"""Errors: each false detection and each missed object gets one cause.

Bolya et al., ECCV 2020, arXiv:2008.08115 (TIDE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.matching import Matching, iou_of, match

RIGHT, LOCALIZATION, CLASSIFICATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)
KINDS = {
    LOCALIZATION: "localization",
    CLASSIFICATION: "classification",
    BOTH: "both",
    DUPLICATE: "duplicate",
    BACKGROUND: "background",
}
POSITIVE_IOU, BACKGROUND_IOU = 0.5, 0.1


@dataclass(frozen=True)
class Errors:
    """The cause of every false detection, and the objects that are missed.

    Attributes:
        kind: (m,) of each detection: RIGHT; LOCALIZATION, its IoU with an object of its class is .1 to .5;
            CLASSIFICATION, it lies on an object of another class; DUPLICATE, a better detection matches its
            object; BOTH, place and class are wrong; BACKGROUND, there is no object; IGNORED, it lies in a
            crowd.
        near: (m,) number of the object that the error is about, -1 for background and ignored.
        detected: (n,) objects that a detection matches.
        missed: (n,) objects that are neither detected nor explain a localization or classification error.
    """

    kind: NDArray[np.int64]
    near: NDArray[np.int64]
    detected: NDArray[np.bool_]
    missed: NDArray[np.bool_]


def find_errors(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, matching: Matching | None = None
) -> Errors:
    """Find the cause of each false detection, at an IoU of .5.

    Args:
        ground_truth: the objects.
        detections: those of at least the working confidence.
        matching: of these detections at IoU .5, by class, if it is known.
    """
    matching = matching or match(ground_truth, detections, POSITIVE_IOU)
    detected = np.zeros(len(ground_truth.image), bool)
    detected[matching.matched_object[matching.matched_object >= 0]] = True
    kind = np.where(matching.matched_object >= 0, RIGHT, np.where(matching.ignored, IGNORED, BACKGROUND))
    near = matching.matched_object.copy()
    single = np.flatnonzero(~ground_truth.crowd)
    ground_truth_order = single[np.argsort(ground_truth.image[single], kind="stable")]
    wrong = np.flatnonzero(kind == BACKGROUND)
    wrong = wrong[np.argsort(detections.image[wrong], kind="stable")]
    images = np.unique(detections.image[wrong])
    bounds = zip(
        *(np.searchsorted(ground_truth.image[ground_truth_order], images + step) for step in (0, 1)),
        *(np.searchsorted(detections.image[wrong], images + step) for step in (0, 1)),
        strict=True,
    )
    for first, last, low, high in bounds:
        objects, rows = ground_truth_order[first:last], wrong[low:high]
        if len(objects):
            iou = iou_of(detections, rows, ground_truth, objects)
            same = detections.classes[rows, None] == ground_truth.classes[objects]
            kind[rows], column = _kinds(iou, same)
            near[rows] = np.where(column >= 0, objects[column], -1)
    explained = near[(kind == LOCALIZATION) | (kind == CLASSIFICATION)]
    missed = ~detected & ~ground_truth.crowd
    missed[explained] = False
    return Errors(kind, near, detected, missed)


def _kinds(iou: NDArray[Any], same: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m, n) IoU, equal classes -> (m,) kind and column of the object: TIDE's first case that applies."""
    cases = (
        (LOCALIZATION, same, BACKGROUND_IOU, POSITIVE_IOU),
        (CLASSIFICATION, ~same, POSITIVE_IOU, 1.0),
        (DUPLICATE, same, POSITIVE_IOU, 1.0),
        (BOTH, np.ones_like(same), BACKGROUND_IOU, 1.0),
    )
    kind, near = np.full(len(iou), BACKGROUND), np.full(len(iou), -1)
    for number, allowed, low, high in cases:
        overlap = np.where(allowed, iou, -1.0)
        column = overlap.argmax(1)
        best = overlap[np.arange(len(iou)), column]
        hit = (kind == BACKGROUND) & (best >= low) & (best <= high)
        kind[hit], near[hit] = number, column[hit]
    return kind, near
