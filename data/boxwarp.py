"""Pixels and boxes under one 3x3 matrix.

Coordinates are continuous: pixel (0, 0) covers 0..1, its centre is at (0.5, 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np

_MIN_SIDE, _MIN_AREA, _MAX_ASPECT = 2.0, 0.1, 100.0


def shift(x: float, y: float) -> np.ndarray:
    """Return the 3x3 matrix of a translation by x, y pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points -> (..., 2), with the perspective division."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]  # (..., 3)
    return moved[..., :2] / moved[..., 2:]


def corners(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n, 4, 2) corner points."""
    return boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)


def zoom_of(matrix: np.ndarray) -> float:
    """How much longer a length becomes, without the perspective."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def averaged(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (h, w, 3) and its 3x3 matrix, made fit for interpolation.

    Below half size, interpolation would skip pixels: whole groups of them are averaged first.
    """
    height, width = image.shape[:2]
    group = int(1 / max(zoom_of(matrix), 0.01))
    if group <= 1:
        return image, matrix
    small = max(width // group, 1), max(height // group, 1)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return image, matrix @ np.diag([width / small[0], height / small[1], 1.0])


def draw_warped(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """Draw a picture into the canvas (H, W, 3), in place, where the matrix puts it; the rest stays.

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
    matrix = shift(-x0 - 0.5, -y0 - 0.5) @ matrix @ shift(0.5, 0.5)  # OpenCV counts from pixel centres
    part, size = canvas[y0:y1, x0:x1], (int(x1 - x0), int(y1 - y0))
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_TRANSPARENT}
    if (matrix[2] == (0, 0, 1)).all():
        cv2.warpAffine(image, matrix[:2], size, dst=part, **options)
    else:
        cv2.warpPerspective(image, matrix, size, dst=part, **options)


def warp_boxes(
    boxes_xyxy: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the upright hulls (n, 4) float32 of warped boxes, inside the shape, and a mask (n,) to keep.

    Kept, as in YOLOv5: sides above 2 px, more than a tenth of the area left, aspect ratio below 100.
    """
    hull = warped_hulls(boxes_xyxy, matrix, shape)
    sides = hull[:, 2:] - hull[:, :2]
    area = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1) * zoom_of(matrix) ** 2
    aspect = sides.max(axis=1, initial=0) / np.maximum(sides.min(axis=1, initial=np.inf), 1e-9)
    keep = (
        (sides > _MIN_SIDE).all(axis=1) & (np.prod(sides, axis=1) > _MIN_AREA * area) & (aspect < _MAX_ASPECT)
    )
    return hull.astype(np.float32), keep


def warped_hulls(boxes_xyxy: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the upright hulls (n, 4) float64 of warped boxes, clipped to height x width."""
    points = transform(corners(boxes_xyxy), matrix)  # (n, 4, 2)
    height, width = shape
    hulls = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return hulls.clip(0, [width, height, width, height])
