"""Regions to ignore: the share inside the union of regions, against counting pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation.metrics import PROTOCOLS, settle_regions
from engine.evaluation.metrics.regions import covered_share, inside_regions
from tests.detection_cases import random_case


def integer_boxes(count):
    number = st.integers(0, 29)
    pair = st.tuples(number, number, st.integers(1, 30), st.integers(1, 30))
    return st.lists(pair.map(lambda t: [t[0], t[1], t[0] + t[2], t[1] + t[3]]), min_size=1, max_size=count)


@settings(deadline=None, max_examples=60)
@given(integer_boxes(6), integer_boxes(5))
def test_the_share_inside_equals_counted_pixels(boxes, regions):
    inside = np.zeros((60, 60), bool)
    for x1, y1, x2, y2 in regions:
        inside[y1:y2, x1:x2] = True
    expected = [inside[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in boxes]
    detections = covered_share(np.array(boxes, float), np.array(regions, float))
    np.testing.assert_allclose(detections, expected, atol=1e-12)


def test_an_empty_box_is_not_inside():
    assert covered_share(np.array([[5.0, 5, 5, 5]]), np.array([[0.0, 0, 9, 9]])).tolist() == [0]


def test_visdrone_keeps_exactly_what_is_less_than_half_inside():
    ground_truth, detections = random_case(1, regions=True)
    kept, kept_detections = settle_regions(ground_truth, detections, PROTOCOLS["visdrone"])
    for before, after in ((ground_truth, kept), (detections, kept_detections)):
        share = inside_regions(ground_truth, before.image, before.boxes_xyxy)
        assert 0 < (share < 0.5).sum() < len(share)
        np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy[share < 0.5])
    assert len(kept.region_image) == 0


def test_regions_become_a_crowd_of_each_class_detected_in_their_image():
    ground_truth, detections = random_case(1, regions=True)
    settled, same = settle_regions(ground_truth, detections, PROTOCOLS["coco"])
    assert same is detections
    added = slice(len(ground_truth.image), None)
    assert settled.crowd[added].all()
    pairs = {
        (image, k, *box)
        for image, k, box in zip(
            settled.image[added].tolist(),
            settled.classes[added].tolist(),
            settled.boxes_xyxy[added].tolist(),
            strict=True,
        )
    }
    expected = {
        (image, k, *box)
        for image, box in zip(
            ground_truth.region_image.tolist(), ground_truth.regions_xyxy.tolist(), strict=True
        )
        for k in set(detections.classes[detections.image == image].tolist())
    }
    assert pairs == expected
    again, _ = settle_regions(settled, detections, PROTOCOLS["coco"])
    assert again is settled
