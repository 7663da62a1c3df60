"""Causes of errors against hotcoco's counts; curves over size against evaluations of each size alone."""

import numpy as np
import pytest

from engine.evaluation.analysis import analyze
from engine.evaluation.evaluator import ScoringResult
from engine.evaluation.metrics import (
    PROTOCOLS,
    DetectionColumns,
    GroundTruthColumns,
    error_gains,
    evaluate_detections,
    find_errors,
)
from engine.evaluation.metrics.by_size import bin_of, size_bins
from engine.evaluation.metrics.coco import _feed_hotcoco
from engine.evaluation.metrics.errors import (
    BACKGROUND,
    BOTH,
    CLASSIFICATION,
    DUPLICATE,
    IGNORED,
    KINDS,
    LOCALIZATION,
    RIGHT,
)
from tests.detection_cases import NAMES, box, one_image, random_case

HOTCOCO = {"Cls": CLASSIFICATION, "Loc": LOCALIZATION, "Both": BOTH, "Dupe": DUPLICATE, "Bkg": BACKGROUND}


@pytest.mark.parametrize("seed", range(6))
def test_counts_of_errors_are_those_of_tide_in_hotcoco(seed):
    ground_truth, detections = random_case(seed)
    ground_truth = ground_truth.select(
        ~ground_truth.crowd
    )  # hotcoco blames a detection's place on a crowd near it, TIDE does not
    reference = _feed_hotcoco(ground_truth, detections, len(NAMES))
    reference.params.maxDets = [10_000]
    reference.evaluate()
    counts = reference.tide_errors()["counts"]
    errors = find_errors(ground_truth, detections)
    ours = {name: int((errors.kind == kind).sum()) for name, kind in HOTCOCO.items()}
    assert ours | {"Miss": int(errors.missed.sum())} == counts
    assert set(HOTCOCO.values()) == set(KINDS)


def test_each_kind_of_error():
    boxes = [box(0, 0, 20), box(100, 0, 20), box(200, 0, 20), box(300, 0, 20), box(400, 0, 90)]
    ground_truth = GroundTruthColumns.stack([boxes], [[0, 0, 0, 0, 0]], crowd=[[False] * 4 + [True]])
    rows = [
        [*box(0, 0, 20), 0.9, 0],
        [*box(1, 0, 20), 0.8, 0],  # the same again
        [*box(110, 0, 20), 0.8, 0],  # IoU 1/3
        [*box(200, 0, 20), 0.8, 1],  # another class
        [*box(290, 0, 20), 0.8, 1],  # IoU 1/3 and another class
        [*box(600, 0, 20), 0.8, 0],
        [*box(410, 10, 20), 0.8, 0],  # in the crowd
    ]
    errors = find_errors(ground_truth, DetectionColumns.stack([rows]))
    kinds = [RIGHT, DUPLICATE, LOCALIZATION, CLASSIFICATION, BOTH, BACKGROUND, IGNORED]
    assert errors.kind.tolist() == kinds
    assert errors.near.tolist() == [0, 0, 1, 2, 3, -1, -1]
    assert errors.detected.tolist() == [True, False, False, False, False]
    assert errors.missed.tolist() == [False, False, False, True, False], "only the last is not explained"


def test_gains_say_what_would_help():
    boxes = [box(0, 0, 20), box(100, 0, 20)]
    ground_truth, detections = one_image(boxes, [[*boxes[0], 0.5, 0], [*box(300, 0, 20), 0.9, 0]])
    gains = error_gains(ground_truth, detections, 1)
    assert gains["Bkg"] == pytest.approx(51 / 101 / 2), "precision 1/2 becomes 1 up to recall 1/2"
    assert gains["Miss"] > 0
    assert gains["Cls"] == gains["Dupe"] == 0


def test_bins_hold_every_area_once():
    areas = np.array([0.5, 1, 2, 31.9**2, 32**2, 640 * 480])
    edges = size_bins(areas)
    place = bin_of(areas, edges)
    assert edges[0] == 1
    assert edges[-1] ** 2 >= 640 * 480
    assert (edges[place[1:]] ** 2 <= areas[1:] + 1e-6).all()
    assert (areas <= edges[place + 1] ** 2).all()
    np.testing.assert_allclose(edges[1:] / edges[:-1], 2**0.5)
    assert len(size_bins(np.zeros(0))) == 2


def scored(ground_truth, detections, names=NAMES, protocol="coco"):
    metrics = evaluate_detections(ground_truth, detections, names, PROTOCOLS[protocol])
    return ScoringResult([], detections, ground_truth, detections, metrics)


def test_curves_over_size_equal_evaluations_of_each_size():
    ground_truth, detections = random_case(2, images=30)
    curves = analyze(scored(ground_truth, detections)).sizes
    assert curves.objects.sum() == (~ground_truth.crowd).sum()
    assert np.isnan(curves.ap[curves.objects == 0]).all()
    for i in np.flatnonzero(curves.objects):
        protocol = PROTOCOLS["coco"].with_sizes(curves.edges[i : i + 2] if i else [0, curves.edges[1]])
        values = evaluate_detections(ground_truth, detections, NAMES, protocol).values
        assert curves.ap[i] == pytest.approx(values[f"AP_{protocol.sizes[0].name}"])


def test_the_share_detected_is_counted_at_the_working_confidence():
    boxes = [box(0, 0, 10), box(50, 0, 10), box(100, 0, 50), box(200, 0, 50)]
    rows = [[*boxes[0], 0.9, 0], [*boxes[2], 0.9, 0], [*boxes[3], 0.8, 0], [*box(400, 0, 10), 0.1, 0]]
    analysis = analyze(scored(*one_image(boxes, rows), names=["tree"]))
    assert 0.1 < analysis.confidence <= 0.8
    sides = np.round(analysis.sizes.middles).astype(int).tolist()
    detections = dict(zip(sides, analysis.sizes.detected, strict=True))
    assert detections[10] == 0.5
    assert detections[54] == 1.0
    assert analysis.sizes.errors["missed"].sum() == 1
    assert analysis.sizes.errors["background"].sum() == 0, "it is below the working confidence"


@pytest.mark.parametrize("case", [([], []), ([box(0, 0, 9)], []), ([], [[*box(0, 0, 9), 0.5, 0]])])
def test_no_detections_or_no_objects_are_analyzed_too(case):
    analysis = analyze(scored(*one_image(*case), names=["tree"]))
    assert analysis.sizes.objects.sum() == len(case[0])
