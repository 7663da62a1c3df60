"""What outputs take: the detections of a frame, how they are drawn, and the interface of an output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from data.media.frame import Frame
from data.media.large_image import overview
from utils.detections import Detections
from utils.ultralytics_adapter import draw_boxes

DRAWN_SIDE = 8192  # pixels; a larger image is drawn at most this large


@dataclass(frozen=True)
class Style:
    """How boxes are drawn, and what labels say; without a line width it follows image and boxes."""

    line_width: int | None = None
    labels: bool = True
    confidences: bool = True


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The detections of one frame, as outputs take them.

    Attributes:
        frame: the image or video frame.
        name: stem of the names of this file's outputs, its own among all files of the run.
        detections: in pixels of the frame, best first; with track ids where objects are tracked.
        names: the classes.
        style: how it is drawn.
    """

    frame: Frame
    name: str
    detections: Detections
    names: Sequence[str]
    style: Style = field(default_factory=Style)

    @property
    def frame_name(self) -> str:
        """`name`, with the frame's number in a video."""
        return f"{self.name}_{self.frame.number}" if self.frame.is_video else self.name

    @cached_property
    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR: the frame with its boxes."""
        image, scale = overview(self.frame.image, DRAWN_SIDE)
        detections = self.detections
        labels = [self._label(i) for i in range(len(detections))]
        colors = detections.class_ids if detections.track_ids is None else detections.track_ids
        return draw_boxes(image, detections.xyxy * scale, labels, colors, self.style.line_width)

    def _label(self, i: int) -> str:
        if not self.style.labels:
            return ""
        detections = self.detections
        name = self.names[int(detections.class_ids[i])]
        number = f" {detections.track_ids[i]}" if detections.track_ids is not None else ""
        confidence = f" {detections.scores[i]:.2f}" if self.style.confidences else ""
        return name + number + confidence


class Output(Protocol):
    """One kind of output of a run."""

    def add(self, result: FrameResult) -> None:
        """Take the next frame."""
        ...

    def close(self) -> None:
        """Finish the files, so that they can be read."""
        ...


class UniqueNames:
    """Give each file a stem no other has: a.jpg and b/a.jpg become 'a' and 'a-2'."""

    def __init__(self) -> None:
        self._names: dict[Path, str] = {}
        self._taken: set[str] = set()

    def __call__(self, path: Path) -> str:
        """Return the stem for `path`, always the same."""
        if path not in self._names:
            name, number = path.stem, 1
            while name.lower() in self._taken:  # some file systems ignore case
                number += 1
                name = f"{path.stem}-{number}"
            self._taken.add(name.lower())
            self._names[path] = name
        return self._names[path]
