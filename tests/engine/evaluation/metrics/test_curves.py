"""Matching at one IoU, curves over confidence, confusion."""

import numpy as np
import pytest

from engine.evaluation.metrics import (
    DetectionColumns,
    GroundTruthColumns,
    confidence_curves,
    confusion_matrix,
    evaluate_detections,
    match,
)
from tests.detection_cases import NAMES, box, one_image, random_case


@pytest.mark.parametrize("seed", range(4))
def test_matching_gives_the_precision_of_pycocotools(seed):
    ground_truth, found = random_case(seed)
    metrics = evaluate_detections(ground_truth, found, NAMES, max_dets=[10_000], evaluator="pycocotools")
    matching = match(ground_truth, found, 0.5)
    for k in range(3):
        mine = (found.classes == k) & ~matching.ignored
        order = np.flatnonzero(mine)[np.argsort(-found.scores[mine], kind="stable")]
        right = np.cumsum(matching.matched_object[order] >= 0)
        recall = right / metrics.objects[k]
        precision = np.maximum.accumulate((right / np.arange(1, len(order) + 1))[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        expected = np.append(precision, 0)[at]
        np.testing.assert_allclose(metrics.accumulated.precision[0, :, k, 0, 0], expected, atol=1e-12)


def test_each_object_is_found_once_by_the_best_score():
    ground_truth, found = one_image([box(0, 0, 10)], [[*box(1, 0, 10), 0.5, 0], [*box(2, 0, 10), 0.9, 0]])
    assert match(ground_truth, found).matched_object.tolist() == [-1, 0]


def test_classes_pair_only_with_their_own_unless_told():
    ground_truth, found = one_image([box(0, 0, 10)], [[*box(0, 0, 10), 0.5, 1]])
    assert match(ground_truth, found).matched_object.tolist() == [-1]
    assert match(ground_truth, found, by_class=False).matched_object.tolist() == [0]


def test_curves_count_what_is_kept():
    boxes = [box(0, 0, 10), box(50, 0, 10)]
    rows = [[*boxes[0], 0.8, 0], [*box(200, 0, 10), 0.6, 0], [*boxes[1], 0.4, 0]]
    ground_truth, found = one_image(boxes, rows)
    curves = confidence_curves(ground_truth, found, match(ground_truth, found), 2)
    at = {round(c, 3): i for i, c in enumerate(curves.confidence)}
    assert curves.precision[0, [at[0.3], at[0.5], at[0.7], at[0.9]]].tolist() == [2 / 3, 0.5, 1, 1]
    assert curves.recall[0, [at[0.3], at[0.5], at[0.7], at[0.9]]].tolist() == [1, 0.5, 0.5, 0]
    assert np.isnan(curves.f1[1]).all(), "a class without objects"
    np.testing.assert_array_equal(curves.mean(curves.recall), curves.recall[0])
    assert curves.best_confidence <= 0.4


def test_curves_without_any_object_are_zero():
    ground_truth, found = one_image([], [[*box(0, 0, 10), 0.9, 0]])
    curves = confidence_curves(ground_truth, found, match(ground_truth, found), 1)
    assert curves.mean(curves.f1).max() == 0
    assert curves.best_confidence == 0


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


def test_no_detections_and_no_truth_are_fine():
    ground_truth, found = one_image([], [])
    assert match(ground_truth, found).matched_object.shape == (0,)
    assert confusion_matrix(ground_truth, found, 1, 0.25).sum() == 0
