"""From the detections of tiles to those of the full image, one box per object."""

import numpy as np
import pytest

from data.tiling import tile_boxes
from engine.inference.merging import merge
from engine.inference.merging.merge import MergeRule
from utils.detections import Detections
from utils.overlap import iou_matrix

TILES = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])


def merge_tiles(tiles, tiles_xyxy, rule=MergeRule(), **options):  # noqa: B008  (frozen)
    """`merge.merge_tiles` of (n, 6) arrays: corners, score, class."""
    detections = [Detections.from_array(array) for array in tiles]
    rule = rule if isinstance(rule, MergeRule) else MergeRule(threshold=rule)
    return merge.merge_tiles(detections, tiles_xyxy, rule, **options).to_array()


def test_detections_move_to_their_place_and_duplicates_merge():
    left = np.array([[85.0, 10, 95, 20, 0.6, 0], [1, 1, 9, 9, 0.9, 1]])
    right = np.array([[5.0, 10, 15, 20, 0.8, 0]])  # the same object, 80 px further right
    merged = merge_tiles([left, right], TILES)
    np.testing.assert_allclose(merged, [[1, 1, 9, 9, 0.9, 1], [85, 10, 95, 20, 0.8, 0]], rtol=1e-6)
    assert left[0, 0] == 85, "the input stays as it was"


def test_classes_merge_apart_unless_agnostic():
    left = np.array([[85.0, 10, 95, 20, 0.6, 0]])
    right = np.array([[5.0, 10, 15, 20, 0.8, 1]])
    assert len(merge_tiles([left, right], TILES)) == 2
    assert len(merge_tiles([left, right], TILES, agnostic=True)) == 1


def test_a_fragment_goes_where_another_tile_shows_the_object_whole():
    left = np.array([[82.0, 10, 100, 40, 0.9, 0]])  # cut at x = 100
    right = np.array([[2.0, 10, 35, 40, 0.8, 0]])
    np.testing.assert_allclose(merge_tiles([left, right], TILES), [[82, 10, 115, 40, 0.8, 0]], rtol=1e-6)
    assert len(merge_tiles([left, right * [1, 1, 1, 1, 0.1, 1]], TILES)) == 2, "too unsure to replace it"
    assert len(merge_tiles([left, np.add(right, [0, 0, 0, 0, 0, 1])], TILES)) == 2, "another class"
    assert len(merge_tiles([left, np.zeros((0, 6))], TILES)) == 1, "nothing to replace it"


def test_the_side_of_the_image_cuts_nothing():
    inner = [0.0, 10, 12, 40, 0.5, 0]
    outer = [0.0, 5, 30, 45, 0.9, 0]
    assert len(merge_tiles([np.array([inner, outer])], TILES[:1], 0.6)) == 2


def test_perfect_tiles_merge_to_the_perfect_image():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(5, 350, 50), np.arange(5, 350, 50))
    corner = np.stack((x.ravel(), y.ravel()), 1) + rng.uniform(0, 5, (49, 2))
    objects = np.concatenate((corner, corner + rng.uniform(8, 38, (49, 2))), 1)
    starts = [0, 80, 160, 240]
    tiles_xyxy = np.array([[x, y, x + 120, y + 120] for y in starts for x in starts])
    tiles = []
    for x0, y0, x1, y1 in tiles_xyxy:
        clipped = np.clip(objects, [x0, y0, x0, y0], [x1, y1, x1, y1])
        share = (clipped[:, 2:] - clipped[:, :2]).prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
        boxes = clipped[share > 0.1] - [x0, y0, x0, y0]
        tiles.append(np.column_stack((boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes)))))
    inside = objects[(objects[:, 2:] < 360).all(1)]
    merged = merge_tiles(tiles, tiles_xyxy)[:, :4]
    merged = merged[(merged[:, 2:] < 359.5).all(1)]
    np.testing.assert_allclose(merged[np.lexsort(merged.T)], inside[np.lexsort(inside.T)], atol=1e-3)


def test_the_most_confident_are_kept():
    detections = np.array([[i * 10.0, 0, i * 10 + 5, 5, i / 10, 0] for i in range(8)])
    merged = merge_tiles([detections, np.zeros((0, 6))], TILES, max_det=3)
    np.testing.assert_allclose(merged[:, 4], [0.7, 0.6, 0.5], rtol=1e-6)


def test_no_tiles_and_empty_tiles_give_no_detections():
    assert merge_tiles([], np.zeros((0, 4))).shape == (0, 6)
    assert merge_tiles([np.zeros((0, 6))] * 2, TILES).shape == (0, 6)


def test_each_tile_needs_its_detections():
    with pytest.raises(ValueError, match="detections of 1 tiles, but 2 tiles"):
        merge_tiles([np.zeros((0, 6))], TILES)


def perfect_tiles(objects, tiles_xyxy, least=0.05):
    """What a perfect detector sees: each object, clipped to the tile, where enough of it is inside."""
    tiles = []
    for x0, y0, x1, y1 in tiles_xyxy.tolist():
        clipped = np.clip(objects, [x0, y0, x0, y0], [x1, y1, x1, y1])
        share = (clipped[:, 2:] - clipped[:, :2]).prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
        boxes = clipped[share > least] - [x0, y0, x0, y0]
        scores = 0.5 + 0.4 * share[share > least]  # surer of what it sees better
        tiles.append(np.column_stack((boxes, scores, np.zeros(len(boxes)))))
    return tiles


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("size", [(6, 6), (30, 22), (60, 90), (160, 130)])
@pytest.mark.parametrize("seam", ["vertical", "horizontal", "both"])
def test_an_object_at_every_offset_of_a_seam_comes_out_whole_exactly_once(size, overlap, seam):
    tiles_xyxy = tile_boxes(300, 300, 100, overlap)
    step = max(1, max(size) // 8)
    for offset in range(2, 298 - max(size), step):
        x = offset if seam != "horizontal" else 20
        y = offset if seam != "vertical" else 20
        objects = np.array([[x, y, x + size[0], y + size[1]]], float)
        merged = merge_tiles(perfect_tiles(objects, tiles_xyxy), tiles_xyxy, MergeRule(threshold=0.45))
        assert len(merged) == 1, f"offset {offset}"
        if overlap:
            np.testing.assert_allclose(merged[0, :4], objects[0], atol=1e-3, err_msg=f"offset {offset}")
        else:  # a sliver beyond a seam goes unseen
            assert iou_matrix(merged[:, :4], objects)[0, 0] > 0.9, f"offset {offset}"


def test_neighbors_along_a_seam_stay_apart():
    tiles_xyxy = tile_boxes(180, 100, 100, 0.2)
    objects = np.array([(58, 5, 84, 30), (85, 5, 118, 30), (60, 40, 110, 60), (70, 62, 112, 90)], float)
    merged = merge_tiles(perfect_tiles(objects, tiles_xyxy), tiles_xyxy)[:, :4]
    np.testing.assert_allclose(merged[np.lexsort(merged.T)], objects[np.lexsort(objects.T)], atol=1e-3)


def test_the_full_image_shows_what_is_larger_than_a_tile():
    tiles_xyxy = np.concatenate((tile_boxes(300, 300, 100, 0.2), [[0, 0, 300, 300]]))
    objects = np.array([[30.0, 20, 280, 290], [150, 150, 162, 162]])
    tiles = perfect_tiles(objects, tiles_xyxy, least=0.03)
    merged = merge_tiles(tiles, tiles_xyxy)[:, :4]
    np.testing.assert_allclose(merged[np.argsort(merged[:, 0])], objects, atol=1e-3)


DETECTIONS = np.array(
    [[0, 0, 10, 10, 0.9, 0], [8, 0, 30, 10, 0.8, 0], [1, 0, 9, 9, 0.7, 0], [50, 0, 60, 9, 0.6, 1]]
)


@pytest.mark.parametrize(
    "method, metric, threshold, expected",
    [
        ("nms", "iou", 0.5, [[0, 0, 10, 10], [8, 0, 30, 10], [50, 0, 60, 9]]),
        ("nms", "ios", 0.1, [[0, 0, 10, 10], [50, 0, 60, 9]]),
        ("nmm", "ios", 0.1, [[0, 0, 30, 10], [50, 0, 60, 9]]),
        ("nmm", "iou", 0.5, [[0, 0, 10, 10], [8, 0, 30, 10], [50, 0, 60, 9]]),
        ("nmm", "iou", 0.05, [[0, 0, 30, 10], [50, 0, 60, 9]]),
    ],
)
def test_boxes_that_overlap_are_dropped_or_merged(method, metric, threshold, expected):
    merged = merge_tiles([DETECTIONS], [[0, 0, 100, 100]], MergeRule(method, metric, threshold))
    np.testing.assert_allclose(merged[:, :4], expected)
    assert (merged[:-1, 4] >= merged[1:, 4]).all()


def test_greedy_merging_equals_the_plain_loop():
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 100, (200, 2))
    detections = np.column_stack(
        (corner, corner + rng.uniform(5, 30, (200, 2)), rng.random(200), rng.integers(0, 2, 200))
    )
    detections = detections[np.argsort(-detections[:, 4])].astype(np.float32)
    left, expected = list(detections), []
    while left:
        best = left[0]
        taken = [
            one for one in left if one[5] == best[5] and iou_matrix(best[None, :4], one[None, :4])[0, 0] > 0.3
        ]
        enclosing = [*np.min(taken, 0)[:2], *np.max(taken, 0)[2:4]]
        expected.append([*enclosing, best[4], best[5]])
        left = [one for one in left if not any(one is other for other in taken)]
    merged = merge_tiles([detections], [[0, 0, 140, 140]], MergeRule("nmm", "iou", 0.3))
    np.testing.assert_allclose(merged, expected, rtol=1e-6)
