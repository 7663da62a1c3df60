"""What went wrong: each false detection and each missed object gets one cause.

Bolya et al., ECCV 2020, arXiv:2008.08115 (TIDE).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.matching import Matching, match
from utils.overlap import iou_matrix

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
    """The cause of every false detection, and the objects that none of them explains.

    Attributes:
        kind: (m,) of each detection: RIGHT; LOCALIZATION, an object of its class is near (IoU from .1 to .5);
            CLASSIFICATION, an object of another class is there; DUPLICATE, a better one found its object;
            BOTH, place and class are wrong; BACKGROUND, nothing is there; IGNORED, in a crowd.
        near: (m,) number of the object that the kind is about, -1 for background and ignored.
        found: (n,) objects that a detection found.
        missed: (n,) objects neither found nor the subject of a localization or classification error.
    """

    kind: NDArray[np.int64]
    near: NDArray[np.int64]
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]


def find_errors(
    truth: GroundTruthColumns, detections: DetectionColumns, matching: Matching | None = None
) -> Errors:
    """Classify what is false at an IoU of .5.

    Args:
        truth: the objects.
        detections: those that are kept, of at least the working confidence.
        matching: at IoU .5, class by class, if it is known.
    """
    matching = matching or match(truth, detections, POSITIVE_IOU)
    found = np.zeros(len(truth.image), bool)
    found[matching.truth[matching.truth >= 0]] = True
    kind = np.where(matching.truth >= 0, RIGHT, np.where(matching.ignored, IGNORED, BACKGROUND))
    near = matching.truth.copy()
    single = np.flatnonzero(~truth.crowd)
    truth_order = single[np.argsort(truth.image[single], kind="stable")]
    wrong = np.flatnonzero(kind == BACKGROUND)
    wrong = wrong[np.argsort(detections.image[wrong], kind="stable")]
    images = np.unique(detections.image[wrong])
    bounds = zip(
        *(np.searchsorted(truth.image[truth_order], images + step) for step in (0, 1)),
        *(np.searchsorted(detections.image[wrong], images + step) for step in (0, 1)),
        strict=True,
    )
    for first, last, low, high in bounds:
        objects, rows = truth_order[first:last], wrong[low:high]
        if len(objects):
            iou = iou_matrix(detections.boxes_xyxy[rows], truth.boxes_xyxy[objects])  # (rows, objects)
            same = detections.classes[rows, None] == truth.classes[objects]
            kind[rows], column = _kinds(iou, same)
            near[rows] = np.where(column >= 0, objects[column], -1)
    explained = near[(kind == LOCALIZATION) | (kind == CLASSIFICATION)]
    missed = ~found & ~truth.crowd
    missed[explained] = False
    return Errors(kind, near, found, missed)


def _kinds(iou: NDArray, same: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kind and column of the object it is about, for each row: the first of TIDE's questions that holds."""
    questions = (
        (LOCALIZATION, same, BACKGROUND_IOU, POSITIVE_IOU),
        (CLASSIFICATION, ~same, POSITIVE_IOU, 1.0),
        (DUPLICATE, same, POSITIVE_IOU, 1.0),
        (BOTH, np.ones_like(same), BACKGROUND_IOU, 1.0),
    )
    kind, near = np.full(len(iou), BACKGROUND), np.full(len(iou), -1)
    for number, allowed, low, high in questions:
        overlap = np.where(allowed, iou, -1.0)
        column = overlap.argmax(1)
        best = overlap[np.arange(len(iou)), column]
        hit = (kind == BACKGROUND) & (best >= low) & (best <= high)
        kind[hit], near[hit] = number, column[hit]
    return kind, near
