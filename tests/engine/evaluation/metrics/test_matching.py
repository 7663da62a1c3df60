"""Matching at one IoU threshold: what pycocotools matches."""

import numpy as np
import pytest

from engine.evaluation.metrics import DetectionColumns, GroundTruthColumns, match
from tests.coco_files import coco_case, reference


def columns_of(content, results):
    """Return columns with the images in the order of their ids, and the classes in that of theirs."""
    image_ids = sorted(image["id"] for image in content["images"])
    category_ids = sorted(category["id"] for category in content["categories"])

    def common(rows):
        image = np.array([image_ids.index(row["image_id"]) for row in rows], np.int64)
        classes = np.array([category_ids.index(row["category_id"]) for row in rows], np.int64)
        return image, np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4), classes

    image, boxes, classes = common(content["annotations"])
    areas = np.array([row["area"] for row in content["annotations"]])
    crowd = np.array([row["iscrowd"] > 0 for row in content["annotations"]], bool)
    count = len(image_ids)
    ground_truth = GroundTruthColumns(
        num_images=count, image=image, boxes_xywh=boxes, classes=classes, areas=areas, crowd=crowd
    )
    image, boxes, classes = common(results)
    scores = np.array([row["score"] for row in results])
    detections = DetectionColumns(
        num_images=count, image=image, boxes_xywh=boxes, scores=scores, classes=classes
    )
    return ground_truth, detections


@pytest.mark.parametrize("part", range(2))
def test_random_files_match_as_in_pycocotools(part):
    compared = 0
    for seed in range(100 * part, 100 * (part + 1)):
        content, results = coco_case(seed)
        if len(results) > 90 or any(row["area"] > 1e10 for row in content["annotations"]):
            continue  # the limit on detections and the largest area are no part of `match`
        coco_eval = reference(content, results)
        matched, ignored = np.zeros(len(results), np.int64), np.zeros(len(results), bool)
        images = len(content["images"])
        for k in range(len(content["categories"])):
            for one in coco_eval.evalImgs[4 * k * images : (4 * k + 1) * images]:  # of all areas
                for place, number in enumerate(one["dtIds"] if one else ()):
                    matched[number - 1] = one["dtMatches"][0, place]
                    ignored[number - 1] = one["dtIgnore"][0, place]
        first = content["annotations"][0]["id"] if content["annotations"] else 0
        matching = match(*columns_of(content, results), 0.5)
        expected = np.where((matched > 0) & ~ignored, matched - first, -1)
        assert matching.matched_object.tolist() == expected.tolist(), seed
        assert matching.ignored.tolist() == ignored.tolist(), seed
        compared += len(results)
    assert compared > 500
