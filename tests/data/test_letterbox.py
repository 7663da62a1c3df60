from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.letterbox import GRAY, Letterbox, fit, letterbox, resize

sides = st.integers(1, 5000)
inputs = st.tuples(st.integers(32, 1280), st.integers(32, 1280))


@settings(deadline=None)
@given(sides, sides, inputs)
def test_a_fitted_image_fills_the_input_in_one_direction(
    width: int, height: int, size: tuple[int, int]
) -> None:
    placed, new_w, new_h = fit(width, height, size)
    assert new_h == size[0] or new_w == size[1]
    assert 0 <= placed.pad_x <= size[1] - new_w
    assert 0 <= placed.pad_y <= size[0] - new_h
    whole = placed.to_network(np.array([0, 0, width, height], float))
    left, top = placed.pad_x, placed.pad_y
    np.testing.assert_allclose(whole, [left, top, left + new_w, top + new_h], atol=1e-6)


@settings(deadline=None)
@given(sides, sides, inputs, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back_exactly(width: int, height: int, size: tuple[int, int], shares: list[float]) -> None:
    placed, _, _ = fit(width, height, size)
    x0, x1 = sorted(shares[:2])
    y0, y1 = sorted(shares[2:])
    boxes = np.array([[x0 * width, y0 * height, x1 * width, y1 * height]])
    np.testing.assert_allclose(
        placed.to_image(placed.to_network(boxes)), boxes, atol=1e-8 * max(width, height)
    )


def test_boxes_from_the_border_are_clipped_to_the_image_and_further_columns_stay() -> None:
    placed = Letterbox(0.5, 10.0, 20.0, 100, 60)
    rows = torch.tensor([[0.0, 0.0, 500.0, 500.0, 0.9, 3.0]])
    assert placed.to_image(rows).tolist() == [[0.0, 0.0, 100.0, 60.0, 0.8999999761581421, 3.0]]
    assert rows[0, 2] == 500  # the argument is left alone


def test_whole_number_boxes_keep_their_fractions() -> None:
    placed = Letterbox(0.5, 0.0, 0.0, 100, 60)
    assert placed.to_network(np.array([[1, 1, 3, 3]])).tolist() == [[0.5, 0.5, 1.5, 1.5]]
    assert placed.to_network(torch.tensor([[1, 1, 3, 3]])).tolist() == [[0.5, 0.5, 1.5, 1.5]]


def test_the_image_lies_where_the_letterbox_says_and_the_rest_is_gray() -> None:
    image = np.full((30, 60, 3), 200, np.uint8)
    result, placed = letterbox(image, 128)
    x0, y0, x1, y1 = placed.to_network(np.array([0, 0, 60, 30])).astype(int)
    assert (x0, y0, x1, y1) == (0, 32, 128, 96)
    assert (result[y0:y1, x0:x1] == 200).all()
    assert (result[:y0] == GRAY).all()
    assert (result[y1:] == GRAY).all()


def test_with_a_stride_the_border_is_as_small_as_it_can_be() -> None:
    image = np.zeros((500, 1000, 3), np.uint8)
    result, placed = letterbox(image, 640, stride=32)
    assert result.shape == (320, 640, 3)
    assert (placed.pad_x, placed.pad_y) == (0, 0)
    assert letterbox(image, 630, stride=32)[0].shape == (320, 640, 3)


def test_an_image_of_the_right_size_is_returned_as_it_is() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert letterbox(image, 64)[0] is image


def test_an_image_that_shrinks_is_averaged_or_interpolated_as_asked() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    for interpolation, flag in (("area", cv2.INTER_AREA), ("linear", cv2.INTER_LINEAR)):
        expected = cv2.resize(image, (30, 20), interpolation=flag)
        np.testing.assert_array_equal(resize(image, 30, 20, interpolation), expected)
        np.testing.assert_array_equal(letterbox(image, 30, interpolation=interpolation)[0][5:25], expected)
        enlarged = cv2.resize(image, (180, 120), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize(image, 180, 120, interpolation), enlarged)


def test_sizes_are_rounded_as_asked() -> None:
    assert fit(64, 130, (96, 96))[1:] == (47, 96)
    assert fit(64, 130, (96, 96), rounding=math.ceil)[1:] == (48, 96)
