"""Ground truth and detections of a data set as columns, which all metrics here read.

Images are numbered 0, 1, ... in the order of their ids. Boxes are in pixels of the original image, as x, y,
width and height: COCO's IoU is computed from these, and corners would not give back the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.detections import Detections
from utils.overlap import xywh_of, xyxy_of


@dataclass(frozen=True, kw_only=True)
class GroundTruthColumns:
    """The n objects of `num_images` images, and r regions to ignore.

    Raises:
        ValueError: columns of different length, a NaN, or an image number out of range.
    """

    num_images: int
    image: NDArray[np.int64]  # (n,) number of the image
    boxes_xywh: NDArray[np.float64]  # (n, 4)
    classes: NDArray[np.int64]  # (n,)
    areas: NDArray[np.float64]  # (n,) px²; decides the size class; smaller than the box where COCO has masks
    crowd: NDArray[np.bool_]  # (n,) a box of many objects, which counts neither as detected nor as missed
    region_image: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # (r,)
    regions_xyxy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))  # (r, 4)

    def __post_init__(self) -> None:
        _check(
            "ground truth", self.num_images, self.image, self.boxes_xywh, self.classes, self.areas, self.crowd
        )
        _check("regions to ignore", self.num_images, self.region_image, self.regions_xyxy)

    @classmethod
    def stack(
        cls,
        boxes_xyxy: Sequence[ArrayLike],
        classes: Sequence[ArrayLike],
        areas: Sequence[ArrayLike] | None = None,
        crowd: Sequence[ArrayLike] | None = None,
        regions_xyxy: Sequence[ArrayLike] = (),
    ) -> GroundTruthColumns:
        """Make columns from one entry per image.

        Args:
            boxes_xyxy: (n, 4).
            classes: (n,).
            areas: (n,) px²; None is those of the boxes.
            crowd: (n,); None is no crowds.
            regions_xyxy: (r, 4) regions to ignore.
        """
        boxes_xywh = [xywh_of(np.asarray(boxes, np.float64).reshape(-1, 4)) for boxes in boxes_xyxy]
        return cls.stack_xywh(boxes_xywh, classes, areas, crowd, regions_xyxy)

    @classmethod
    def stack_xywh(
        cls,
        boxes_xywh: Sequence[ArrayLike],
        classes: Sequence[ArrayLike],
        areas: Sequence[ArrayLike] | None = None,
        crowd: Sequence[ArrayLike] | None = None,
        regions_xyxy: Sequence[ArrayLike] = (),
    ) -> GroundTruthColumns:
        """Make columns as `stack` does, from (n, 4) boxes as x, y, width, height."""
        image, boxes = _stacked(boxes_xywh, 4)
        region_image, regions = _stacked(regions_xyxy, 4)
        return cls(
            num_images=len(boxes_xywh),
            image=image,
            boxes_xywh=boxes,
            classes=_column(classes, np.int64),
            areas=boxes[:, 2:].prod(1) if areas is None else _column(areas, np.float64),
            crowd=np.zeros(len(boxes), bool) if crowd is None else _column(crowd, np.bool_),
            region_image=region_image,
            regions_xyxy=regions,
        )

    @cached_property
    def boxes_xyxy(self) -> NDArray[np.float64]:
        """(n, 4) corners."""
        return xyxy_of(self.boxes_xywh)

    def select(self, which: NDArray[Any]) -> GroundTruthColumns:
        """Return the objects at a boolean mask or at positions, and all regions."""
        names = ("image", "boxes_xywh", "classes", "areas", "crowd")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def per_image(self) -> NDArray[np.int64]:
        """Return (num_images,) numbers of objects, without crowds."""
        return np.bincount(self.image[~self.crowd], minlength=self.num_images)


@dataclass(frozen=True, kw_only=True)
class DetectionColumns:
    """The m detections of `num_images` images.

    Raises:
        ValueError: columns of different length, a NaN, or an image number out of range.
    """

    num_images: int
    image: NDArray[np.int64]  # (m,)
    boxes_xywh: NDArray[np.float64]  # (m, 4)
    scores: NDArray[np.float64]  # (m,)
    classes: NDArray[np.int64]  # (m,)

    def __post_init__(self) -> None:
        _check("detections", self.num_images, self.image, self.boxes_xywh, self.scores, self.classes)

    @classmethod
    def stack(cls, arrays: Sequence[ArrayLike]) -> DetectionColumns:
        """Make columns from one (n, 6) array per image: x1, y1, x2, y2, score, class."""
        image, stacked = _stacked(arrays, 6)
        return cls(
            num_images=len(arrays),
            image=image,
            boxes_xywh=xywh_of(stacked[:, :4]),
            scores=stacked[:, 4],
            classes=stacked[:, 5].astype(np.int64),
        )

    @classmethod
    def of_images(cls, detections: Sequence[Detections]) -> DetectionColumns:
        """Make columns from the detections of each image."""
        return cls.stack([one.to_array() for one in detections])

    @cached_property
    def boxes_xyxy(self) -> NDArray[np.float64]:
        """(m, 4) corners."""
        return xyxy_of(self.boxes_xywh)

    def per_image(self) -> list[Detections]:
        """Return the detections of each image, in pixels of the image."""
        order = np.argsort(self.image, kind="stable")
        table = np.column_stack((self.boxes_xyxy, self.scores, self.classes))[order]
        parts = np.split(table, np.cumsum(np.bincount(self.image, minlength=self.num_images))[:-1])
        return [Detections.from_array(part) for part in parts]

    def select(self, which: NDArray[Any]) -> DetectionColumns:
        """Return the detections at a boolean mask or at positions."""
        names = ("image", "boxes_xywh", "scores", "classes")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def _stacked(parts: Sequence[ArrayLike], width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Arrays (n_i, width) of each image -> (n,) image numbers, (n, width)."""
    tables = [np.asarray(part, np.float64).reshape(-1, width) for part in parts]
    image = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return image, np.concatenate([np.zeros((0, width)), *tables])


def _column(parts: Sequence[ArrayLike], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype).reshape(-1) for part in parts)])


def _check(
    what: str, num_images: int, image: NDArray[Any], boxes: NDArray[Any], *others: NDArray[Any]
) -> None:
    lengths = [len(image), len(boxes), *map(len, others)]
    if len(set(lengths)) > 1:
        raise ValueError(f"{what}: columns of different length: {lengths}")
    if len(image) and not 0 <= image.min() <= image.max() < num_images:
        raise ValueError(f"{what}: image numbers must lie in 0..{num_images - 1}")
    for column in (boxes, *others):
        finite = np.isfinite(column)
        if not finite.all():
            raise ValueError(f"{what}: entry {np.argwhere(~finite)[0, 0]} holds a NaN or an infinity")
