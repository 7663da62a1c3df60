"""Small objects pasted once more, from their boxes alone: where, how large, with which edge.

Pasting small objects again is Kisantal et al.'s augmentation, arXiv:1902.07296, which needs masks; here the
crop of a box is pasted, with a margin in which it fades into the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.augment.loaded_image import LoadedImage
from data.augment.warp import corners, transform, zoom_of
from data.image_record import no_boxes
from data.letterbox import resize
from utils.overlap import intersections

SMALLEST, LARGEST = 4.0, 64.0  # px on the sample; to twice COCO's small (32): larger crops bring background
MARGIN, LEAST_MARGIN = 0.15, 2.0  # in which a crop fades: share of its sides, and px at least
FOREIGN = 0.1  # largest share of a crop that may belong to another object
RESIZED = 0.8, 1.25  # range of the new size, relative to the size on the sample
REACH = 4.0  # sides away from an object of the same sample, where background and scale are similar
TRIES, MOST = 10, 30  # positions tried for each object; most objects pasted into one layer

# an image of the layer, its matrix (pixels of the image -> of the sample), its boxes (n, 4) on the sample
PlacedImage = tuple[LoadedImage, np.ndarray, np.ndarray]


class Patch(NamedTuple):
    """Pixels (h, w, 3) uint8 BGR, their opacity (h, w, 1) float32, and their upper left corner, pixels."""

    pixels: np.ndarray
    opacity: np.ndarray
    x: int
    y: int


def draw_patches(
    placed: Sequence[PlacedImage],
    ignore_xyxy: np.ndarray,
    shape: tuple[int, int],
    probability: float,
    rng: np.random.Generator,
) -> tuple[list[Patch], np.ndarray, np.ndarray]:
    """Draw which small objects of a layer are pasted again, and where they cover nothing labeled.

    Args:
        placed: the layer's images with their matrices, and their boxes on the sample.
        ignore_xyxy: (k, 4) regions to ignore on the sample; nothing is pasted there.
        shape: height and width of the sample.
        probability: of each object.
        rng: the source of every random number.

    Returns:
        The patches, their boxes (m, 4) float32 on the sample and their classes (m,).
    """
    occupied = np.concatenate([boxes for _, _, boxes in placed] + [ignore_xyxy])
    neighbors = [(number, box) for number, (_, _, boxes) in enumerate(placed) for box in boxes]
    patches, added, classes = [], [], [np.zeros(0, np.int64)]
    candidates = [(image, matrix, i) for image, matrix, _ in placed for i in _small_objects(image, matrix)]
    chosen = [candidate for candidate in candidates if rng.random() < probability]
    if len(chosen) > MOST:
        chosen = [chosen[i] for i in rng.choice(len(chosen), MOST, replace=False)]
    for image, matrix, i in chosen if neighbors else []:
        zoom = zoom_of(matrix) * rng.uniform(*RESIZED)
        pixels, opacity, inner = _crop(image, image.boxes_xyxy[i], zoom)
        corner = _free_corner(pixels.shape[:2], placed, neighbors, occupied, shape, rng)
        if corner is None:
            continue
        box = (inner + np.tile(corner, 2)).astype(np.float32)
        patches.append(Patch(pixels, opacity, *corner))
        added.append(box)
        classes.append(image.classes[i : i + 1])
        occupied = np.concatenate([occupied, box[None]])
    return patches, np.stack(added) if added else no_boxes(), np.concatenate(classes)


def _with_margin(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) boxes -> (n, 4) corners of their crops in whole pixels, margin included."""
    margin = np.maximum(MARGIN * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]), LEAST_MARGIN)
    low, high = np.floor(boxes_xyxy[:, :2] - margin), np.ceil(boxes_xyxy[:, 2:] + margin)
    return np.concatenate([low, high], axis=1)


def _small_objects(image: LoadedImage, matrix: np.ndarray) -> np.ndarray:
    """Indices (m,) of boxes that are small on the sample, apart from others, and wholly in the image."""
    boxes = image.boxes_xyxy
    sides = (boxes[:, 2:] - boxes[:, :2]) * zoom_of(matrix)
    crops = _with_margin(boxes)
    height, width = image.pixels.shape[:2]
    whole = (crops[:, :2] >= 0).all(axis=1) & (crops[:, 2:] <= (width, height)).all(axis=1)
    others = intersections(crops, np.concatenate([boxes, image.ignore_xyxy]))  # (n, n + k)
    np.fill_diagonal(others, 0)
    area = np.prod(crops[:, 2:] - crops[:, :2], axis=1)
    alone = others.max(axis=1, initial=0) <= FOREIGN * area
    small = (sides >= SMALLEST).all(axis=1) & (sides <= LARGEST).all(axis=1)
    return np.flatnonzero(small & whole & alone)


def _crop(image: LoadedImage, box: np.ndarray, zoom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and opacity of an object's crop, resized, and the box (4,) within it."""
    x0, y0, x1, y1 = _with_margin(box[None])[0].astype(int)
    width, height = max(round((x1 - x0) * zoom), 1), max(round((y1 - y0) * zoom), 1)
    pixels = resize(image.pixels[y0:y1, x0:x1], width, height)
    factor = np.tile([width / (x1 - x0), height / (y1 - y0)], 2)
    inner = (box - [x0, y0, x0, y0]) * factor
    across = _fade(width, inner[0], inner[2])
    down = _fade(height, inner[1], inner[3])
    return pixels, np.minimum(down[:, None], across[None])[..., None].astype(np.float32), inner


def _fade(length: int, low: float, high: float) -> np.ndarray:
    """(length,) opacity: 1 wherever a pixel touches low..high, falling to 0 towards both ends."""
    low, high = np.floor(low), np.ceil(high)
    return np.interp(np.arange(length) + 0.5, [0, low + 0.5, high - 0.5, length], [0, 1, 1, 0])


def _free_corner(
    size: tuple[int, int],
    placed: Sequence[PlacedImage],
    neighbors: Sequence[tuple[int, np.ndarray]],
    occupied: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Corner x, y near an object, inside its image, where a patch (height, width) covers nothing occupied."""
    height, width = size
    for _ in range(TRIES):
        number, near = neighbors[int(rng.integers(len(neighbors)))]
        sides = np.maximum(near[2:] - near[:2], (width, height))
        center = (near[:2] + near[2:]) / 2 + rng.uniform(-REACH, REACH, 2) * sides
        x, y = np.round(center - [width / 2, height / 2]).astype(int).tolist()
        place = np.array([[x, y, x + width, y + height]], np.float64)
        if x < 0 or y < 0 or x + width > shape[1] or y + height > shape[0]:
            continue
        image, matrix, _ = placed[number]
        origin = transform(corners(place), np.linalg.inv(matrix))[0]  # (4, 2) pixels of the image
        inside = (origin >= 0).all() and (origin <= np.array(image.pixels.shape[1::-1])).all()
        if inside and not intersections(place, occupied).any():
            return x, y
    return None


def paste(image: np.ndarray, patch: Patch) -> None:
    """Draw a patch onto an image (H, W, 3), in place."""
    height, width = patch.pixels.shape[:2]
    covered = image[patch.y : patch.y + height, patch.x : patch.x + width]
    covered[:] = np.rint(covered + (patch.pixels.astype(np.float32) - covered) * patch.opacity)
