"""Truth and detections of a whole data set as columns: the one form every measure here reads.

Boxes are corners in pixels of the original image; images are numbered 0, 1, ... in the order of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class GroundTruth:
    """Every object of `num_images` images; n objects.

    Raises:
        ValueError: columns of different length, a NaN, or an image number out of range.
    """

    num_images: int
    image: NDArray[np.int64]  # (n,) number of the image
    boxes_xyxy: NDArray[np.float64]  # (n, 4)
    classes: NDArray[np.int64]  # (n,)
    areas: NDArray[np.float64]  # (n,) px²; decides the size class, may be smaller than the box (COCO's masks)
    crowd: NDArray[np.bool_]  # (n,) a region of many objects: found or not, it does not count

    def __post_init__(self):
        _check("truth", self.num_images, self.image, self.boxes_xyxy, self.classes, self.areas, self.crowd)

    @classmethod
    def stack(
        cls,
        boxes_xyxy: Sequence[ArrayLike],
        classes: Sequence[ArrayLike],
        areas: Sequence[ArrayLike] | None = None,
        crowd: Sequence[ArrayLike] | None = None,
    ) -> GroundTruth:
        """Make columns from one entry an image: (n, 4) boxes; (n,) classes, areas (the box's), crowd (no)."""
        boxes = [np.asarray(rows, np.float64).reshape(-1, 4) for rows in boxes_xyxy]
        stacked = np.concatenate([np.zeros((0, 4)), *boxes])
        width_height = stacked[:, 2:] - stacked[:, :2]
        return cls(
            len(boxes),
            np.repeat(np.arange(len(boxes)), [len(rows) for rows in boxes]),
            stacked,
            _column(classes, np.int64),
            width_height.prod(1) if areas is None else _column(areas, np.float64),
            np.zeros(len(stacked), bool) if crowd is None else _column(crowd, np.bool_),
        )

    def per_image(self) -> NDArray[np.int64]:
        """(num_images,) objects that count, crowds left out."""
        return np.bincount(self.image[~self.crowd], minlength=self.num_images)


@dataclass(frozen=True)
class Detections:
    """Every detection of `num_images` images; m detections.

    Raises:
        ValueError: columns of different length, a NaN, or an image number out of range.
    """

    num_images: int
    image: NDArray[np.int64]  # (m,)
    boxes_xyxy: NDArray[np.float64]  # (m, 4)
    scores: NDArray[np.float64]  # (m,)
    classes: NDArray[np.int64]  # (m,)

    def __post_init__(self):
        _check("detections", self.num_images, self.image, self.boxes_xyxy, self.scores, self.classes)

    @classmethod
    def stack(cls, rows: Sequence[ArrayLike]) -> Detections:
        """Make columns from one (n, 6) an image: x1, y1, x2, y2, score, class."""
        parts = [np.asarray(part, np.float64).reshape(-1, 6) for part in rows]
        stacked = np.concatenate([np.zeros((0, 6)), *parts])
        image = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(len(parts), image, stacked[:, :4], stacked[:, 4], stacked[:, 5].astype(np.int64))

    def select(self, wanted: NDArray) -> Detections:
        """Return the detections at a boolean mask or at positions."""
        columns = (self.image, self.boxes_xyxy, self.scores, self.classes)
        return Detections(self.num_images, *(column[wanted] for column in columns))


def _column(parts: Sequence[ArrayLike], dtype: type) -> NDArray:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype).reshape(-1) for part in parts)])


def _check(what: str, num_images: int, image: NDArray, boxes_xyxy: NDArray, *others: NDArray) -> None:
    lengths = [len(image), len(boxes_xyxy), *map(len, others)]
    if len(set(lengths)) > 1:
        raise ValueError(f"{what}: columns of different length: {lengths}")
    if len(image) and not 0 <= image.min() <= image.max() < num_images:
        raise ValueError(f"{what}: image numbers must lie in 0..{num_images - 1}")
    for column in (boxes_xyxy, *others):
        bad = np.argwhere(~np.isfinite(column))
        if len(bad):
            raise ValueError(f"{what}: entry {bad[0, 0]} holds a NaN or an infinity")
