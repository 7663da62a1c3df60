"""Matching at one IoU, curves over confidence, their values where F1 is best, confusion."""

import numpy as np
import pytest

from engine.evaluation.metrics import (
    DetectionColumns,
    GroundTruthColumns,
    confidence_curves,
    confusion_matrix,
    evaluate_detections,
    match,
    operating_point,
)
from tests.detection_cases import NAMES, box, one_image, random_case


@pytest.mark.parametrize("seed", range(4))
def test_matching_gives_the_precision_of_pycocotools(seed):
    ground_truth, detections = random_case(seed)
    metrics = evaluate_detections(ground_truth, detections, NAMES, max_dets=[10_000], evaluator="pycocotools")
    matching = match(ground_truth, detections, 0.5)
    for k in range(3):
        mine = (detections.classes == k) & ~matching.ignored
        order = np.flatnonzero(mine)[np.argsort(-detections.scores[mine], kind="stable")]
        right = np.cumsum(matching.matched_object[order] >= 0)
        recall = right / metrics.objects[k]
        precision = np.maximum.accumulate((right / np.arange(1, len(order) + 1))[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        expected = np.append(precision, 0)[at]
        np.testing.assert_allclose(metrics.accumulated.precision[0, :, k, 0, 0], expected, atol=1e-12)


def test_each_object_is_matched_once_by_the_best_score():
    ground_truth, detections = one_image(
        [box(0, 0, 10)], [[*box(1, 0, 10), 0.5, 0], [*box(2, 0, 10), 0.9, 0]]
    )
    assert match(ground_truth, detections).matched_object.tolist() == [-1, 0]


def test_classes_pair_only_with_their_own_unless_told():
    ground_truth, detections = one_image([box(0, 0, 10)], [[*box(0, 0, 10), 0.5, 1]])
    assert match(ground_truth, detections).matched_object.tolist() == [-1]
    assert match(ground_truth, detections, by_class=False).matched_object.tolist() == [0]


def test_curves_count_what_is_kept():
    boxes = [box(0, 0, 10), box(50, 0, 10)]
    rows = [[*boxes[0], 0.8, 0], [*box(200, 0, 10), 0.6, 0], [*boxes[1], 0.4, 0]]
    ground_truth, detections = one_image(boxes, rows)
    curves = confidence_curves(ground_truth, detections, match(ground_truth, detections), 2)
    at = {round(c, 3): i for i, c in enumerate(curves.confidence)}
    assert curves.precision[0, [at[0.3], at[0.5], at[0.7], at[0.9]]].tolist() == [2 / 3, 0.5, 1, 1]
    assert curves.recall[0, [at[0.3], at[0.5], at[0.7], at[0.9]]].tolist() == [1, 0.5, 0.5, 0]
    assert np.isnan(curves.f1[1]).all(), "a class without objects"
    np.testing.assert_array_equal(curves.mean(curves.recall), curves.recall[0])
    assert curves.best_confidence <= 0.4


def test_curves_without_objects_are_zero():
    ground_truth, detections = one_image([], [[*box(0, 0, 10), 0.9, 0]])
    curves = confidence_curves(ground_truth, detections, match(ground_truth, detections), 1)
    assert curves.mean(curves.f1).max() == 0
    assert curves.best_confidence == 0


def point_of(ground_truth, detections, num_classes):
    matching = match(ground_truth, detections)
    return operating_point(confidence_curves(ground_truth, detections, matching, num_classes))


@pytest.mark.parametrize("seed", range(4))
def test_operating_point_equals_a_search_over_every_confidence(seed):
    """Count by hand at each confidence, and keep the first where the mean F1 of the classes is largest."""
    ground_truth, detections = random_case(seed)
    matching = match(ground_truth, detections)
    best = (-1.0,)
    for confidence in np.linspace(0, 1, 1001):
        per_class = []
        for k in range(3):  # the fourth class has no objects
            kept = (detections.classes == k) & ~matching.ignored & (detections.scores >= confidence)
            right = int((kept & (matching.matched_object >= 0)).sum())
            objects = int(((ground_truth.classes == k) & ~ground_truth.crowd).sum())
            precision = right / kept.sum() if kept.any() else 1.0
            per_class.append((precision, right / objects, 2 * right / (kept.sum() + objects)))
        mean_f1 = np.mean(per_class, 0)[2]
        if mean_f1 > best[0] + 1e-12:
            best = (mean_f1, confidence, per_class)
    point = operating_point(confidence_curves(ground_truth, detections, matching, 4))
    assert point.confidence == pytest.approx(best[1])
    for k in range(3):
        assert list(point.values(k).values()) == pytest.approx(best[2][k])
    assert list(point.values().values()) == pytest.approx(np.mean(best[2], 0))
    assert point.values(3) == {"P": None, "R": None, "F1": None}


def test_operating_point_leaves_out_false_detections_of_low_confidence():
    boxes = [box(0, 0, 10), box(50, 0, 10)]
    rows = [[*boxes[0], 0.8, 0], [*boxes[1], 0.6, 0], [*box(200, 0, 10), 0.3, 0]]
    point = point_of(*one_image(boxes, rows), 1)
    assert 0.3 < point.confidence <= 0.6
    assert point.values() == {"P": 1, "R": 1, "F1": 1}


def test_operating_point_without_detections_is_zero_and_without_objects_none():
    point = point_of(*one_image([box(0, 0, 10)], []), 1)
    assert point.values() == {"P": 0, "R": 0, "F1": 0}
    point = point_of(*one_image([], [[*box(0, 0, 10), 0.9, 0]]), 1)
    assert point.values() == {"P": None, "R": None, "F1": None}
    assert point.confidence is None


def test_detections_in_a_crowd_leave_precision_as_it_is():
    boxes = [box(0, 0, 20), box(100, 100, 80)]
    rows = [[*boxes[0], 0.5, 0], [*box(110, 110, 10), 0.9, 0]]
    assert point_of(*one_image(boxes, rows, crowd=[[False, True]]), 1).values()["P"] == 1


def test_confusion_counts_pairs_misses_and_false_alarms():
    boxes = [box(0, 0, 10), box(50, 0, 10), box(100, 0, 10), box(300, 0, 90)]
    ground_truth = GroundTruthColumns.stack([boxes], [[0, 1, 1, 0]], crowd=[[False, False, False, True]])
    rows = [
        [*boxes[0], 0.9, 0],  # right
        [*boxes[1], 0.9, 0],  # taken for a
        [*box(200, 0, 10), 0.9, 1],  # nothing there
        [*boxes[2], 0.1, 1],  # right, but too unsure
        [*box(310, 10, 10), 0.9, 1],  # in the crowd
    ]
    counts = confusion_matrix(ground_truth, DetectionColumns.stack([rows]), 2, conf_thres=0.25)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_no_detections_and_no_objects_are_fine():
    ground_truth, detections = one_image([], [])
    assert match(ground_truth, detections).matched_object.shape == (0,)
    assert confusion_matrix(ground_truth, detections, 1, 0.25).sum() == 0
