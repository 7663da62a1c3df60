"""The evaluator: pycocotools' numbers, bit by bit, from any COCO file and any results file."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.command import read_predictions
from engine.evaluation.config import ValConfig
from engine.evaluation.evaluator import Scoring, evaluate
from engine.evaluation.metrics import Metrics
from tests.coco_files import coco_case, reference

EVALUATORS = ["hotcoco", "pycocotools"]


class Files:
    """A COCO file and a results file that are written anew for every case."""

    def __init__(self, folder: Path):
        self.predictions, self.annotations = folder / "results.json", folder / "gt.json"
        self.config = ValConfig.of(predictions=self.predictions, annotations=self.annotations)

    def score(self, content: dict, results: list[dict], *evaluators: str) -> list[Metrics]:
        self.annotations.write_text(json.dumps(content))
        self.predictions.write_text(json.dumps(results))
        predictions, names = read_predictions(self.config)
        return [evaluate(predictions, names, Scoring(evaluator=one)).metrics for one in evaluators]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def assert_equal_bits(metrics, coco_eval, about=None):
    twelve = [-1 if value is None else value for value in metrics.values.values()]
    assert twelve == coco_eval.stats.tolist(), about
    for name in ("precision", "recall"):
        ours, theirs = getattr(metrics.accumulated, name), coco_eval.eval[name]
        assert ours.dtype == theirs.dtype == np.float64
        assert ours.shape == theirs.shape
        assert np.array_equal(ours, theirs), about


@pytest.mark.parametrize("part", range(8))
def test_random_files_score_bit_by_bit_as_in_pycocotools(files, part):
    for seed in range(200 * part, 200 * (part + 1)):
        content, results = coco_case(seed)
        evaluators = EVALUATORS if seed % 10 == 0 else EVALUATORS[:1]
        for metrics in files.score(content, results, *evaluators):
            assert_equal_bits(metrics, reference(content, results), f"case {seed}")


def image(image_id, name="a.jpg"):
    return {"id": image_id, "file_name": name, "width": 500, "height": 500}


def known(image_id, box, number=1, **changes):
    row = {"id": number, "image_id": image_id, "category_id": 1, "bbox": box, "iscrowd": 0}
    return {**row, "area": box[2] * box[3], **changes}


def detected(image_id, box, score=0.5):
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}


def coco_file(images, annotations):
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}


def score_and_compare(files, content, results):
    """Return the numbers, which are those of pycocotools with both evaluators."""
    scored = files.score(content, results, *EVALUATORS)
    for metrics in scored:
        assert_equal_bits(metrics, reference(content, results))
    return scored[0].values


@pytest.mark.parametrize("ids", [(9, 2), (2**53, 2**53 - 1), (10, 9), ("b", "a"), ("9", "10"), ("a", "B")])
def test_ties_between_images_are_settled_by_their_ids_not_by_their_order(files, ids):
    last, first = ids
    content = coco_file([image(last), image(first, "b.jpg")], [known(first, [0, 0, 50, 50])])
    results = [detected(last, [0, 0, 50, 50]), detected(first, [0, 0, 50, 50])]
    assert score_and_compare(files, content, results)["AP50"] == pytest.approx(1)


def test_an_iou_just_below_a_threshold_stays_below_it(files):
    """With the object in float32, or as corners, the IoU would reach .7."""
    content = coco_file([image(1)], [known(1, [0.1, 0.3, 0.8, 2.0])])
    results = [detected(1, [0.1, 0.3, 0.56, 2.0]), detected(1, [9, 9, 9, 9], 0.1)]
    assert score_and_compare(files, content, results)["AP"] == pytest.approx(0.4)


def test_an_iou_exactly_on_a_threshold_reaches_it(files):
    content = coco_file([image(1)], [known(1, [10, 10, 20, 7])])
    reached = []
    for width in range(10, 20):
        values = score_and_compare(files, content, [detected(1, [10, 10, width, 7])])
        reached.append(round(10 * values["AP"]))
    assert reached == list(range(1, 11))


@pytest.mark.parametrize(
    ("area", "sizes"), [(1024.0, "SM"), (1024.00001, "M"), (9216.0, "ML"), (9216.0001, "L")]
)
def test_an_area_on_the_limit_of_two_sizes_belongs_to_both(files, area, sizes):
    content = coco_file([image(1)], [known(1, [10, 10, 50, 50], area=area)])
    values = score_and_compare(files, content, [detected(1, [10, 10, 50, 50])])
    assert "".join(size for size in "SML" if values[f"AP_{size}"] is not None) == sizes


@pytest.mark.parametrize("box", [[10, 10, 0, 20], [10, 10, 0, 0], [10, 10, -5, 20], [-90, 10, 30, 30]])
def test_boxes_of_no_size_and_outside_their_image_count_as_objects(files, box, caplog):
    content = coco_file([image(1)], [known(1, [50, 50, 50, 50]), known(1, box, 2, area=100)])
    assert score_and_compare(files, content, [detected(1, [50, 50, 50, 50])])["AR100"] == 0.5
    assert "1 box(es) that count as objects all the same" in caplog.text


def test_only_the_most_confident_hundred_count_and_the_first_of_equals(files):
    far = [detected(1, [300, 300, 20 + i, 20]) for i in range(100)]
    content = coco_file([image(1)], [known(1, [50, 50, 50, 50])])
    box = [50, 50, 50, 50]
    assert score_and_compare(files, content, [*far, detected(1, box)])["AP"] == 0
    assert score_and_compare(files, content, [detected(1, box), *far])["AP"] == pytest.approx(1)


def test_an_annotation_with_the_id_0_is_matched_like_any_other_and_noted(files, caplog):
    """pycocotools takes its id for "not matched" and counts the detection as false."""
    content = coco_file([image(1)], [known(1, [50, 50, 50, 50], 0)])
    results = [detected(1, [50, 50, 50, 50])]
    assert reference(content, results).stats[0] == 0
    for metrics in files.score(content, results, *EVALUATORS):
        assert metrics.values["AP"] == pytest.approx(1)
    assert "an annotation has the id 0" in caplog.text
