"""Detections of one image: the one type from NMS to trackers, outputs and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """n detections of an image, in the order of their making; best first where NMS made them.

    Attributes:
        xyxy: (n, 4) float32 corners x1, y1, x2, y2, pixels of the image.
        scores: (n,) float32 confidences, 0 to 1.
        class_ids: (n,) int64 index into the class names.
        track_ids: (n,) int64 numbers that objects keep through a video; None without tracking.

    Raises:
        ValueError: the arrays differ in length.
    """

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        counts = {len(self.xyxy), len(self.scores), len(self.class_ids)}
        counts |= set() if self.track_ids is None else {len(self.track_ids)}
        if len(counts) > 1 or self.xyxy.shape[1:] != (4,):
            raise ValueError(f"detections of different numbers: {sorted(counts)}, xyxy {self.xyxy.shape}")

    @classmethod
    def empty(cls) -> Detections:
        """Return no detections."""
        return cls.from_array(np.zeros((0, 6)))

    @classmethod
    def from_array(cls, array: ArrayLike) -> Detections:
        """(n, 6) x1, y1, x2, y2, score, class, as NMS returns them -> Detections."""
        values = np.asarray(array, np.float32).reshape(-1, 6)
        return cls(values[:, :4].copy(), values[:, 4].copy(), values[:, 5].astype(np.int64))

    @classmethod
    def concatenated(cls, many: Sequence[Detections]) -> Detections:
        """Return all detections, in their order; with track ids only where every one has them."""
        some = [cls.empty(), *many]
        tracks = [one.track_ids for one in many if one.track_ids is not None]
        return cls(
            np.concatenate([one.xyxy for one in some]),
            np.concatenate([one.scores for one in some]),
            np.concatenate([one.class_ids for one in some]),
            np.concatenate(tracks) if tracks and len(tracks) == len(many) else None,
        )

    def to_array(self) -> NDArray[np.float32]:
        """Return (n, 6) float32 x1, y1, x2, y2, score, class."""
        return np.column_stack((self.xyxy, self.scores, self.class_ids)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Detections:
        """Return those that a mask, an index array or a slice selects."""
        tracks = None if self.track_ids is None else self.track_ids[which]
        return Detections(self.xyxy[which], self.scores[which], self.class_ids[which], tracks)

    def scaled(self, factor: float) -> Detections:
        """Return them for the image resized by `factor`."""
        return replace(self, xyxy=(self.xyxy * factor).astype(np.float32))

    def clipped(self, width: int, height: int) -> Detections:
        """Return them with the corners inside an image of this size, pixels."""
        limits = np.array([width, height, width, height], np.float32)
        return replace(self, xyxy=np.clip(self.xyxy, 0, limits))
