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
