"""utils/merge.py: tiles back to the picture."""

import numpy as np
import pytest

from utils.merge import merge_tiles

WINDOWS = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])


def test_detections_move_to_their_place_and_doubles_merge():
    left = np.array([[85.0, 10, 95, 20, 0.6, 0], [1, 1, 9, 9, 0.9, 1]])
    right = np.array([[5.0, 10, 15, 20, 0.8, 0]])  # the same object, 80 px further right
    merged = merge_tiles([left, right], WINDOWS)
    np.testing.assert_allclose(merged, [[1, 1, 9, 9, 0.9, 1], [85, 10, 95, 20, 0.8, 0]], rtol=1e-6)
    assert left[0, 0] == 85, "the input stays as it was"


def test_classes_merge_apart_unless_agnostic():
    left = np.array([[85.0, 10, 95, 20, 0.6, 0]])
    right = np.array([[5.0, 10, 15, 20, 0.8, 1]])
    assert len(merge_tiles([left, right], WINDOWS)) == 2
    assert len(merge_tiles([left, right], WINDOWS, agnostic=True)) == 1


def test_the_cut_part_of_an_object_goes_where_another_tile_saw_it_whole():
    left = np.array([[82.0, 10, 100, 40, 0.9, 0]])  # cut at x = 100
    right = np.array([[2.0, 10, 35, 40, 0.8, 0]])
    np.testing.assert_allclose(merge_tiles([left, right], WINDOWS), [[82, 10, 115, 40, 0.8, 0]], rtol=1e-6)
    assert len(merge_tiles([left, right * [1, 1, 1, 1, 0.1, 1]], WINDOWS)) == 2, "too unsure to replace it"
    assert len(merge_tiles([left, np.add(right, [0, 0, 0, 0, 0, 1])], WINDOWS)) == 2, "another class"
    assert len(merge_tiles([left, np.zeros((0, 6))], WINDOWS)) == 1, "nothing to replace it"


def test_the_side_of_the_picture_cuts_nothing():
    inner = [0.0, 10, 12, 40, 0.5, 0]
    outer = [0.0, 5, 30, 45, 0.9, 0]
    assert len(merge_tiles([np.array([inner, outer])], WINDOWS[:1], iou_thres=0.6)) == 2


def test_perfect_tiles_merge_to_the_perfect_picture():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(5, 350, 50), np.arange(5, 350, 50))
    corner = np.stack((x.ravel(), y.ravel()), 1) + rng.uniform(0, 5, (49, 2))
    objects = np.concatenate((corner, corner + rng.uniform(8, 38, (49, 2))), 1)
    starts = [0, 80, 160, 240]
    windows = np.array([[x, y, x + 120, y + 120] for y in starts for x in starts])
    tiles = []
    for x0, y0, x1, y1 in windows:
        clipped = np.clip(objects, [x0, y0, x0, y0], [x1, y1, x1, y1])
        share = (clipped[:, 2:] - clipped[:, :2]).prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
        seen = clipped[share > 0.1] - [x0, y0, x0, y0]
        tiles.append(np.column_stack((seen, np.full(len(seen), 0.9), np.zeros(len(seen)))))
    inside = objects[(objects[:, 2:] < 360).all(1)]
    merged = merge_tiles(tiles, windows)[:, :4]
    merged = merged[(merged[:, 2:] < 359.5).all(1)]
    np.testing.assert_allclose(merged[np.lexsort(merged.T)], inside[np.lexsort(inside.T)], atol=1e-3)


def test_the_best_are_kept():
    rows = np.array([[i * 10.0, 0, i * 10 + 5, 5, i / 10, 0] for i in range(8)])
    merged = merge_tiles([rows, np.zeros((0, 6))], WINDOWS, max_det=3)
    np.testing.assert_allclose(merged[:, 4], [0.7, 0.6, 0.5], rtol=1e-6)


def test_no_tiles_and_empty_tiles_give_no_rows():
    assert merge_tiles([], np.zeros((0, 4))).shape == (0, 6)
    assert merge_tiles([np.zeros((0, 6))] * 2, WINDOWS).shape == (0, 6)


def test_tiles_and_windows_must_pair_up():
    with pytest.raises(ValueError, match="1 tiles of detections but 2 windows"):
        merge_tiles([np.zeros((0, 6))], WINDOWS)
