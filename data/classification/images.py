"""The labeled images of a split, all in memory: data sets of small images are small."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.classification.transform import InputTransform
from data.media.image_files import ImageReadError, read_image
from data.media.signatures import PILLOW_FORMATS
from utils.errors import UserError
from utils.reading import reading

_THREADS = 8
_MODES = ("1", "L", "P", "RGB", "YCbCr")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images, as large as a classifier's input.

    Attributes:
        pixels: (N, S, S, C) uint8, gray (C = 1) or RGB (C = 3).
        labels: (N,) int64.
        names: the classes.
        where: each image's file, and its number in a file of many.
    """

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    where: Sequence[str]

    def __post_init__(self) -> None:
        assert len(self.pixels) == len(self.labels) == len(self.where)

    def __len__(self) -> int:
        return len(self.labels)


def transform_all(
    images: Iterable[np.ndarray], count: int, channels: int, transform: InputTransform
) -> np.ndarray:
    """`count` images (H, W, C) -> inputs (count, S, S, C)."""
    pixels = np.empty((count, transform.imgsz, transform.imgsz, channels), np.uint8)
    for target, image in zip(pixels, images, strict=True):
        target[:] = transform(image)
    return pixels


def read_files(files: Sequence[Path], transform: InputTransform, side: int | None = None) -> np.ndarray:
    """Return the images in `files` as inputs (N, S, S, 3) RGB.

    Args:
        files: gray or RGB.
        transform: makes an input of an image.
        side: height and width that each image must have, px; None takes any.

    Raises:
        UserError: one cannot be read, is neither gray nor RGB, or has another size; it names the file.
    """

    def read(file: Path) -> np.ndarray:
        try:
            with reading(file, "an image", ImageReadError):
                with Image.open(file, formats=PILLOW_FORMATS) as header:  # reads the header only
                    mode, size = header.mode, header.size
                image = read_image(file)
        except ImageReadError as error:
            raise UserError(str(error)) from error
        if mode not in _MODES:
            raise UserError(f"{file}: an image of mode {mode}; save it as 8-bit gray or RGB")
        if side and size != (side, side):
            raise UserError(f"{file}: {size[0]}x{size[1]} pixels, should be {side}x{side}")
        return cv2.cvtColor(transform(image), cv2.COLOR_BGR2RGB)

    with ThreadPoolExecutor(_THREADS) as pool:
        pixels = np.empty((len(files), transform.imgsz, transform.imgsz, 3), np.uint8)
        for i, image in enumerate(pool.map(read, files)):
            pixels[i] = image
    return pixels


def check_labels(labels: np.ndarray, classes: int, where: object) -> None:
    """Raise a UserError that names the first image whose label is not the number of a class."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        i = wrong[0]
        raise UserError(f"{where}: image {i} has label {labels[i]}, but there are {classes} classes")
