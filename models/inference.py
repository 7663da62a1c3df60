"""From a picture of any size to its objects: letterbox, network, NMS; large pictures tile by tile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.letterbox import Letterbox, letterbox
from data.tiling import Tiling, tile_windows
from models.runtime import Predictor
from utils.merge import merge_tiles
from utils.nms import non_max_suppression


@dataclass(frozen=True)
class DetectSettings:
    """How to detect.

    Attributes:
        imgsz: height and width that a picture, or a tile, is fitted into, pixels.
        conf_thres: smallest confidence.
        iou_thres: the largest IoU of two boxes of a class.
        max_det: largest number of objects in a picture, and in a tile.
        classes: these only; None is all.
        agnostic: let boxes of different classes suppress each other.
        tiling: cut pictures into tiles; None looks at them whole.
        batch_size: tiles at a time.
    """

    imgsz: tuple[int, int]
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 1000
    classes: Sequence[int] | None = None
    agnostic: bool = False
    tiling: Tiling | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class Stages:
    """Seconds spent on preprocessing, in the network, and on NMS and merging."""

    pre: float
    inference: float
    post: float


@dataclass(frozen=True, eq=False)
class Found:
    """What is in a picture.

    Attributes:
        rows: (n, 6) float32 x1, y1, x2, y2 in pixels of the picture, confidence, class; best first.
        shape: height and width of the network's input, pixels.
        tiles: how many inputs the picture took.
        stages: the time each stage took.
    """

    rows: np.ndarray
    shape: tuple[int, int]
    tiles: int
    stages: Stages


def find_objects(predictor: Predictor, image: np.ndarray, settings: DetectSettings) -> Found:
    """Detect on one picture, (H, W, 3) uint8 BGR."""
    height, width = image.shape[:2]
    tiling = settings.tiling
    windows = np.array([[0, 0, width, height]])
    if tiling is not None:
        windows = tile_windows(width, height, tiling.size, tiling.overlap)
    found: list[np.ndarray] = []
    times = np.zeros(3)
    shape = settings.imgsz
    for start in range(0, len(windows), settings.batch_size):
        clock = [_now(predictor)]
        images, boxes = _prepare(predictor, image, windows[start : start + settings.batch_size], settings)
        shape = (images.shape[2], images.shape[3])
        clock.append(_now(predictor))
        pred = predictor(images)
        clock.append(_now(predictor))
        found += _suppress(pred, boxes, settings)
        clock.append(_now(predictor))
        times += np.diff(clock)
    merging = time.perf_counter()
    rows = (
        found[0]
        if len(windows) == 1
        else merge_tiles(found, windows, settings.iou_thres, settings.max_det, settings.agnostic)
    )
    times[2] += time.perf_counter() - merging
    return Found(rows, shape, len(windows), Stages(*times.tolist()))


def _prepare(
    predictor: Predictor, image: np.ndarray, windows: np.ndarray, settings: DetectSettings
) -> tuple[Tensor, list[Letterbox]]:
    """T windows of an (H, W, 3) picture -> (T, 3, h, w) RGB in 0..1, and where each lies in its input."""
    stride = None if predictor.imgsz else predictor.stride
    fitted = [letterbox(image[y0:y1, x0:x1], settings.imgsz, stride) for x0, y0, x1, y1 in windows.tolist()]
    batch = np.stack([picture[..., ::-1] for picture, _ in fitted]).transpose(0, 3, 1, 2)  # (T, 3, h, w)
    tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(predictor.device)
    return tensor.float() / 255, [box for _, box in fitted]


def _suppress(pred: Tensor, boxes: list[Letterbox], settings: DetectSettings) -> list[np.ndarray]:
    """(T, N, 5 + classes) in pixels of the input -> for each window (n, 6) in pixels of the window."""
    kept = non_max_suppression(
        pred,
        settings.conf_thres,
        settings.iou_thres,
        classes=settings.classes,
        agnostic=settings.agnostic,
        max_det=settings.max_det,
    )
    return [box.to_view(rows.cpu().numpy()) for rows, box in zip(kept, boxes, strict=True)]


def _now(predictor: Predictor) -> float:
    """Seconds, once the device has done what it was asked."""
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return time.perf_counter()
