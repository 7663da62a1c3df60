from __future__ import annotations

import numpy as np
import pytest

from data.augment.copy_paste import LARGEST, Patch, paste
from data.augment.loaded_image import LoadedImage
from data.augment.plan import Plan, draw_plan
from data.augment.render import augmented, draw_pixels
from data.augment.settings import AugmentationSettings

SIZE = 256


def scene(seed: int = 0, count: int = 6, side: tuple[int, int] = (8, 20)) -> LoadedImage:
    """Small bright objects of random pixels on a dark background, apart from each other."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (SIZE, SIZE, 3), np.uint8)
    cells = rng.permutation(16)[:count]
    boxes = []
    for cell in cells:
        x, y = 64 * (cell % 4) + rng.integers(6, 20), 64 * (cell // 4) + rng.integers(6, 20)
        w, h = rng.integers(*side, 2)
        image[y : y + h, x : x + w] = rng.integers(150, 255, (h, w, 3), np.uint8)
        boxes.append([x, y, x + w, y + h])
    return LoadedImage(image, np.array(boxes, np.float32), np.arange(count) % 3)


def plan_of(source_image: LoadedImage, seed: int, **strength: float) -> Plan:
    augmentation = AugmentationSettings.only(copy_paste=1.0, **strength)
    return draw_plan(
        source_image, lambda: scene(seed + 1), augmentation, (SIZE, SIZE), np.random.default_rng(seed)
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    return float(np.prod(np.maximum(high - low, 0)))


@pytest.mark.parametrize("strength", [{}, {"mosaic": 1.0, "scale": 0.3}, {"degrees": 20.0, "mosaic": 1.0}])
def test_what_is_pasted_covers_nothing_labeled_or_ignored_and_adds_a_label(strength: dict) -> None:
    pasted = 0
    for seed in range(12):
        source_image = scene(seed)._replace(ignore_xyxy=np.array([[100, 100, 160, 130]], np.float32))
        layer = plan_of(source_image, seed, **strength).layers[0]
        count = len(layer.patches)
        before = np.concatenate([layer.boxes_xyxy[: len(layer.boxes_xyxy) - count], layer.ignore_xyxy])
        assert len(layer.classes) == len(layer.boxes_xyxy)
        for number, patch in enumerate(layer.patches):
            height, width = patch.pixels.shape[:2]
            place = np.array([patch.x, patch.y, patch.x + width, patch.y + height])
            box = layer.boxes_xyxy[len(layer.boxes_xyxy) - count + number]
            assert (box[:2] >= place[:2]).all()
            assert (box[2:] <= place[2:]).all()
            assert place.min() >= 0
            assert place.max() <= SIZE
            earlier = layer.boxes_xyxy[len(layer.boxes_xyxy) - count :][:number]
            assert not any(overlap(place, other) for other in [*before, *earlier])
            pasted += 1
    assert pasted > 12


def test_the_middle_of_a_pasted_box_is_the_source_and_the_rest_of_the_source_is_untouched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data.augment.copy_paste.RESIZED", (1.0, 1.0))
    source_image = scene(3)
    plan = plan_of(source_image, 3)
    image, layer = draw_pixels(plan), plan.layers[0]
    count = len(source_image.boxes_xyxy)
    assert len(layer.boxes_xyxy) > count
    untouched = np.ones((SIZE, SIZE), bool)
    for patch, box, kind in zip(
        layer.patches, layer.boxes_xyxy[count:].astype(int), layer.classes[count:], strict=True
    ):
        pasted = image[box[1] : box[3], box[0] : box[2]]
        sources = [
            source_image.pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in source_image.boxes_xyxy.astype(int)
        ]
        (number,) = (i for i, source in enumerate(sources) if np.array_equal(source, pasted))
        assert source_image.classes[number] == kind
        untouched[patch.y : patch.y + len(patch.pixels), patch.x : patch.x + patch.pixels.shape[1]] = False
    np.testing.assert_array_equal(image[untouched], source_image.pixels[untouched])


def test_a_patch_fades_towards_its_border() -> None:
    plan = plan_of(scene(1), 1)
    for patch in plan.layers[0].patches:
        assert patch.opacity.max() == 1
        border = [patch.opacity[0], patch.opacity[-1], patch.opacity[:, 0], patch.opacity[:, -1]]
        assert max(edge.max() for edge in border) < 0.6
    image = np.zeros((4, 4, 3), np.uint8)
    paste(image, Patch(np.full((2, 2, 3), 200, np.uint8), np.full((2, 2, 1), 0.5, np.float32), 1, 2))
    assert image[2:, 1:3].min() == 100
    assert image.sum() == 4 * 3 * 100


def test_large_crowded_and_cut_off_objects_are_no_sources() -> None:
    dark = np.zeros((SIZE, SIZE, 3), np.uint8)
    large = LoadedImage(dark, np.array([[20, 20, 22 + LARGEST, 60]], np.float32), np.zeros(1, int))
    touching = large._replace(
        boxes_xyxy=np.array([[50, 50, 60, 60], [54, 54, 64, 64]], np.float32), classes=np.zeros(2, int)
    )
    cut_off = large._replace(boxes_xyxy=np.array([[0, 50, 20, 70]], np.float32))
    for source_image in (large, touching, cut_off):
        assert not plan_of(source_image, 0).layers[0].patches


def test_the_same_numbers_paste_the_same_and_off_draws_none() -> None:
    source_image = scene(5)

    def sample(seed: int, copy_paste: float) -> tuple[LoadedImage, float]:
        rng = np.random.default_rng(seed)
        augmentation = AugmentationSettings.only(copy_paste=copy_paste, mosaic=0.5, translate=0.1, fliplr=0.5)
        return augmented(source_image, lambda: scene(6), augmentation, SIZE, rng), rng.random()

    on, off = sample(1, 1.0), sample(1, 0.0)
    np.testing.assert_array_equal(on[0].pixels, sample(1, 1.0)[0].pixels)
    assert len(on[0].boxes_xyxy) > len(off[0].boxes_xyxy)
    rng = np.random.default_rng(1)
    plain = augmented(
        source_image,
        lambda: scene(6),
        AugmentationSettings.only(mosaic=0.5, translate=0.1, fliplr=0.5),
        SIZE,
        rng,
    )
    np.testing.assert_array_equal(off[0].pixels, plain.pixels)
    assert off[1] == rng.random()
