"""Training pictures: mosaic, random perspective, colour, flips and mixing, with YOLOv5's hyperparameters.

A picture's pixels are interpolated once: its place in the mosaic and the random perspective are one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np

from data.boxwarp import draw_warped, shift, warp_boxes, warped_hulls
from data.image_record import ImageRecord, Window, no_boxes
from data.letterbox import GREY, fit, letterbox
from utils.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """How much of what; everything off is the plain letterbox.

    Attributes:
        hsv_h: hue changes by up to this share of itself.
        hsv_s: saturation changes by up to this share.
        hsv_v: brightness changes by up to this share.
        degrees: rotation up to this, either way.
        translate: shift up to this share of the side, either way.
        scale: zoom from 1 - scale to 1 + scale.
        shear: shear up to this many degrees, either way.
        perspective: strength of the perspective, 0 to 0.001.
        flipud: probability of a flip upside down.
        fliplr: probability of a flip left to right.
        mosaic: probability of four pictures around a random point instead of one.
        mixup: probability of blending with a second such picture.
        rot90: probability of one to three quarter turns, for pictures without an up, such as aerial ones.
        tile_jitter: a tile is moved by up to this share of its side, within its photograph.

    Raises:
        UserError: a value is out of range.
    """

    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    rot90: float = 0.0
    tile_jitter: float = 0.0

    def __post_init__(self) -> None:
        largest = {"degrees": 180.0, "shear": 40.0, "perspective": 0.01, "scale": 0.99}
        for item in fields(self):
            value, high = getattr(self, item.name), largest.get(item.name, 1.0)
            if not 0 <= value <= high:
                raise UserError(f"augmentation '{item.name}' must be from 0 to {high:g}, got {value!r}")

    @property
    def warps(self) -> bool:
        """Whether a single picture is more than letterboxed."""
        return any((self.degrees, self.translate, self.scale, self.shear, self.perspective))


class View(NamedTuple):
    """Pixels (H, W, 3) uint8 BGR, boxes (n, 4) in pixels of it, classes (n,), regions to ignore (k, 4)."""

    image: np.ndarray
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    ignore_xyxy: np.ndarray = no_boxes()


def augmented(
    first: View,
    other: Callable[[], View | None],
    augmentation: Augmentation,
    size: int,
    rng: np.random.Generator,
) -> View:
    """Return a training picture of size x size pixels made from `first` and others.

    Args:
        first: the picture that the sample is about.
        other: draws another picture; None where that one is broken.
        augmentation: how much of what.
        size: side of the result, pixels.
        rng: the source of every random number.
    """
    view = _composed(first, other, augmentation, size, rng)
    if rng.random() < augmentation.mixup:
        second = other()
        if second is not None:
            view = _mixed(view, _composed(second, other, augmentation, size, rng), rng)
    image = change_colours(view.image, (augmentation.hsv_h, augmentation.hsv_s, augmentation.hsv_v), rng)
    return _turned(view._replace(image=image), augmentation, rng)


def _composed(
    first: View,
    other: Callable[[], View | None],
    augmentation: Augmentation,
    size: int,
    rng: np.random.Generator,
) -> View:
    """One picture or a mosaic of four, warped into size x size."""
    if rng.random() < augmentation.mosaic:
        views = [first] + [view for view in (other() for _ in range(3)) if view is not None]
        places, canvas = mosaic_places(views, size, rng), 2 * size
    elif not augmentation.warps:
        image, placed = letterbox(first.image, size)
        moved, ignore = (placed.to_network(boxes) for boxes in (first.boxes_xyxy, first.ignore_xyxy))
        return View(image.copy(), moved, first.classes, ignore)
    else:
        placed, _, _ = fit(first.image.shape[1], first.image.shape[0], (size, size))
        diagonal = np.diag([placed.scale, placed.scale * placed.stretch, 1.0])
        places, views, canvas = [shift(placed.pad_x, placed.pad_y) @ diagonal], [first], size
    warp = random_warp(augmentation, canvas, size, rng)
    image = np.full((size, size, 3), GREY, np.uint8)
    boxes, classes, regions = [], [], []
    for view, place in zip(views, places, strict=True):
        draw_warped(image, view.image, warp @ place)
        moved, keep = warp_boxes(view.boxes_xyxy, warp @ place, size)
        boxes.append(moved[keep])
        classes.append(view.classes[keep])
        hulls = warped_hulls(view.ignore_xyxy, warp @ place, size)
        regions.append(hulls[(hulls[:, 2:] > hulls[:, :2]).all(axis=1)])
    return View(image, np.concatenate(boxes), np.concatenate(classes), np.concatenate(regions))


def mosaic_places(views: list[View], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return up to four 3x3 matrices: view pixels -> a 2 size x 2 size canvas, around a random point.

    Each view is scaled so that its longer side is `size` and lies with one corner on the point.
    """
    centre = rng.uniform(size / 2, size * 3 / 2, 2)
    places = []
    for number, view in enumerate(views):
        height, width = view.image.shape[:2]
        scale = size / max(height, width)
        left = centre[0] - (width * scale if number % 2 == 0 else 0)
        top = centre[1] - (height * scale if number < 2 else 0)
        places.append(shift(left, top) @ np.diag([scale, scale, 1.0]))
    return places


def random_warp(augmentation: Augmentation, canvas: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a 3x3 matrix: canvas x canvas pixels -> size x size pixels around the canvas's centre."""

    def draw(limit: float) -> float:
        return rng.uniform(-limit, limit)

    perspective = np.eye(3)
    perspective[2, :2] = draw(augmentation.perspective), draw(augmentation.perspective)
    angle, zoom = np.deg2rad(draw(augmentation.degrees)), 1 + draw(augmentation.scale)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad([draw(augmentation.shear), draw(augmentation.shear)]))
    x, y = (size * (0.5 + draw(augmentation.translate)) for _ in range(2))
    return shift(x, y) @ shear @ rotation @ perspective @ shift(-canvas / 2, -canvas / 2)


def change_colours(
    image: np.ndarray, gains: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Scale hue, saturation and brightness of a BGR picture at random, each by up to its gain."""
    if not any(gains):
        return image
    factors = 1 + rng.uniform(-1, 1, 3) * gains
    levels = np.arange(256)[:, None] * factors  # (256, 3)
    table = np.clip(levels, 0, 255)
    table[:, 0] = levels[:, 0] % 180
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table.astype(np.uint8)[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _mixed(view: View, second: View, rng: np.random.Generator) -> View:
    """Both pictures blended about half and half; the truth of both. Zhang et al., arXiv:1710.09412."""
    weight = rng.beta(32.0, 32.0)
    image = cv2.addWeighted(view.image, weight, second.image, 1 - weight, 0)
    truth = (np.concatenate(pair) for pair in zip(view[1:], second[1:], strict=True))
    return View(image, *truth)


def _turned(view: View, augmentation: Augmentation, rng: np.random.Generator) -> View:
    """Flips and quarter turns of a square picture."""
    image = view.image
    boxes = np.concatenate([view.boxes_xyxy, view.ignore_xyxy])
    side = image.shape[0]
    if rng.random() < augmentation.flipud:
        image = image[::-1]
        boxes = np.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], axis=1)
    if rng.random() < augmentation.fliplr:
        image = image[:, ::-1]
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], axis=1)
    if rng.random() < augmentation.rot90:
        for _ in range(int(rng.integers(1, 4))):  # a quarter turn is a transposition and a flip upside down
            image = image.transpose(1, 0, 2)[::-1]
            boxes = np.stack([boxes[:, 1], side - boxes[:, 2], boxes[:, 3], side - boxes[:, 0]], axis=1)
    count = len(view.boxes_xyxy)
    return View(image, boxes[:count], view.classes, boxes[count:])


def shifted_window(record: ImageRecord, jitter: float, rng: np.random.Generator) -> Window:
    """Return a tile's window moved by up to `jitter` of its sides, kept inside its photograph."""
    assert record.window is not None and record.parent is not None
    width, height = record.width, record.height
    x, y = record.window[:2] + rng.uniform(-jitter, jitter, 2) * (width, height)
    x0 = int(np.clip(round(x), 0, record.parent.width - width))
    y0 = int(np.clip(round(y), 0, record.parent.height - height))
    return x0, y0, x0 + width, y0 + height
