"""Images in memory as a source: NumPy arrays and Pillow images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from data.media.frame import Frame
from utils.errors import UserError


def is_in_memory(source: Any) -> bool:
    """Whether it is an image in memory, or a list of them."""
    if isinstance(source, list | tuple):
        return bool(source) and all(map(is_in_memory, source))
    return isinstance(source, np.ndarray | Image.Image)


@dataclass
class Arrays:
    """Images in memory, as a `data.media.sources.Source`."""

    images: Sequence[Any]
    problems: list[str] = field(default_factory=list)
    files: Sequence[Path] = ()

    @property
    def live(self) -> bool:
        """Whether frames are skipped that are not taken in time: none are."""
        return False

    @property
    def count(self) -> int | None:
        """How many images there are."""
        return len(self.images)

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self.images):
            name = getattr(image, "filename", "") or f"image{index}.jpg"
            yield Frame(as_bgr(image), Path(name), index + 1, len(self.images))

    def leave_out(self, problem: str) -> None:
        """Note an image that could not be read."""
        self.problems.append(problem)


def as_bgr(image: np.ndarray | Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 BGR.

    Args:
        image: a Pillow image, which is rotated as its EXIF says; or an array as in OpenCV: (H, W),
            (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, of 8 or 16 bits. Alpha is dropped.

    Raises:
        UserError: another shape or type; Pillow's modes I and F, whose range is not known.
    """
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F"):
            raise UserError(
                f"a Pillow image of mode {image.mode} has 32 bits per pixel, whose range is not known; "
                "convert it to L, RGB or I;16"
            )
        image = ImageOps.exif_transpose(image)
        if not image.mode.startswith("I;16"):
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
        image = np.asarray(image).astype(np.uint16)  # I;16B has the other byte order
    array = image
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"an image has 8 or 16 bits per channel (uint8, uint16), not {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"an image is (H, W), or (H, W, 1, 3 or 4 channels), not {image.shape}")
    if array.shape[2] == 1:
        return np.repeat(array, 3, 2)
    return np.ascontiguousarray(array[..., :3])
