"""How large objects are in the file and at the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.image_record import ImageRecord
from data.letterbox import fit
from data.tiling import Tiling

SIDES = (0, 4, 8, 16, 32, np.inf)  # pixels at the input, between the strides of a detector's levels
COCO_SMALL = 32**2  # pixels²
THIN = 3.0  # pixels; an object with a smaller side cannot be told from noise


@dataclass(frozen=True, eq=False)
class Sizes:
    """The n objects (crowds left out) of p full images.

    Attributes:
        in_file: (n, 2) float64 widths and heights, pixels of the file.
        at_input: (n, 2) float64, pixels of the network's input.
        classes: (n,) int64.
        per_image: (p,) objects in each image.
        fullest_class: (p,) objects of the most frequent class in each image.
        scales: (p,) input pixels per file pixel.
        long_sides: (p,) longer side of the image, or of its tiles, file pixels.
    """

    in_file: np.ndarray
    at_input: np.ndarray
    classes: np.ndarray
    per_image: np.ndarray
    fullest_class: np.ndarray
    scales: np.ndarray
    long_sides: np.ndarray


def measure(records: Sequence[ImageRecord], tiling: Tiling | None, imgsz: int) -> Sizes:
    """Measure the objects of full images, in the file and at a network's input of `imgsz`, tiled or not."""
    shapes = np.array([_shape(record, tiling) for record in records], float).reshape(-1, 2)
    scales = np.array([fit(int(w), int(h), (imgsz, imgsz))[0].scale for w, h in shapes])
    boxes = [record.boxes_xyxy[~record.crowd].astype(float) for record in records]
    labels = [record.classes[~record.crowd] for record in records]
    in_file = [corners[:, 2:] - corners[:, :2] for corners in boxes]
    scaled = [size * scale for size, scale in zip(in_file, scales, strict=True)]
    return Sizes(
        in_file=np.concatenate([np.zeros((0, 2)), *in_file]),
        at_input=np.concatenate([np.zeros((0, 2)), *scaled]),
        classes=np.concatenate([np.zeros(0, np.int64), *labels]),
        per_image=np.array([len(row) for row in labels], int),
        fullest_class=np.array([np.bincount(row).max() if len(row) else 0 for row in labels], int),
        scales=scales,
        long_sides=shapes.max(1) if len(shapes) else np.zeros(0),
    )


def _shape(record: ImageRecord, tiling: Tiling | None) -> tuple[int, int]:
    """Width and height of an image, or of its tiles."""
    if tiling is None:
        return record.width, record.height
    return min(record.width, tiling.size), min(record.height, tiling.size)


def sides(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) widths and heights -> (n,) sides of squares of the same area."""
    return np.sqrt(sizes.prod(1))


def share(chosen: np.ndarray) -> float:
    """Return the share of true values among (n,) bool; 0 if there are none."""
    return float(chosen.mean()) if len(chosen) else 0.0


def share_small(sizes: np.ndarray) -> float:
    """Return the share of objects (n, 2) that COCO calls small: under 32² pixels."""
    return share(sizes.prod(1) < COCO_SMALL)


def thin(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) widths and heights -> (n,) whether a side is under 3 px."""
    return sizes.min(1, initial=np.inf) < THIN


def histogram(sizes: np.ndarray) -> np.ndarray:
    """Count objects (n, 2) by side: under 4, 4 to 8, 8 to 16, 16 to 32, and from 32 px."""
    return np.histogram(sides(sizes), SIDES)[0]


def trained_sizes(records: Sequence[ImageRecord], imgsz: int) -> np.ndarray:
    """Return widths and heights (n, 2) of the boxes of images or tiles, pixels of the input."""
    sizes = [np.zeros((0, 2))]
    for record in records:
        corners = record.boxes_xyxy[~record.crowd].astype(float)
        sizes.append((corners[:, 2:] - corners[:, :2]) * (imgsz / max(record.width, record.height)))
    return np.concatenate(sizes)
