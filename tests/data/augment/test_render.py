from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.augment.loaded_image import LoadedImage
from data.augment.plan import draw_colors, mosaic_matrices
from data.augment.render import augmented, change_colors, color_table
from data.augment.settings import AugmentationSettings
from data.augment.warp import draw_warped, warp_boxes
from data.letterbox import letterbox
from utils.errors import UserError

SIZE = 128
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
STRONG = AugmentationSettings.only(
    degrees=20, translate=0.2, scale=0.5, shear=5, perspective=0.0005, flipud=0.5, fliplr=0.5
)


def rectangle(number: int, width: int = 120, height: int = 90) -> LoadedImage:
    """A rectangle of one color, its class, on black."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y = 20 + 7 * number, 15 + 5 * number
    image[y : y + 40, x : x + 50] = COLORS[number]
    return LoadedImage(image, np.array([[x, y, x + 50, y + 40]], np.float32), np.array([number]))


def others() -> object:
    numbers = iter([1, 2, 3] * 3)
    return lambda: rectangle(next(numbers))


def pixels_of(image: np.ndarray, number: int) -> np.ndarray | None:
    """The smallest box around the pixels that are mostly of a color."""
    close = np.abs(image.astype(int) - COLORS[number]).max(axis=2) < 110
    rows, columns = np.nonzero(close)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def assert_boxes_follow_pixels(sample: LoadedImage) -> None:
    boxes = dict(zip(sample.classes.tolist(), sample.boxes_xyxy, strict=True))
    for number in range(4):
        enclosing = pixels_of(sample.pixels, number)
        if number in boxes:
            assert enclosing is not None
            box = boxes[number]
            assert (box[:2] <= enclosing[:2] + 2).all()
            assert (box[2:] >= enclosing[2:] - 2).all()
            if box.min() > 0 and box.max() < sample.pixels.shape[0]:  # no turned corner cut off by the border
                np.testing.assert_allclose(box, enclosing, atol=2.0)
        elif enclosing is not None:
            assert min(enclosing[2:] - enclosing[:2]) <= 20  # little of it was left


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]))
def test_boxes_follow_the_pixels(seed: int, mosaic: float, rot90: float) -> None:
    augmentation = STRONG.model_copy(update={"mosaic": mosaic, "rot90": rot90})
    sample = augmented(rectangle(0), others(), augmentation, SIZE, np.random.default_rng(seed))
    assert sample.pixels.shape == (SIZE, SIZE, 3)
    assert sample.boxes_xyxy.min(initial=0) >= 0
    assert sample.boxes_xyxy.max(initial=0) <= SIZE
    assert_boxes_follow_pixels(sample)


@pytest.mark.parametrize("name", ["flipud", "fliplr", "rot90", "degrees", "scale", "shear", "translate"])
def test_each_change_alone_moves_boxes_with_pixels(name: str) -> None:
    strength = {"degrees": 30.0, "scale": 0.5, "shear": 10.0, "translate": 0.2}.get(name, 1.0)
    plain = augmented(rectangle(0), others(), AugmentationSettings.only(), SIZE, np.random.default_rng(0))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sample = augmented(rectangle(0), others(), AugmentationSettings.only(**{name: strength}), SIZE, rng)
        assert_boxes_follow_pixels(sample)
        assert not np.array_equal(sample.pixels, plain.pixels)


def test_everything_off_is_the_letterbox() -> None:
    first = rectangle(0)
    sample = augmented(first, others(), AugmentationSettings.only(), SIZE, np.random.default_rng(0))
    image, placed = letterbox(first.pixels, SIZE)
    np.testing.assert_array_equal(sample.pixels, image)
    np.testing.assert_array_equal(sample.boxes_xyxy, placed.to_network(first.boxes_xyxy))


def test_a_quarter_turn_four_times_is_nothing() -> None:
    turned = rectangle(0, 90, 90)
    seen = set()
    for seed in range(30):
        sample = augmented(
            turned, others(), AugmentationSettings.only(rot90=1.0), 90, np.random.default_rng(seed)
        )
        assert_boxes_follow_pixels(sample)
        seen.add(tuple(sample.boxes_xyxy[0].tolist()))
    assert len(seen) == 3


def test_a_mosaic_shows_four_images_that_do_not_overlap() -> None:
    images = [rectangle(number) for number in range(4)]
    matrices = mosaic_matrices(images, SIZE, np.random.default_rng(3))
    times = np.zeros((2 * SIZE, 2 * SIZE), int)
    for image, matrix in zip(images, matrices, strict=True):
        canvas = np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8)
        draw_warped(canvas, np.full_like(image.pixels, 255), matrix)
        times += canvas[..., 0] > 128
    assert times.max() == 1
    assert times.sum() > 3.5 * SIZE * SIZE * 0.5


def test_a_broken_partner_leaves_its_quarter_gray() -> None:
    sample = augmented(
        rectangle(0), lambda: None, AugmentationSettings.only(mosaic=1.0), SIZE, np.random.default_rng(0)
    )
    assert set(sample.classes.tolist()) <= {0}


def test_mixup_blends_two_images_and_keeps_the_boxes_of_both() -> None:
    sample = augmented(
        rectangle(0), others(), AugmentationSettings.only(mixup=1.0), SIZE, np.random.default_rng(0)
    )
    assert sample.classes.tolist() == [0, 1]


def test_warping_keeps_what_yolov5_keeps() -> None:
    boxes = np.array([[0, 0, 20, 20], [119, 0, 139, 20], [0, 0, 2, 50], [0, 0, 120, 1.1]], np.float32)
    _, keep = warp_boxes(boxes, np.eye(3), (120, 120))
    assert keep.tolist() == [True, False, False, False]


def test_warping_drops_boxes_that_reach_behind_the_viewer() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # depth 1 - x / 100
    boxes = np.array([[10, 10, 20, 20], [90, 10, 110, 20], [90, 10, 100, 20], [110, 10, 120, 20]], np.float32)
    for matrices in (matrix, np.stack([matrix] * 4)):
        moved, keep = warp_boxes(boxes, matrices, (120, 120))
        assert keep.tolist() == [True, False, False, False]
        np.testing.assert_allclose(moved[0], [10 / 0.9, 10 / 0.9, 20 / 0.8, 20 / 0.8], rtol=1e-6)


def test_identity_warp_copies_the_image_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    canvas = np.zeros((60, 60, 3), np.uint8)
    draw_warped(canvas, image, np.array([[1.0, 0, 5], [0, 1.0, 3], [0, 0, 1.0]]))
    np.testing.assert_array_equal(canvas[3:43, 5:55], image)
    assert canvas.sum() == image.sum()


def test_colors_off_change_nothing_and_gray_stays_gray() -> None:
    image = np.full((4, 4, 3), 90, np.uint8)
    changed = image.copy()
    change_colors(changed, color_table(np.ones(3)))
    assert (changed == image).all()
    change_colors(changed, color_table(draw_colors((0.015, 0.7, 0.4), np.random.default_rng(0))))
    assert (changed == changed[..., :1]).all()
    assert (changed != image).any()


@pytest.mark.parametrize("name", AugmentationSettings.model_fields)
def test_strengths_out_of_range_are_named(name: str) -> None:
    for value in (-0.1, 1000.0, float("nan"), True, "0"):
        with pytest.raises(UserError, match=f"'{name}'"):
            AugmentationSettings(**{name: value})


def test_unknown_strengths_get_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"unknown key 'mozaic'\. Did you mean 'mosaic'"):
        AugmentationSettings(mozaic=1.0)
