"""Analysis of detections at the working confidence: errors, confusion, accuracy over object size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.evaluator import MATCH_IOU, ScoringResult
from engine.evaluation.metrics import (
    ConfidenceCurves,
    DetectionColumns,
    Errors,
    Matching,
    SizeCurves,
    confusion_matrix,
    find_errors,
    size_curves,
)


@dataclass(frozen=True)
class Analysis:
    """Analysis of the detections of some images."""

    scored: ScoringResult
    curves: ConfidenceCurves
    confidence: float  # the working confidence, where the mean F1 of the classes is best
    working: DetectionColumns  # detections of at least that
    errors: Errors  # of `working`
    confusion: NDArray[np.int64]  # of `working`
    sizes: SizeCurves


def analyze(scored: ScoringResult) -> Analysis:
    """Find errors, confusions and the accuracy over size of scored detections."""
    ground_truth, detections = scored.ground_truth, scored.detections
    num_classes = len(scored.metrics.names)
    matching, curves = scored.matching, scored.curves
    confidence = curves.best_confidence
    kept = detections.scores >= confidence
    working = detections.select(kept)
    # detections match in order of their scores, so that those of lower scores change nothing for the others
    errors = find_errors(
        ground_truth, working, Matching(matching.matched_object[kept], matching.ignored[kept])
    )
    return Analysis(
        scored,
        curves,
        confidence,
        working,
        errors,
        confusion_matrix(ground_truth, detections, num_classes, confidence, MATCH_IOU),
        size_curves(ground_truth, detections, num_classes, scored.metrics.protocol, working, errors),
    )
