"""An image of a data set, or a tile of one: its size and its annotations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.overlap import xywh_of, xyxy_of

TileBox = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the file


def no_boxes() -> np.ndarray:
    """Return (0, 4) float32."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """A full image, or a tile of one, and its n boxes.

    Attributes:
        path: the image file.
        image_id: COCO's image id, or the file's stem (a number where it is one); tiles have their image's.
        width: of the image or tile, pixels, after EXIF rotation.
        height: of the image or tile, pixels, after EXIF rotation.
        boxes_xywh: (n, 4) float64 left, top, width, height, pixels of the image or tile; of a COCO file, its
            own digits, which COCO's evaluation computes with.
        classes: (n,) int64 index into the data set's names.
        areas: (n,) float64, pixels²: COCO's own `area` where it is given, else width times height.
        crowd: (n,) bool; crowds are neither targets nor misses.
        tile: where the tile lies in the full image; None for a full image.
        parent: the full image's record, where this one is a tile of it.
        min_area: share of a box's area that must be inside the tile for the box to belong to it.
        ignore: (m, 4) float32, pixels of the image or tile: regions where nothing is labeled and no
            detection counts, whatever its class.
    """

    path: Path
    image_id: int | str
    width: int
    height: int
    boxes_xywh: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    tile: TileBox | None = None
    parent: ImageRecord | None = None
    min_area: float = 0.0
    ignore: np.ndarray = field(default_factory=no_boxes)

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """(n, 4) float32 corners, pixels of the image or tile."""
        return xyxy_of(self.boxes_xywh).astype(np.float32)


class Annotations(NamedTuple):
    """The four arrays of an ImageRecord that describe its n boxes, in its order."""

    boxes_xywh: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def ground_truth_arrays(boxes_xyxy: Any, classes: Any, areas: Any = None, crowd: Any = None) -> Annotations:
    """Return annotations in their proper types and shapes, for any n >= 0; areas default to the boxes'."""
    boxes_xywh = xywh_of(np.asarray(boxes_xyxy, np.float64).reshape(-1, 4))
    return annotation_arrays(boxes_xywh, classes, areas, crowd)


def annotation_arrays(boxes_xywh: Any, classes: Any, areas: Any = None, crowd: Any = None) -> Annotations:
    """Return what `ground_truth_arrays` does, from boxes as left, top, width, height."""
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    if areas is None:
        areas = boxes[:, 2] * boxes[:, 3]
    if crowd is None:
        crowd = np.zeros(len(boxes), bool)
    return Annotations(
        boxes,
        np.asarray(classes, np.int64).reshape(-1),
        np.asarray(areas, np.float64).reshape(-1),
        np.asarray(crowd, bool).reshape(-1),
    )
