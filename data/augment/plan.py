"""What happens to one training sample, drawn before a pixel is touched, and what it does to the boxes.

The pixels follow in worker processes (data/augment/render.py) or on the training device
(data/augment/device.py); both follow the same plan, so that boxes and distribution are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data.augment.copy_paste import Patch, draw_patches
from data.augment.loaded_image import LoadedImage
from data.augment.settings import AugmentationSettings
from data.augment.warp import Placement, enclosing_boxes, shift, snap_to_pixels, warp_boxes
from data.letterbox import fit

Shape = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Layer:
    """One image, or a mosaic of up to four.

    Attributes:
        images: what it shows.
        matrices: of each image, 3x3: pixels of the image -> pixels of the sample.
        placements: of each image, where it is resized to; None where it is warped.
        letterboxed: it is one image that is only scaled, into whole pixels.
        boxes_xyxy: (n, 4) float32, pixels of the sample.
        classes: (n,).
        ignore_xyxy: (k, 4), pixels of the sample.
        patches: small objects that are pasted on top; their boxes come last in `boxes_xyxy`.
    """

    images: list[LoadedImage]
    matrices: list[np.ndarray]
    placements: list[Placement | None]
    letterboxed: bool
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    ignore_xyxy: np.ndarray
    patches: list[Patch] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Layers are blended, then colors change, then the sample is flipped and turned.

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

    def annotations(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        """Pixels (H, W, C) of the layers -> of the finished sample; nothing is copied."""
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
    settings: AugmentationSettings,
    shape: Shape,
    rng: np.random.Generator,
) -> Plan:
    """Draw everything that is random about a sample.

    Args:
        first: the image that the sample is about.
        other: draws another image; None where that one is broken.
        settings: how strong each augmentation is.
        shape: height and width of the sample, pixels; a square for mosaics and quarter turns.
        rng: the source of every random number.
    """
    layers, weight = [_layer(first, other, settings, shape, rng)], 1.0
    if rng.random() < settings.mixup:
        second = other()
        if second is not None:
            layers.append(_layer(second, other, settings, shape, rng))
            weight = rng.beta(32.0, 32.0)
    gains = (settings.hsv_h, settings.hsv_s, settings.hsv_v)
    colors = draw_colors(gains, rng) if any(gains) else None
    upside_down, mirrored = rng.random() < settings.flipud, rng.random() < settings.fliplr
    turns = int(rng.integers(1, 4)) if rng.random() < settings.rot90 else 0
    return Plan(layers, weight, colors, upside_down, mirrored, turns, shape)


def draw_colors(gains: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Return factors (3,) of hue, saturation and brightness, each 1 up to its gain."""
    return 1 + rng.uniform(-1, 1, 3) * gains


def _layer(
    first: LoadedImage,
    other: Callable[[], LoadedImage | None],
    settings: AugmentationSettings,
    shape: Shape,
    rng: np.random.Generator,
) -> Layer:
    """One image, or a mosaic of up to four."""
    images, letterboxed = [first], False
    if rng.random() < settings.mosaic:
        images += [image for image in (other() for _ in range(3)) if image is not None]
        matrices = mosaic_matrices(images, shape[0], rng)
        warp = random_warp(settings, (2 * shape[0], 2 * shape[1]), shape, rng)
    else:
        placed, _, _ = fit(first.pixels.shape[1], first.pixels.shape[0], shape)
        diagonal = np.diag([placed.scale, placed.scale * placed.stretch, 1.0])
        matrices, letterboxed = [shift(placed.pad_x, placed.pad_y) @ diagonal], not settings.warps
        warp = np.eye(3) if letterboxed else random_warp(settings, shape, shape, rng)
    snapped = [
        snap_to_pixels(warp @ matrix, image.pixels.shape[1::-1], shape)
        for image, matrix in zip(images, matrices, strict=True)
    ]
    matrices, placements = [matrix for matrix, _ in snapped], [placement for _, placement in snapped]
    if letterboxed:
        boxes, regions = [placed.to_network(first.boxes_xyxy)], [placed.to_network(first.ignore_xyxy)]
        classes = [first.classes]
    else:
        boxes, classes, regions = _warped_annotations(images, matrices, shape)
    patches: list[Patch] = []
    if settings.copy_paste:
        sources = list(zip(images, matrices, boxes, strict=True))
        patches, pasted_boxes, pasted_classes = draw_patches(
            sources, np.concatenate(regions), shape, settings.copy_paste, rng
        )
        boxes.append(pasted_boxes)
        classes.append(pasted_classes)
    return Layer(
        images,
        matrices,
        placements,
        letterboxed,
        np.concatenate(boxes),
        np.concatenate(classes),
        np.concatenate(regions),
        patches,
    )


def _warped_annotations(
    images: list[LoadedImage], matrices: list[np.ndarray], shape: Shape
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Boxes, classes and regions to ignore of each image, as far as they are left on the sample."""
    counts = [len(image.boxes_xyxy) for image in images]
    each = np.repeat(np.stack(matrices), counts, axis=0)  # (n, 3, 3)
    moved, keep = warp_boxes(np.concatenate([image.boxes_xyxy for image in images]), each, shape)
    boxes, classes, regions, start = [], [], [], 0
    for image, matrix, count in zip(images, matrices, counts, strict=True):
        kept = keep[start : start + count]
        boxes.append(moved[start : start + count][kept])
        classes.append(image.classes[kept])
        start += count
        if len(image.ignore_xyxy):
            enclosing = enclosing_boxes(image.ignore_xyxy, matrix, shape)
            regions.append(enclosing[(enclosing[:, 2:] > enclosing[:, :2]).all(axis=1)])
    return boxes, classes, regions or [np.zeros((0, 4))]


def mosaic_matrices(images: list[LoadedImage], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return up to four 3x3 matrices: pixels of an image -> pixels of a canvas of twice the size.

    Each image is scaled so that its longer side is `size`, and has one corner on the same random point.
    """
    center = rng.uniform(size / 2, size * 3 / 2, 2)
    matrices = []
    for number, image in enumerate(images):
        height, width = image.pixels.shape[:2]
        scale = size / max(height, width)
        left = center[0] - (width * scale if number % 2 == 0 else 0)
        top = center[1] - (height * scale if number < 2 else 0)
        matrices.append(shift(left, top) @ np.diag([scale, scale, 1.0]))
    return matrices


def random_warp(
    settings: AugmentationSettings, canvas: Shape, shape: Shape, rng: np.random.Generator
) -> np.ndarray:
    """Return a 3x3 matrix: pixels of a canvas -> pixels of the sample, the canvas's center near its own."""

    def draw(limit: float) -> float:
        return rng.uniform(-limit, limit)

    perspective = np.eye(3)
    perspective[2, :2] = draw(settings.perspective), draw(settings.perspective)
    angle, zoom = np.deg2rad(draw(settings.degrees)), 1 + draw(settings.scale)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad([draw(settings.shear), draw(settings.shear)]))
    x, y = (side * (0.5 + draw(settings.translate)) for side in (shape[1], shape[0]))
    return shift(x, y) @ shear @ rotation @ perspective @ shift(-canvas[1] / 2, -canvas[0] / 2)
