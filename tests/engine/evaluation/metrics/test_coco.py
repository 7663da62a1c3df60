"""AP and AR: hotcoco against pycocotools, and hand-made cases with known answers."""

import itertools

import numpy as np
import pytest

from engine.evaluation.metrics import PROTOCOLS, DetectionColumns, GroundTruthColumns, evaluate_detections
from engine.evaluation.metrics.coco import accumulate
from tests.detection_cases import NAMES, box, one_image, random_case

TWELVE = ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_hotcoco_matches_pycocotools(protocol, seed):
    ground_truth, detections = random_case(
        seed, scale=1.0 if protocol == "coco" else 0.3, regions=seed % 2 > 0
    )
    ours = [
        evaluate_detections(ground_truth, detections, NAMES, PROTOCOLS[protocol], evaluator=evaluator)
        for evaluator in ("hotcoco", "pycocotools")
    ]
    assert ours[0].values == ours[1].values
    assert ours[0].per_class == ours[1].per_class
    np.testing.assert_array_equal(ours[0].accumulated.precision, ours[1].accumulated.precision)
    np.testing.assert_array_equal(ours[0].accumulated.recall, ours[1].accumulated.recall)
    assert 0 < ours[0].values["AP"] < 1


def test_the_twelve_numbers_are_those_pycocotools_summarizes(capsys):
    from engine.evaluation.metrics.coco import _feed_pycocotools

    ground_truth, detections = random_case(7)
    values = evaluate_detections(ground_truth, detections, NAMES).values
    assert "".join(capsys.readouterr()) == ""
    reference = _feed_pycocotools(ground_truth, detections, len(NAMES))
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    assert list(values) == TWELVE, "the order of metrics.json"
    np.testing.assert_allclose(list(values.values()), reference.stats, atol=1e-12)


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_perfect_boxes_score_one_and_sizes_without_objects_none(evaluator):
    boxes = [box(0, 0, 10), box(50, 50, 50)]
    ground_truth, detections = one_image(boxes, [[*row, 0.9, 0] for row in boxes])
    values = evaluate_detections(ground_truth, detections, ["tree"], evaluator=evaluator).values
    for key in ("AP", "AP50", "AP_S", "AP_M", "AR100"):
        assert values[key] == pytest.approx(1), key
    assert values["AR1"] == pytest.approx(0.5)
    assert values["AP_L"] is None
    assert values["AR_L"] is None


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_no_detections_score_zero_and_no_objects_none(evaluator):
    ground_truth, detections = one_image([box(0, 0, 10)], [])
    metrics = evaluate_detections(ground_truth, detections, ["tree"], evaluator=evaluator)
    assert metrics.values["AP"] == 0
    assert metrics.fitness == 0
    ground_truth, detections = one_image([], [[0, 0, 10, 10, 0.9, 0]])
    metrics = evaluate_detections(ground_truth, detections, ["tree"], evaluator=evaluator)
    assert metrics.values["AP"] is None
    assert metrics.fitness == 0
    assert metrics.objects.tolist() == [0]


def test_detection_limit_caps_recall_and_a_larger_one_lifts_it():
    boxes = [box(20 * i, 20 * j, 10) for i, j in itertools.product(range(20), range(14))][:279]
    ground_truth, detections = one_image(boxes, [[*row, 0.9, 0] for row in boxes])
    capped = evaluate_detections(ground_truth, detections, ["tree"]).values
    assert capped["AR100"] == pytest.approx(100 / 279)
    assert capped["AP"] == pytest.approx(36 / 101)
    lifted = evaluate_detections(ground_truth, detections, ["tree"], max_dets=(1, 10, 100, 279)).values
    for key in ("AP", "AR279", "AR_S"):
        assert lifted[key] == pytest.approx(1), key
    assert lifted["AR100"] == capped["AR100"]


def test_size_comes_from_the_given_area_not_the_box():
    boxes = [box(0, 0, 40)]
    rows = [[*boxes[0], 0.9, 0]]
    ground_truth, detections = one_image(boxes, rows, areas=[[900.0]])
    values = evaluate_detections(ground_truth, detections, ["tree"]).values
    assert values["AP_S"] == pytest.approx(1)
    assert values["AP_M"] is None


def test_detections_in_a_crowd_do_not_count():
    boxes = [box(0, 0, 20), box(100, 100, 80)]
    rows = [[*boxes[0], 0.5, 0], [*box(110, 110, 10), 0.9, 0], [*box(130, 130, 10), 0.8, 0]]
    ground_truth, detections = one_image(boxes, rows, crowd=[[False, True]])
    assert evaluate_detections(ground_truth, detections, ["tree"]).values["AP"] == pytest.approx(1)
    ground_truth, detections = one_image(boxes[:1], rows)
    assert evaluate_detections(ground_truth, detections, ["tree"]).values["AP"] == pytest.approx(1 / 3)


def test_fitness_is_a_tenth_ap50_and_nine_tenths_ap():
    ground_truth, detections = random_case(3)
    metrics = evaluate_detections(ground_truth, detections, NAMES)
    assert metrics.fitness == pytest.approx(0.1 * metrics.values["AP50"] + 0.9 * metrics.values["AP"])
    assert metrics.per_class[3]["AP"] is None
    known = [values["AP"] for values in metrics.per_class if values["AP"] is not None]
    assert metrics.values["AP"] == pytest.approx(np.mean(known))


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("coco", "S <32², M 32²-96², L >=96²"),
        ("aitod", "vt <8², t 8²-16², s 16²-32², m >=32²"),
        ("sodad", "eS <12², rS 12²-20², gS 20²-32², N 32²-2000"),
        (
            "tinyperson",
            "tiny1 1²-8², tiny2 8²-12², tiny3 12²-20², tiny 1²-20², small 20²-32², reasonable >=32²",
        ),
        ("visdrone", "S <32², M 32²-96², L >=96²"),
    ],
)
def test_size_classes_read_as_in_the_papers(name, edges):
    assert ", ".join(map(str, PROTOCOLS[name].sizes)) == edges


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroundTruthColumns.stack([[box(0, 0, 1)]], [[0, 1]]), "columns of different length"),
        (lambda: DetectionColumns.stack([[[0, 0, 1, 1, np.nan, 0]]]), "entry 0 holds a NaN"),
        (lambda: accumulate(*one_image([box(0, 0, 1)], [[0, 0, 1, 1, 1, 3]]), 1, PROTOCOLS["coco"]), "0..0"),
        (
            lambda: evaluate_detections(
                GroundTruthColumns.stack([[]], [[]]), DetectionColumns.stack([]), ["a"]
            ),
            "ground truth of 1 images, detections of 0",
        ),
        (
            lambda: evaluate_detections(*one_image([], []), ["a"], max_dets=[0]),
            "limits must be 1 or more",
        ),
        (
            lambda: evaluate_detections(*one_image([], []), ["a"], evaluator="coco"),
            "Choose from: hotcoco, pycocotools",
        ),
    ],
)
def test_wrong_input_is_a_value_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_metrics_need_no_torch():
    import subprocess
    import sys

    code = "import sys, engine.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
