"""Fitting an image into a network's input: one scale, gray borders, and the exact way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch

GRAY = 114
Interpolation = Literal["area", "linear"]  # of an image that shrinks; one that grows is interpolated linearly
Rounding = Callable[[float], int]
Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Letterbox:
    """Where an image (or tile) lies in the network's input.

    Attributes:
        scale: input pixels per image pixel, horizontally.
        pad_x: border to the left, input pixels.
        pad_y: border above, input pixels.
        width: of the image, pixels.
        height: of the image, pixels.
        stretch: vertical over horizontal scale; not quite 1, because a resized image has whole pixels.
    """

    scale: float
    pad_x: float
    pad_y: float
    width: int
    height: int
    stretch: float = 1.0

    def to_network(self, boxes_xyxy: Boxes) -> Boxes:
        """Boxes (..., 4+) in pixels of the image -> pixels of the input; further columns stay as they are."""
        return self._moved(boxes_xyxy, (self.scale, self.scale * self.stretch), (self.pad_x, self.pad_y))

    def to_image(self, boxes_xyxy: Boxes) -> Boxes:
        """Boxes (..., 4+) in pixels of the input -> pixels of the image, clipped to it."""
        scale = (1 / self.scale, 1 / (self.scale * self.stretch))
        boxes = self._moved(boxes_xyxy, scale, (-self.pad_x * scale[0], -self.pad_y * scale[1]))
        boxes[..., 0:4:2] = boxes[..., 0:4:2].clip(0, self.width)
        boxes[..., 1:4:2] = boxes[..., 1:4:2].clip(0, self.height)
        return boxes

    @staticmethod
    def _moved(boxes_xyxy: Boxes, scale: tuple[float, float], shift: tuple[float, float]) -> Boxes:
        if isinstance(boxes_xyxy, torch.Tensor):
            boxes = boxes_xyxy.clone() if boxes_xyxy.is_floating_point() else boxes_xyxy.float()
        else:
            boxes = np.array(boxes_xyxy, np.result_type(boxes_xyxy, np.float32))
        boxes[..., 0:4:2] = boxes[..., 0:4:2] * scale[0] + shift[0]
        boxes[..., 1:4:2] = boxes[..., 1:4:2] * scale[1] + shift[1]
        return boxes


def fit(
    width: int, height: int, size: tuple[int, int], scale: float | None = None, rounding: Rounding = round
) -> tuple[Letterbox, int, int]:
    """Return how an image fits an input, and the image's width and height there in whole pixels.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        size: height and width of the input, pixels.
        scale: input pixels per image pixel; None takes the largest that fits.
        rounding: to whole pixels; YOLOv5's loader rounds up, its detection to the nearest.
    """
    if scale is None:
        scale = min(size[0] / height, size[1] / width)
    new_w = min(max(rounding(width * scale), 1), size[1])
    new_h = min(max(rounding(height * scale), 1), size[0])
    return place(width, height, new_w, new_h, size), new_w, new_h


def place(width: int, height: int, new_w: int, new_h: int, size: tuple[int, int]) -> Letterbox:
    """Return where an image of width x height lies that is new_w x new_h in the middle of an input."""
    scale_x, scale_y = new_w / width, new_h / height
    pad_x, pad_y = (size[1] - new_w) // 2, (size[0] - new_h) // 2
    return Letterbox(scale_x, pad_x, pad_y, width, height, scale_y / scale_x)


def fit_input(
    width: int,
    height: int,
    size: int | tuple[int, int],
    stride: int | None = None,
    scale: float | None = None,
) -> tuple[Letterbox, int, int, tuple[int, int]]:
    """Return how `letterbox` fits an image: what `fit` returns, and the input's height and width, pixels."""
    shape = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    placed, new_w, new_h = fit(width, height, shape, scale)
    if stride is not None:
        shape = (-(-new_h // stride) * stride, -(-new_w // stride) * stride)
        placed = place(width, height, new_w, new_h, shape)
    return placed, new_w, new_h, shape


def letterbox(
    image: np.ndarray,
    size: int | tuple[int, int],
    stride: int | None = None,
    scale: float | None = None,
    interpolation: Interpolation = "area",
) -> tuple[np.ndarray, Letterbox]:
    """Resize an image, keeping its aspect ratio, and center it on gray.

    Args:
        image: (H, W, 3) uint8.
        size: side of the input, or its height and width, pixels.
        stride: shrink the input to the smallest multiple of this that holds the resized image.
        scale: input pixels per image pixel; None takes the largest that fits `size`.
        interpolation: of an image that shrinks.

    Returns:
        The input (h, w, 3) uint8, and where the image lies in it.
    """
    height, width = image.shape[:2]
    placed, new_w, new_h, shape = fit_input(width, height, size, stride, scale)
    return framed(resize(image, new_w, new_h, interpolation), placed, shape), placed


def framed(resized: np.ndarray, placed: Letterbox, shape: tuple[int, int]) -> np.ndarray:
    """Put an image (h, w, 3) that was resized for the input onto gray (height, width); see `fit`."""
    height, width = resized.shape[:2]
    if (height, width) == shape:
        return resized
    canvas = np.full((*shape, 3), GRAY, np.uint8)
    left, top = int(placed.pad_x), int(placed.pad_y)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def resize(image: np.ndarray, width: int, height: int, interpolation: Interpolation = "area") -> np.ndarray:
    """Resize; an image that shrinks is averaged ("area") or interpolated ("linear")."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width * height < image.shape[0] * image.shape[1]
    averaged = shrinks and interpolation == "area"
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if averaged else cv2.INTER_LINEAR)
