"""What is known of one image, or of one tile of it: its size and its truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TileBox = tuple[int, int, int, int]


def no_boxes() -> np.ndarray:
    """Return (0, 4) float32."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """A view of an image and its n boxes; the view is the full image or a tile of it.

    Attributes:
        path: the image file.
        image_id: COCO's image id, or the file's stem (a number where it is one); tiles share their image's.
        width: of the view, pixels, after EXIF rotation.
        height: of the view, pixels, after EXIF rotation.
        boxes_xyxy: (n, 4) float32, pixels of the view.
        classes: (n,) int64 index into the data set's names.
        areas: (n,) float32, pixels²: COCO's own `area` where it is given, else width times height.
        crowd: (n,) bool; crowds are neither targets nor misses.
        tile: x0, y0, x1, y1 of the view in the file's pixels; None is the full image.
        parent: the full image's record, where this one is a tile of it.
        min_area: share of a box's area that had to be inside the tile for the box to belong to it.
        ignore: (m, 4) float32, pixels of the view: regions where nothing is labeled and nothing found
            counts, whatever its class.
    """

    path: Path
    image_id: int | str
    width: int
    height: int
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    tile: TileBox | None = None
    parent: ImageRecord | None = None
    min_area: float = 0.0
    ignore: np.ndarray = field(default_factory=no_boxes)


class Truth(NamedTuple):
    """The four truth fields of an ImageRecord, in its order."""

    boxes_xyxy: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def ground_truth_arrays(boxes_xyxy: Any, classes: Any, areas: Any = None, crowd: Any = None) -> Truth:
    """Return truth in its proper types and shapes, for any n including 0; areas default to the boxes' own."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    if areas is None:
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if crowd is None:
        crowd = np.zeros(len(boxes), bool)
    return Truth(
        boxes.astype(np.float32),
        np.asarray(classes, np.int64).reshape(-1),
        np.asarray(areas, np.float32).reshape(-1),
        np.asarray(crowd, bool).reshape(-1),
    )
