"""How large objects are in the file and at the network's input, and how they meet strides and anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.detection.image_record import ImageRecord
from data.detection.tiling import Tiling
from data.letterbox import fit

SIDES = (0, 4, 8, 16, 32, np.inf)  # pixels at the input, between the strides of a detector's levels
COCO_SMALL = 32**2  # pixels²
THIN = 3.0  # pixels; below this no side of an object can be told from noise


@dataclass(frozen=True, eq=False)
class Sizes:
    """The n objects (crowds left out) of p full images.

    Attributes:
        in_file: (n, 2) float64 widths and heights, pixels of the file.
        at_input: (n, 2) float64, pixels of the network's input.
        classes: (n,) int64.
        per_image: (p,) objects of each image.
        fullest_class: (p,) objects of each image's most frequent class.
        scales: (p,) input pixels a file pixel.
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
    """Measure the objects of full images as a network of input `imgsz` is given them, tiled or not."""
    views = np.array([_view(record, tiling) for record in records], float).reshape(-1, 2)
    scales = np.array([fit(int(w), int(h), (imgsz, imgsz))[0].scale for w, h in views])
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
        long_sides=views.max(1) if len(views) else np.zeros(0),
    )


def _view(record: ImageRecord, tiling: Tiling | None) -> tuple[int, int]:
    if tiling is None:
        return record.width, record.height
    return min(record.width, tiling.size), min(record.height, tiling.size)


def sides(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) widths and heights -> (n,) side of the square of the same area."""
    return np.sqrt(sizes.prod(1))


def share(chosen: np.ndarray) -> float:
    """Return the share of true among (n,) bool; 0 of nothing."""
    return float(chosen.mean()) if len(chosen) else 0.0


def share_small(sizes: np.ndarray) -> float:
    """Return the share of objects (n, 2) that COCO calls small in pixels of this scale: area under 32²."""
    return share(sizes.prod(1) < COCO_SMALL)


def thin(sizes: np.ndarray) -> np.ndarray:
    """Whether each of (n, 2) sizes has a side under 3 px."""
    return sizes.min(1, initial=np.inf) < THIN


def histogram(sizes: np.ndarray) -> np.ndarray:
    """Count objects (n, 2) by side: under 4, 4 to 8, 8 to 16, 16 to 32, from 32 px."""
    return np.histogram(sides(sizes), SIDES)[0]


def view_sizes(records: Sequence[ImageRecord], imgsz: int) -> np.ndarray:
    """Return (n, 2) sizes at the input of the boxes of images or tiles, cut as training sees them."""
    found = [np.zeros((0, 2))]
    for record in records:
        corners = record.boxes_xyxy[~record.crowd].astype(float)
        found.append((corners[:, 2:] - corners[:, :2]) * (imgsz / max(record.width, record.height)))
    return np.concatenate(found)
