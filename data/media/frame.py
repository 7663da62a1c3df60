"""What a source yields: an image, or a frame of a video or stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.media.large_image import LargeImage


class BrokenVideo(ValueError):
    """A video or stream that cannot be opened or ends early; the message names it and the reason."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, or one frame of a video or stream.

    Attributes:
        image: (H, W, 3) uint8 BGR, or a file that is read crop by crop.
        path: the file; for a stream or an array, the name of its results.
        index: number of the file among `files`, from 1.
        files: how many files the source has.
        number: number of the frame in its video, from 1; 1 for an image.
        total: frames in the video according to its header, None where it does not say; 1 for an image.
        fps: frames per second as they are read (a stride lowers it); None for an image.
        seconds: when a live frame was read, from the start of its stream; None for files.
        address: where a stream comes from, without a password; None for files.
    """

    image: np.ndarray | LargeImage
    path: Path
    index: int = 1
    files: int = 1
    number: int = 1
    total: int | None = 1
    fps: float | None = None
    seconds: float | None = None
    address: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether it belongs to a video or stream."""
        return self.fps is not None

    @property
    def side_by_side(self) -> bool:
        """Whether frames of other videos come between its own, since streams are read at the same time."""
        return self.address is not None

    @property
    def where(self) -> str:
        """The file or address, for messages."""
        return self.address or str(self.path)
