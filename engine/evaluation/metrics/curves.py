"""Precision, recall and F1 over confidence, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.matching import Matching, match

POINTS = 1001  # confidences 0, .001, ... 1


@dataclass(frozen=True)
class ConfidenceCurves:
    """What a user gets who keeps detections of at least some confidence; K classes, P confidences.

    A class without objects has NaN. Precision is 1 where nothing is kept.
    """

    confidence: NDArray[np.float64]  # (P,)
    precision: NDArray[np.float64]  # (K, P)
    recall: NDArray[np.float64]  # (K, P)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K, P) harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total != 0)

    def mean(self, curve: NDArray) -> NDArray[np.float64]:
        """(K, P) -> (P,) mean of the classes that have objects; zeros where none has."""
        there = ~np.isnan(self.recall[:, 0])
        return curve[there].mean(0) if there.any() else np.zeros(curve.shape[1])

    @property
    def best_confidence(self) -> float:
        """The confidence of the largest mean F1."""
        return float(self.confidence[self.mean(self.f1).argmax()])


def confidence_curves(
    truth: GroundTruthColumns, detections: DetectionColumns, matching: Matching, num_classes: int
) -> ConfidenceCurves:
    """Count true and false positives over a grid of confidences, class by class."""
    confidence = np.linspace(0, 1, POINTS)
    precision = np.full((num_classes, POINTS), np.nan)
    recall = np.full((num_classes, POINTS), np.nan)
    objects = np.bincount(truth.classes[~truth.crowd], minlength=num_classes)
    counted = ~matching.ignored
    for k in np.flatnonzero(objects):
        mine = counted & (detections.classes == k)
        scores, right = detections.scores[mine], matching.truth[mine] >= 0
        kept = _at_least(scores, confidence)
        true_positives = _at_least(scores[right], confidence)
        precision[k] = np.where(kept > 0, true_positives / np.maximum(kept, 1), 1.0)
        recall[k] = true_positives / objects[k]
    return ConfidenceCurves(confidence, precision, recall)


def _at_least(scores: NDArray, limits: NDArray) -> NDArray[np.int64]:
    """(P,) how many scores reach each limit."""
    return len(scores) - np.searchsorted(np.sort(scores), limits, side="left")


def confusion_matrix(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    num_classes: int,
    conf_thres: float,
    iou_thres: float = 0.5,
) -> NDArray[np.int64]:
    """Count pairs of predicted and true class: (K + 1, K + 1), row predicted, column true, last background.

    DetectionColumns of at least `conf_thres` are paired with objects whatever their classes; what stays alone
    counts as false positive (last column) or missed (last row). Crowds count nowhere.
    """
    detections = detections.select(detections.scores >= conf_thres)
    matching = match(truth, detections, iou_thres, by_class=False)
    paired = matching.truth >= 0
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    true_class = np.where(paired, np.append(truth.classes, num_classes)[matching.truth], num_classes)
    np.add.at(counts, (detections.classes[~matching.ignored], true_class[~matching.ignored]), 1)
    missed = ~truth.crowd
    missed[matching.truth[paired]] = False
    counts[num_classes, :num_classes] = np.bincount(truth.classes[missed], minlength=num_classes)
    return counts
