"""Small objects pasted a second time, from their boxes alone: where, how large, with which edge.

Pasting small objects again is Kisantal et al.'s augmentation, arXiv:1902.07296, which needs outlines; here a
box's crop is pasted with a margin in which it fades into the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.augment.warp import corners, transform, zoom_of
from data.detection.image_record import no_boxes
from data.letterbox import resize
from utils.overlap import intersections

if TYPE_CHECKING:
    from data.augment.plan import LoadedImage

SMALLEST, LARGEST = 4.0, 64.0  # px on the sample; twice COCO's small (32): larger crops carry too much ground
MARGIN, LEAST_MARGIN = 0.15, 2.0  # of the sides, and px at least, in which the crop fades
FOREIGN = 0.1  # of a crop may be another object
RESIZED = 0.8, 1.25  # of its size on the sample
REACH = 4.0  # sides away from an object of the same sample: there ground and scale are alike
TRIES, MOST = 10, 30  # places tried for an object; objects pasted into one layer

Source = tuple["LoadedImage", np.ndarray, np.ndarray]  # view, its matrix, its boxes (n, 4) on the sample


class Patch(NamedTuple):
    """Pixels (h, w, 3) uint8 BGR, their opacity (h, w, 1) float32, and where their corner lies, pixels."""

    pixels: np.ndarray
    opacity: np.ndarray
    x: int
    y: int


def draw_patches(
    sources: Sequence[Source],
    ignore_xyxy: np.ndarray,
    shape: tuple[int, int],
    probability: float,
    rng: np.random.Generator,
) -> tuple[list[Patch], np.ndarray, np.ndarray]:
    """Draw which small objects of a layer are pasted again, and where nothing labeled is covered.

    Args:
        sources: the layer's views with their matrices, and the boxes that they have on the sample.
        ignore_xyxy: (k, 4) regions to ignore on the sample; nothing is pasted there.
        shape: height and width of the sample.
        probability: of each object.
        rng: the source of every random number.

    Returns:
        The patches, their boxes (m, 4) float32 on the sample and their classes (m,).
    """
    taken = np.concatenate([boxes for _, _, boxes in sources] + [ignore_xyxy])
    beside = [(number, box) for number, (_, _, boxes) in enumerate(sources) for box in boxes]
    patches, added, classes = [], [], [np.zeros(0, np.int64)]
    candidates = [(view, matrix, i) for view, matrix, _ in sources for i in _small_ones(view, matrix)]
    chosen = [one for one in candidates if rng.random() < probability]
    if len(chosen) > MOST:
        chosen = [chosen[i] for i in rng.choice(len(chosen), MOST, replace=False)]
    for view, matrix, i in chosen if beside else []:
        zoom = zoom_of(matrix) * rng.uniform(*RESIZED)
        pixels, opacity, inner = _crop(view, view.boxes_xyxy[i], zoom)
        corner = _free_place(pixels.shape[:2], sources, beside, taken, shape, rng)
        if corner is None:
            continue
        new = (inner + np.tile(corner, 2)).astype(np.float32)
        patches.append(Patch(pixels, opacity, *corner))
        added.append(new)
        classes.append(view.classes[i : i + 1])
        taken = np.concatenate([taken, new[None]])
    return patches, np.stack(added) if added else no_boxes(), np.concatenate(classes)


def _window(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) boxes -> (n, 4) whole pixels of their crops, margin included."""
    margin = np.maximum(MARGIN * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]), LEAST_MARGIN)
    low, high = np.floor(boxes_xyxy[:, :2] - margin), np.ceil(boxes_xyxy[:, 2:] + margin)
    return np.concatenate([low, high], axis=1)


def _small_ones(view: LoadedImage, matrix: np.ndarray) -> np.ndarray:
    """Numbers (m,) of the boxes that are small on the sample, stand alone and lie whole in the view."""
    boxes = view.boxes_xyxy
    sides = (boxes[:, 2:] - boxes[:, :2]) * zoom_of(matrix)
    crops = _window(boxes)
    height, width = view.image.shape[:2]
    whole = (crops[:, :2] >= 0).all(axis=1) & (crops[:, 2:] <= (width, height)).all(axis=1)
    others = intersections(crops, np.concatenate([boxes, view.ignore_xyxy]))  # (n, n + k)
    np.fill_diagonal(others, 0)
    area = np.prod(crops[:, 2:] - crops[:, :2], axis=1)
    alone = others.max(axis=1, initial=0) <= FOREIGN * area
    small = (sides >= SMALLEST).all(axis=1) & (sides <= LARGEST).all(axis=1)
    return np.flatnonzero(small & whole & alone)


def _crop(view: LoadedImage, box: np.ndarray, zoom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and opacity of an object's crop at another size, and the box (4,) within."""
    x0, y0, x1, y1 = _window(box[None])[0].astype(int)
    width, height = max(round((x1 - x0) * zoom), 1), max(round((y1 - y0) * zoom), 1)
    pixels = resize(view.image[y0:y1, x0:x1], width, height)
    factor = np.tile([width / (x1 - x0), height / (y1 - y0)], 2)
    inner = (box - [x0, y0, x0, y0]) * factor
    across = _fade(width, inner[0], inner[2])
    down = _fade(height, inner[1], inner[3])
    return pixels, np.minimum(down[:, None], across[None])[..., None].astype(np.float32), inner


def _fade(length: int, low: float, high: float) -> np.ndarray:
    """(length,) 1 wherever a pixel touches low..high, falling to 0 at both ends."""
    low, high = np.floor(low), np.ceil(high)
    return np.interp(np.arange(length) + 0.5, [0, low + 0.5, high - 0.5, length], [0, 1, 1, 0])


def _free_place(
    size: tuple[int, int],
    sources: Sequence[Source],
    beside: Sequence[tuple[int, np.ndarray]],
    taken: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Corner x, y near an object, inside its image, where a patch (height, width) covers nothing taken."""
    height, width = size
    for _ in range(TRIES):
        number, near = beside[int(rng.integers(len(beside)))]
        sides = np.maximum(near[2:] - near[:2], (width, height))
        middle = (near[:2] + near[2:]) / 2 + rng.uniform(-REACH, REACH, 2) * sides
        x, y = np.round(middle - [width / 2, height / 2]).astype(int).tolist()
        place = np.array([[x, y, x + width, y + height]], np.float64)
        if x < 0 or y < 0 or x + width > shape[1] or y + height > shape[0]:
            continue
        view, matrix, _ = sources[number]
        origin = transform(corners(place), np.linalg.inv(matrix))[0]  # (4, 2) pixels of the view
        inside = (origin >= 0).all() and (origin <= np.array(view.image.shape[1::-1])).all()
        if inside and not intersections(place, taken).any():
            return x, y
    return None


def paste(image: np.ndarray, patch: Patch) -> None:
    """Draw a patch onto an image (H, W, 3), in place."""
    height, width = patch.pixels.shape[:2]
    part = image[patch.y : patch.y + height, patch.x : patch.x + width]
    part[:] = np.rint(part + (patch.pixels.astype(np.float32) - part) * patch.opacity)
