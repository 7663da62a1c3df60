"""Pixels and boxes under one 3x3 matrix.

Coordinates are continuous: pixel (0, 0) covers 0..1, its center is at (0.5, 0.5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

_MIN_SIDE, _MIN_AREA, _MAX_ASPECT = 2.0, 0.1, 100.0
_MIN_DEPTH = 1e-3  # of the depth at the center; at 0 and below, a point is not in front of the viewer


def shift(x: float, y: float) -> np.ndarray:
    """Return the 3x3 matrix of a translation by x, y pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points -> (..., 2), with the perspective division; or (n, m, 2) under n matrices (n, 3, 3)."""
    moved = _homogeneous(points, matrix)
    return moved[..., :2] / moved[..., 2:]


def _homogeneous(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`transform` before its division: (..., 3), the last of which is the depth."""
    offset = matrix[:, 2] if matrix.ndim == 2 else matrix[:, None, :, 2]
    return points @ matrix[..., :2].swapaxes(-1, -2) + offset


def corners(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n, 4, 2) corner points."""
    return boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)


def zoom_of(matrix: np.ndarray) -> float:
    """How much longer a length becomes, without the perspective."""
    return float(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])) ** 0.5


def averaged(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (h, w, 3) and its 3x3 matrix, made fit for interpolation.

    Below half size, interpolation would skip pixels: groups of them are averaged first.
    """
    height, width = image.shape[:2]
    group = int(1 / max(zoom_of(matrix), 0.01))
    if group <= 1:
        return image, matrix
    small = max(width // group, 1), max(height // group, 1)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return image, matrix @ np.diag([width / small[0], height / small[1], 1.0])


def draw_warped(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """Draw an image into the canvas (H, W, 3), in place, where the matrix puts it; the rest stays.

    Args:
        canvas: what is drawn on.
        image: (h, w, 3) uint8.
        matrix: 3x3, pixels of the image -> pixels of the canvas.
    """
    image, matrix = averaged(image, matrix)
    height, width = image.shape[:2]
    outline = transform(corners(np.array([[0, 0, width, height]])), matrix)[0]
    limit = np.array([canvas.shape[1], canvas.shape[0]])
    x0, y0 = np.clip(np.floor(outline.min(axis=0)), 0, limit).astype(int)
    x1, y1 = np.clip(np.ceil(outline.max(axis=0)), 0, limit).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    matrix = shift(-x0 - 0.5, -y0 - 0.5) @ matrix @ shift(0.5, 0.5)  # OpenCV counts from pixel centers
    region, size = canvas[y0:y1, x0:x1], (int(x1 - x0), int(y1 - y0))
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_TRANSPARENT}
    if (matrix[2] == (0, 0, 1)).all():
        cv2.warpAffine(image, matrix[:2], size, dst=region, **options)
    else:
        cv2.warpPerspective(image, matrix, size, dst=region, **options)


class Placement(NamedTuple):
    """A crop of an image and where it goes on the sample, both x0, y0, x1, y1 in whole pixels.

    The target may reach beyond the sample; both are empty where nothing of the image is visible.
    """

    crop: tuple[int, int, int, int]
    target: tuple[int, int, int, int]

    def region_of(self, canvas: np.ndarray) -> np.ndarray:
        """Return what the target covers of a sample (H, W, 3)."""
        left, top, right, bottom = (max(edge, 0) for edge in self.target)
        return canvas[top:bottom, left:right]


def snap_to_pixels(
    matrix: np.ndarray, size: tuple[int, int], shape: tuple[int, int]
) -> tuple[np.ndarray, Placement | None]:
    """Move the borders of an image on the sample to whole pixels, where it is neither turned nor sheared.

    It is then resized, which is several times as fast as warping; borders move by half a pixel at most.

    Args:
        matrix: 3x3, pixels of the image -> pixels of the sample.
        size: width and height of the image.
        shape: height and width of the sample.

    Returns:
        The matrix of the moved borders, and the placement; None where the image must be warped.
    """
    (a, b, x), (c, d, y), last = matrix.tolist()
    if b or c or last != [0.0, 0.0, 1.0] or a <= 0 or d <= 0:
        return matrix, None
    across = _snap_side(a, x, size[0], shape[1])
    down = _snap_side(d, y, size[1], shape[0])
    if across is None or down is None:
        return matrix, Placement((0, 0, 0, 0), (0, 0, 0, 0))
    (a, x, x0, x1, left, right), (d, y, y0, y1, top, bottom) = across, down
    exact = np.array([[a, 0.0, x], [0.0, d, y], [0.0, 0.0, 1.0]])
    return exact, Placement((x0, y0, x1, y1), (left, top, right, bottom))


def _snap_side(
    scale: float, offset: float, length: int, room: int
) -> tuple[float, float, int, int, int, int] | None:
    """One direction of `snap_to_pixels`: scale, offset, ends of crop and target; None: nothing is visible."""
    low = min(max(math.floor(-offset / scale), 0), length)
    high = min(max(math.ceil((room - offset) / scale), 0), length)
    start, end = round(low * scale + offset), round(high * scale + offset)
    if high <= low or end <= start:
        return None
    scale = (end - start) / (high - low)
    return scale, start - low * scale, low, high, start, end


def draw_resized(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray, placement: Placement) -> None:
    """Draw a crop of an image into the canvas (H, W, 3), in place; the rest stays."""
    x0, y0, x1, y1 = placement.crop
    left, top, right, bottom = placement.target
    region = placement.region_of(canvas)
    if not region.size:
        return
    crop, _ = averaged(image[y0:y1, x0:x1], matrix)
    drawn = cv2.resize(crop, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    y, x = max(-top, 0), max(-left, 0)
    region[:] = drawn[y : y + region.shape[0], x : x + region.shape[1]]


def warp_boxes(
    boxes_xyxy: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the enclosing boxes (n, 4) float32 of warped boxes, and a mask (n,) of those to keep.

    Kept, as in YOLOv5: sides above 2 px, more than a tenth of the area left, aspect ratio below 100.

    Args:
        boxes_xyxy: (n, 4) pixels.
        matrix: 3x3, or one for each box (n, 3, 3).
        shape: height and width to which boxes are clipped.
    """
    enclosing = enclosing_boxes(boxes_xyxy, matrix, shape)
    width, height = enclosing[:, 2] - enclosing[:, 0], enclosing[:, 3] - enclosing[:, 1]
    full = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    zoom = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    short, long = np.minimum(width, height), np.maximum(width, height)
    large = (short > _MIN_SIDE) & (width * height > _MIN_AREA * full * abs(zoom))
    return enclosing.astype(np.float32), large & (long < _MAX_ASPECT * short)


def enclosing_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the smallest boxes (n, 4) float64 around warped boxes, clipped to height and width.

    A box that is not wholly in front of the viewer becomes empty: its corners enclose nothing of it.

    The matrix is 3x3, or one for each box (n, 3, 3).
    """
    moved = _homogeneous(corners(boxes_xyxy), matrix)  # (n, 4, 3)
    in_front = (moved[..., 2] > _MIN_DEPTH).all(axis=1, keepdims=True)
    points = moved[..., :2] / np.maximum(moved[..., 2:], _MIN_DEPTH)
    height, width = shape
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return in_front * np.minimum(np.maximum(boxes, 0), [width, height, width, height])
