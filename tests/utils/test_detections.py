"""Detections: lossless from and to NMS rows, selected and scaled."""

from __future__ import annotations

import numpy as np
import pytest

from utils.detections import Detections

ROWS = np.array([[0, 1, 10, 21, 0.9, 3], [5, 5, 8, 8, 0.25, 0], [-4, 2, 300, 90, 0.5, 1]], np.float32)


def test_rows_of_nms_are_kept_exactly() -> None:
    detections = Detections.from_array(ROWS)
    np.testing.assert_array_equal(detections.to_array(), ROWS)
    assert detections.class_ids.dtype == np.int64 and len(detections) == 3
    assert Detections.empty().to_array().shape == (0, 6)


@pytest.mark.parametrize("which", [np.array([True, False, True]), np.array([0, 2]), slice(0, 3, 2)])
def test_a_selection_keeps_everything_together(which: object) -> None:
    detections = Detections(
        *(getattr(Detections.from_array(ROWS), name) for name in ("xyxy", "scores", "class_ids")),
        np.array([7, 8, 9]),
    )
    chosen = detections[which]  # type: ignore[index]
    np.testing.assert_array_equal(chosen.to_array(), ROWS[[0, 2]])
    assert chosen.track_ids is not None and chosen.track_ids.tolist() == [7, 9]


def test_boxes_are_scaled_and_clipped_to_the_image() -> None:
    detections = Detections.from_array(ROWS)
    np.testing.assert_array_equal(detections.scaled(2).xyxy, ROWS[:, :4] * 2)
    assert detections.clipped(200, 50).xyxy[2].tolist() == [0, 2, 200, 50]
    assert detections.xyxy[2, 0] == -4, "the original is not changed"


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64))
