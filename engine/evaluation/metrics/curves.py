"""Precision, recall and F1 over confidence, their values where F1 is best, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.matching import Matching, match

POINTS = 1001  # confidences 0, .001, ... 1


@dataclass(frozen=True)
class ConfidenceCurves:
    """Precision and recall of the detections of at least some confidence; K classes, P confidences.

    A class without objects has NaN. Precision is 1 where no detections are left.
    """

    confidence: NDArray[np.float64]  # (P,)
    precision: NDArray[np.float64]  # (K, P)
    recall: NDArray[np.float64]  # (K, P)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K, P) harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total != 0)

    def mean(self, curve: NDArray[Any]) -> NDArray[np.float64]:
        """(K, P) -> (P,) mean of the classes with objects; zeros where there are none."""
        there = ~np.isnan(self.recall[:, 0])
        return curve[there].mean(0) if there.any() else np.zeros(curve.shape[1])

    @property
    def best_confidence(self) -> float:
        """The confidence of the largest mean F1."""
        return float(self.confidence[self.mean(self.f1).argmax()])


def confidence_curves(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, matching: Matching, num_classes: int
) -> ConfidenceCurves:
    """Count true and false positives of each class over a grid of confidences.

    Args:
        ground_truth: the objects.
        detections: of the same images, at any confidence.
        matching: of these detections, by class.
        num_classes: of the data set.
    """
    confidence = np.linspace(0, 1, POINTS)
    precision = np.full((num_classes, POINTS), np.nan)
    recall = np.full((num_classes, POINTS), np.nan)
    objects = np.bincount(ground_truth.classes[~ground_truth.crowd], minlength=num_classes)
    counted = ~matching.ignored
    for k in np.flatnonzero(objects):
        of_class = counted & (detections.classes == k)
        scores, right = detections.scores[of_class], matching.matched_object[of_class] >= 0
        kept = _at_least(scores, confidence)
        true_positives = _at_least(scores[right], confidence)
        precision[k] = np.where(kept > 0, true_positives / np.maximum(kept, 1), 1.0)
        recall[k] = true_positives / objects[k]
    return ConfidenceCurves(confidence, precision, recall)


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 at the confidence where F1, averaged over the classes, is best.

    The same as YOLOv5's P and R: an IoU of .5, one confidence for all classes, overall values that are means
    over the classes with objects, and a precision of 0 for a class without any detections. Different:
    detections are matched by COCO's rules, so that crowds and regions to ignore excuse them, and the mean F1
    is not smoothed before its maximum is taken (YOLOv5 smooths it over a tenth of the confidences).

    Attributes:
        confidence: from which detections are kept; None where no class has objects.
        precision: (K,) of each class; NaN without objects.
        recall: (K,) of each class; NaN without objects.
        f1: (K,) of each class; NaN without objects.
    """

    confidence: float | None
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def values(self, k: int | None = None) -> dict[str, float | None]:
        """Return "P", "R" and "F1" of class `k` or their means over the classes; None without objects."""
        classes = slice(None) if k is None else slice(k, k + 1)
        columns = {"P": self.precision[classes], "R": self.recall[classes], "F1": self.f1[classes]}
        return {
            key: None if np.isnan(column).all() else float(np.nanmean(column))
            for key, column in columns.items()
        }


def operating_point(curves: ConfidenceCurves) -> OperatingPoint:
    """Read precision, recall and F1 off the curves at `best_confidence`."""
    without_detections = (curves.recall[:, 0] == 0) & (curves.precision[:, 0] == 1)
    at = int(curves.mean(curves.f1).argmax())
    return OperatingPoint(
        None if np.isnan(curves.recall).all() else curves.best_confidence,
        np.where(without_detections, 0.0, curves.precision[:, at]),
        curves.recall[:, at],
        curves.f1[:, at],
    )


def _at_least(scores: NDArray[Any], limits: NDArray[Any]) -> NDArray[np.int64]:
    """(P,) number of scores that reach each limit."""
    return len(scores) - np.searchsorted(np.sort(scores), limits, side="left")


def confusion_matrix(
    ground_truth: GroundTruthColumns,
    detections: DetectionColumns,
    num_classes: int,
    conf_thres: float,
    iou_thres: float = 0.5,
) -> NDArray[np.int64]:
    """Count predicted and true classes: (K + 1, K + 1), predicted class by true class, background last.

    Detections of at least `conf_thres` are matched to objects of any class. Unmatched detections are false
    positives (last column), unmatched objects are missed (last row). Crowds do not count.
    """
    detections = detections.select(detections.scores >= conf_thres)
    matching = match(ground_truth, detections, iou_thres, by_class=False)
    is_matched = matching.matched_object >= 0
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    true_class = np.where(
        is_matched, np.append(ground_truth.classes, num_classes)[matching.matched_object], num_classes
    )
    np.add.at(counts, (detections.classes[~matching.ignored], true_class[~matching.ignored]), 1)
    missed = ~ground_truth.crowd
    missed[matching.matched_object[is_matched]] = False
    counts[num_classes, :num_classes] = np.bincount(ground_truth.classes[missed], minlength=num_classes)
    return counts
