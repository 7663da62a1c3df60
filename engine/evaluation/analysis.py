"""What stands behind the numbers: working confidence, errors, curves over confidence and over size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.evaluator import ScoringResult
from engine.evaluation.metrics import (
    ConfidenceCurves,
    DetectionColumns,
    Errors,
    Matching,
    SizeCurves,
    confidence_curves,
    confusion_matrix,
    find_errors,
    match,
    size_curves,
)

IOU = 0.5  # from which a detection has found an object, in everything here


@dataclass(frozen=True)
class Analysis:
    """Of the detections of some images; `working` are those of at least the working confidence."""

    scored: ScoringResult
    curves: ConfidenceCurves
    confidence: float  # where the mean F1 of the classes is best
    working: DetectionColumns
    errors: Errors  # of `working`
    confusion: NDArray[np.int64]  # of `working`
    sizes: SizeCurves


def analyze(scored: ScoringResult) -> Analysis:
    """Look at detections from every side."""
    truth, detections = scored.truth, scored.detections
    num_classes = len(scored.metrics.names)
    matching = match(truth, detections, IOU)
    curves = confidence_curves(truth, detections, matching, num_classes)
    confidence = curves.best_confidence
    kept = detections.scores >= confidence
    working = detections.select(kept)
    # best scores choose first, so that leaving out the lower ones changes nothing for the others
    errors = find_errors(truth, working, Matching(matching.truth[kept], matching.ignored[kept]))
    return Analysis(
        scored,
        curves,
        confidence,
        working,
        errors,
        confusion_matrix(truth, detections, num_classes, confidence, IOU),
        size_curves(truth, detections, num_classes, scored.metrics.protocol, working, errors),
    )
