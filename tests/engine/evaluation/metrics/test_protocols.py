"""Each protocol on hand-made cases with known answers, with both evaluators; sizes of one's own."""

import numpy as np
import pytest

from engine.evaluation.metrics import PROTOCOLS, DetectionColumns, GroundTruthColumns, evaluate_detections
from tests.detection_cases import box, one_image, random_case

pytestmark = pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])


def values_of(protocol, evaluator, ground_truth, detections, names=("object",)):
    return evaluate_detections(
        ground_truth, detections, names, PROTOCOLS[protocol], evaluator=evaluator
    ).values


def row(corners, score=0.9, k=0):
    return [*corners, score, k]


def grid(count, side, step):
    return [box(step * (i % 20), step * (i // 20), side) for i in range(count)]


def test_coco_medium_includes_both_its_ends(evaluator):
    boxes = [box(0, 0, 32), box(200, 0, 96)]
    values = values_of("coco", evaluator, *one_image(boxes, [row(boxes[0])]))
    assert values["AP_S"] == pytest.approx(1)
    assert values["AP_M"] == pytest.approx(51 / 101), "one of two detected: precision 1 up to recall .5"
    assert values["AP_L"] == 0


def test_aitod_counts_1500_detections_and_four_sizes(evaluator):
    boxes = [*grid(150, 6, 20), box(500, 0, 10), box(600, 0, 20), box(700, 0, 40)]
    values = values_of("aitod", evaluator, *one_image(boxes, list(map(row, boxes))))
    expected = {"AP": 1, "AP_vt": 1, "AP_t": 1, "AP_s": 1, "AP_m": 1, "AR100": 100 / 153, "AR1500": 1}
    assert {key: values[key] for key in expected} == pytest.approx(expected)


def test_sodad_has_no_class_for_what_is_larger_than_2000_px2(evaluator):
    boxes = [box(0, 0, 10), box(50, 0, 16), box(100, 0, 25), box(200, 0, 46)]
    values = values_of("sodad", evaluator, *one_image(boxes, list(map(row, boxes[:3]))))
    assert {key: values[key] for key in ("AP_eS", "AP_rS", "AP_gS")} == pytest.approx(
        {"AP_eS": 1, "AP_rS": 1, "AP_gS": 1}
    )
    assert values["AP_N"] is None
    assert values["AP"] == pytest.approx(76 / 101), "the large one counts among all"
    assert values["AR100"] == pytest.approx(0.75)


def test_tinyperson_gives_ap_of_each_size_at_each_iou(evaluator):
    boxes = [box(0, 0, 10), box(100, 0, 25)]
    rows = [row(box(30 / 7, 0, 10)), row(boxes[1], 0.8)]  # IoU .4 and 1
    values = values_of("tinyperson", evaluator, *one_image(boxes, rows))
    assert values["AP25"] == pytest.approx(1)
    assert values["AP50"] == pytest.approx(51 / 101 / 2), "precision .5 up to recall .5"
    expected = {"AP25_tiny2": 1, "AP50_tiny2": 0, "AP75_tiny2": 0, "AP25_tiny": 1, "AP75_small": 1}
    assert {key: values[key] for key in expected} == pytest.approx(expected)
    assert values["AP_tiny2"] == pytest.approx(1 / 3)
    assert values["AP50_tiny1"] is None
    assert list(values)[:4] == ["AP", "AP25", "AP50", "AP75"]


def test_tinyperson_leaves_detections_in_ignored_boxes_alone(evaluator):
    boxes = [box(0, 0, 10), box(100, 100, 40)]
    rows = [row(boxes[0], 0.5), row(box(105, 105, 8), 0.9), row(box(135, 110, 8), 0.8)]  # the last 5/8 inside
    ground_truth, detections = one_image(boxes, rows, crowd=[[False, True]])
    values = values_of("tinyperson", evaluator, ground_truth, detections)
    assert values["AP25"] == values["AP50"] == pytest.approx(1), "by its share of the detection, not IoU"
    assert values["AP75"] == pytest.approx(1 / 2), "5/8 inside is too little at .75"


def test_tinyperson_counts_200_detections(evaluator):
    boxes = grid(250, 10, 30)
    values = values_of("tinyperson", evaluator, *one_image(boxes, list(map(row, boxes))))
    assert values["AR200"] == pytest.approx(0.8)


@pytest.fixture
def half_ignored():
    """An object half inside a region, one outside it that is detected, and false detections in the region."""
    boxes = [[90, 0, 110, 20], box(200, 0, 20)]
    rows = [row([90, 0, 110, 20], 0.95), row(box(20, 20, 30), 0.9), row(boxes[1], 0.5)]
    region = [[[0, 0, 100, 100]]]
    return GroundTruthColumns.stack([boxes], [[0, 0]], regions_xyxy=region), DetectionColumns.stack([rows])


def test_visdrone_drops_what_is_half_inside_a_region(half_ignored, evaluator):
    values = values_of("visdrone", evaluator, *half_ignored)
    assert [values["AP"], values["AR500"]] == pytest.approx([1, 1])
    metrics = evaluate_detections(*half_ignored, ["object"], PROTOCOLS["visdrone"], evaluator=evaluator)
    assert metrics.objects.tolist() == [1]


def test_elsewhere_a_region_only_excuses_detections(half_ignored, evaluator):
    ground_truth, detections = half_ignored
    values = values_of("coco", evaluator, ground_truth, detections)
    assert values["AP"] == pytest.approx(1), "both objects are detected, the third lies in the region"
    values = values_of("coco", evaluator, ground_truth, detections.select(np.array([1, 2])))
    assert values["AP"] == pytest.approx(51 / 101), "the half-ignored object is missed"


def test_a_region_excuses_every_class(evaluator):
    ground_truth = GroundTruthColumns.stack(
        [[box(200, 0, 20)]] * 2, [[0], [1]], regions_xyxy=[[box(0, 0, 100)], []]
    )
    rows = [[row(box(20, 20, 30), 0.9, k) for k in (0, 1)] + [row(box(200, 0, 20), 0.5, 0)]]
    rows.append([row(box(200, 0, 20), 0.5, 1)])
    values = values_of("coco", evaluator, ground_truth, DetectionColumns.stack(rows), ["a", "b"])
    assert values["AP"] == pytest.approx(1)


def test_own_sizes_part_the_objects(evaluator):
    ground_truth, detections = random_case(1)
    protocol = PROTOCOLS["coco"].with_sizes([0, 16, 48])
    metrics = evaluate_detections(ground_truth, detections, list("abcd"), protocol, evaluator=evaluator)
    assert [key for key in metrics.values if key.startswith("AP_")] == ["AP_0-16", "AP_16-48", "AP_48+"]
    assert metrics.objects_of_size.sum() == metrics.objects.sum()
    assert str(protocol.sizes[1]) == "16-48 16²-48²"


@pytest.mark.parametrize("sides", [[], [8, 4], [0, 0], [-1, 4], [0, float("nan")], [0, float("inf")]])
def test_sizes_must_ascend(sides, evaluator):
    with pytest.raises(ValueError, match="must ascend from 0 px or more"):
        PROTOCOLS["coco"].with_sizes(sides)
