"""What happens to one training sample, drawn before a pixel is touched, and what it does to the boxes.

The pixels follow in worker processes (data/augment.py) or on the training device (data/device_augment.py);
both read the same plan, so that they have the same boxes and the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.augment.copy_paste import Patch, draw_patches
from data.augment.warp import Upright, shift, upright, warp_boxes, warped_hulls
from data.detection.image_record import no_boxes
from data.letterbox import fit

if TYPE_CHECKING:
    from data.augment.render import Augmentation

Shape = tuple[int, int]


class LoadedImage(NamedTuple):
    """Pixels (H, W, 3) uint8 BGR, boxes (n, 4) in pixels of it, classes (n,), regions to ignore (k, 4)."""

    image: np.ndarray
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    ignore_xyxy: np.ndarray = no_boxes()


@dataclass(frozen=True)
class Layer:
    """One image, or a mosaic of up to four.

    Attributes:
        views: the images.
        matrices: of each, 3x3: pixels of the image -> pixels of the sample.
        places: of each, where it is resized to; None where it is warped.
        letterboxed: it is one image that is only scaled, into whole pixels.
        boxes_xyxy: (n, 4) float32, pixels of the sample.
        classes: (n,).
        ignore_xyxy: (k, 4), pixels of the sample.
        patches: small objects that are pasted on top; their boxes are among the others.
    """

    views: list[LoadedImage]
    matrices: list[np.ndarray]
    places: list[Upright | None]
    letterboxed: bool
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    ignore_xyxy: np.ndarray
    patches: list[Patch] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Layers are blended, then colors change, then the whole is flipped and turned.

    Attributes:
        layers: one, or two that are blended.
        weight: share of the first layer.
        colors: factors (3,) of hue, saturation and brightness; None leaves them.
        upside_down: flip rows.
        mirrored: flip columns, afterwards.
        turns: quarter turns counterclockwise, after the flips.
        shape: height and width of the sample, pixels.
    """

    layers: list[Layer]
    weight: float
    colors: np.ndarray | None
    upside_down: bool
    mirrored: bool
    turns: int
    shape: Shape

    def truth(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), classes (n,) and regions to ignore (k, 4) of the finished sample, in its pixels."""
        boxes, classes, ignore = (
            np.concatenate([getattr(layer, name) for layer in self.layers])
            for name in ("boxes_xyxy", "classes", "ignore_xyxy")
        )
        turned = self.turned(np.concatenate([boxes, ignore]))
        return turned[: len(boxes)], classes, turned[len(boxes) :]

    def turned(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) of the layers -> boxes of the finished sample."""
        boxes, (height, width) = boxes_xyxy, self.shape
        if self.upside_down:
            boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)
        if self.mirrored:
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        for _ in range(self.turns):
            boxes = np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], axis=1)
        return boxes

    def turned_pixels(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) of the layers -> of the finished sample; no pixel is copied."""
        if self.upside_down:
            image = image[::-1]
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.turns) if self.turns else image

    def turn_matrix(self) -> np.ndarray:
        """3x3: pixels of the layers -> pixels of the finished sample."""
        matrix, (height, width) = np.eye(3), self.shape
        if self.upside_down:
            matrix = np.array([[1.0, 0, 0], [0, -1, height], [0, 0, 1]]) @ matrix
        if self.mirrored:
            matrix = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) @ matrix
        for _ in range(self.turns):
            matrix = np.array([[0.0, 1, 0], [-1, 0, width], [0, 0, 1]]) @ matrix
        return matrix


def draw_plan(
    first: LoadedImage,
    other: Callable[[], LoadedImage | None],
    augmentation: Augmentation,
    shape: Shape,
    rng: np.random.Generator,
) -> Plan:
    """Draw everything that is random about a sample.

    Args:
        first: the image that the sample is about.
        other: draws another image; None where that one is broken.
        augmentation: how much of what.
        shape: height and width of the sample, pixels; a square for mosaics and quarter turns.
        rng: the source of every random number.
    """
    layers, weight = [_layer(first, other, augmentation, shape, rng)], 1.0
    if rng.random() < augmentation.mixup:
        second = other()
        if second is not None:
            layers.append(_layer(second, other, augmentation, shape, rng))
            weight = rng.beta(32.0, 32.0)
    gains = (augmentation.hsv_h, augmentation.hsv_s, augmentation.hsv_v)
    colors = draw_colors(gains, rng) if any(gains) else None
    upside_down, mirrored = rng.random() < augmentation.flipud, rng.random() < augmentation.fliplr
    turns = int(rng.integers(1, 4)) if rng.random() < augmentation.rot90 else 0
    return Plan(layers, weight, colors, upside_down, mirrored, turns, shape)


def draw_colors(gains: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Return factors (3,) of hue, saturation and brightness, each 1 up to its gain."""
    return 1 + rng.uniform(-1, 1, 3) * gains


def _layer(
    first: LoadedImage,
    other: Callable[[], LoadedImage | None],
    augmentation: Augmentation,
    shape: Shape,
    rng: np.random.Generator,
) -> Layer:
    """One image or a mosaic of four, warped into the shape."""
    views, letterboxed = [first], False
    if rng.random() < augmentation.mosaic:
        views += [view for view in (other() for _ in range(3)) if view is not None]
        places = mosaic_places(views, shape[0], rng)
        warp = random_warp(augmentation, (2 * shape[0], 2 * shape[1]), shape, rng)
    else:
        placed, _, _ = fit(first.image.shape[1], first.image.shape[0], shape)
        diagonal = np.diag([placed.scale, placed.scale * placed.stretch, 1.0])
        places, letterboxed = [shift(placed.pad_x, placed.pad_y) @ diagonal], not augmentation.warps
        warp = np.eye(3) if letterboxed else random_warp(augmentation, shape, shape, rng)
    exact = [
        upright(warp @ place, view.image.shape[1::-1], shape)
        for view, place in zip(views, places, strict=True)
    ]
    matrices = [matrix for matrix, _ in exact]
    if letterboxed:
        boxes, regions = [placed.to_network(first.boxes_xyxy)], [placed.to_network(first.ignore_xyxy)]
        classes = [first.classes]
    else:
        boxes, classes, regions = _warped_truth(views, matrices, shape)
    patches: list[Patch] = []
    if augmentation.copy_paste:
        sources = list(zip(views, matrices, boxes, strict=True))
        patches, added, kinds = draw_patches(
            sources, np.concatenate(regions), shape, augmentation.copy_paste, rng
        )
        boxes.append(added)
        classes.append(kinds)
    truth = [np.concatenate(parts) for parts in (boxes, classes, regions)]
    return Layer(
        views, matrices, [place for _, place in exact], letterboxed, truth[0], truth[1], truth[2], patches
    )


def _warped_truth(
    views: list[LoadedImage], matrices: list[np.ndarray], shape: Shape
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Boxes, classes and regions to ignore of each view, as far as they are left on the sample."""
    counts = [len(view.boxes_xyxy) for view in views]
    each = np.repeat(np.stack(matrices), counts, axis=0)  # (n, 3, 3)
    moved, keep = warp_boxes(np.concatenate([view.boxes_xyxy for view in views]), each, shape)
    boxes, classes, regions, start = [], [], [], 0
    for view, matrix, count in zip(views, matrices, counts, strict=True):
        kept = keep[start : start + count]
        boxes.append(moved[start : start + count][kept])
        classes.append(view.classes[kept])
        start += count
        if len(view.ignore_xyxy):
            hulls = warped_hulls(view.ignore_xyxy, matrix, shape)
            regions.append(hulls[(hulls[:, 2:] > hulls[:, :2]).all(axis=1)])
    return boxes, classes, regions or [np.zeros((0, 4))]


def mosaic_places(views: list[LoadedImage], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return up to four 3x3 matrices: view pixels -> a 2 size x 2 size canvas, around a random point.

    Each view is scaled so that its longer side is `size` and lies with one corner on the point.
    """
    center = rng.uniform(size / 2, size * 3 / 2, 2)
    places = []
    for number, view in enumerate(views):
        height, width = view.image.shape[:2]
        scale = size / max(height, width)
        left = center[0] - (width * scale if number % 2 == 0 else 0)
        top = center[1] - (height * scale if number < 2 else 0)
        places.append(shift(left, top) @ np.diag([scale, scale, 1.0]))
    return places


def random_warp(
    augmentation: Augmentation, canvas: Shape, shape: Shape, rng: np.random.Generator
) -> np.ndarray:
    """Return a 3x3 matrix: pixels of a canvas (height, width) -> pixels of the shape, center near center."""

    def draw(limit: float) -> float:
        return rng.uniform(-limit, limit)

    perspective = np.eye(3)
    perspective[2, :2] = draw(augmentation.perspective), draw(augmentation.perspective)
    angle, zoom = np.deg2rad(draw(augmentation.degrees)), 1 + draw(augmentation.scale)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad([draw(augmentation.shear), draw(augmentation.shear)]))
    x, y = (side * (0.5 + draw(augmentation.translate)) for side in (shape[1], shape[0]))
    return shift(x, y) @ shear @ rotation @ perspective @ shift(-canvas[1] / 2, -canvas[0] / 2)
