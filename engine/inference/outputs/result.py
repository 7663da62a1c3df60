"""What outputs take: the result of a frame, how it is drawn, and the interface of an output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from data.media.frame import Frame
from data.media.large_image import overview
from engine.inference.outputs.text import draw_lines
from utils.detections import Detections
from utils.ultralytics_adapter import draw_boxes

if TYPE_CHECKING:
    from engine.inference.pipeline import StageTimes

DRAWN_SIDE = 8192  # pixels; of an image that is read in parts, at most this much is drawn


@dataclass(frozen=True)
class Style:
    """How results are drawn, and what labels say; without a line width it follows image and boxes."""

    line_width: int | None = None
    labels: bool = True
    confidences: bool = True


@dataclass(frozen=True, eq=False)
class FrameResult(ABC):
    """The result of one frame, as outputs take it.

    Attributes:
        frame: the image or video frame.
        name: stem of the names of this file's outputs, its own among all files of the run.
        names: the classes.
        style: how it is drawn.
    """

    frame: Frame
    name: str
    names: Sequence[str]
    style: Style = field(default_factory=Style, kw_only=True)

    @property
    def frame_name(self) -> str:
        """`name`, with the frame's number in a video."""
        return f"{self.name}_{self.frame.number}" if self.frame.is_video else self.name

    @cached_property
    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR: the frame with its result."""
        image, scale = overview(self.frame.image, DRAWN_SIDE)
        return self._draw(image, scale)

    @abstractmethod
    def _draw(self, image: np.ndarray, scale: float) -> np.ndarray:
        """Draw on a copy of an image that has `scale` times the size of the frame."""


@dataclass(frozen=True, eq=False)
class DetectedFrame(FrameResult):
    """The detections of one frame.

    Attributes:
        detections: in pixels of the frame, best first; with track ids where objects are tracked.
        shape: height and width of the network's input, pixels.
        tiles: how many inputs the frame took.
        stages: the time each stage took.
    """

    detections: Detections
    shape: tuple[int, int]
    tiles: int
    stages: StageTimes

    def _draw(self, image: np.ndarray, scale: float) -> np.ndarray:
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


@dataclass(frozen=True, eq=False)
class ClassifiedFrame(FrameResult):
    """The most probable classes of one frame.

    Attributes:
        best: the most probable classes, best first, with their probabilities.
    """

    best: list[tuple[int, float]]

    def _draw(self, image: np.ndarray, scale: float) -> np.ndarray:
        """Write the classes in the upper left corner; a tiny frame is enlarged."""
        confident = self.style.confidences
        lines = [
            f"{probability:.2f} {self.names[k]}" if confident else self.names[k]
            for k, probability in self.best
        ]
        return draw_lines(image, lines if self.style.labels else [])


Result = TypeVar("Result", bound=FrameResult, contravariant=True)


class Output(Protocol[Result]):
    """One kind of output of a run."""

    def add(self, result: Result) -> None:
        """Take the next frame."""
        ...

    def close(self) -> None:
        """Finish the files, so that they can be read.

        Raises:
            UserError: a file cannot be written.
        """
        ...
