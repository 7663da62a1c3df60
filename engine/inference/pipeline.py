"""From images of any size to their objects: tiles, letterbox, network, NMS, merging.

Detection, evaluation of full images and the Python API all go through `detect_images`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from data.letterbox import Letterbox, letterbox
from data.media.image_files import ImageReadError
from data.media.large_image import LargeImage
from data.tiling import tile_boxes
from engine.inference.merging.merge import MergeRule, merge_tiles
from engine.inference.settings import DetectSettings
from engine.runtimes import Predictor
from utils.detections import Detections
from utils.nms import non_max_suppression
from utils.prefetch import prefetch


class HasImage(Protocol):
    """What is detected on: a frame of a source, for one."""

    @property
    def image(self) -> np.ndarray | LargeImage:
        """(H, W, 3) uint8 BGR, or a file that is read by tiles."""
        ...


Item = TypeVar("Item", bound=HasImage)


@dataclass
class StageTimes:
    """Seconds spent on preprocessing, in the network, and on NMS and merging."""

    pre: float = 0.0
    inference: float = 0.0
    post: float = 0.0


@dataclass(frozen=True, eq=False)
class DetectionResult(Generic[Item]):
    """The detections of an image.

    Attributes:
        item: what was detected on.
        detections: in pixels of the image, best first.
        shape: height and width of the network's input, pixels.
        tiles: how many inputs the image took.
        stages: the time each stage took.
    """

    item: Item
    detections: Detections
    shape: tuple[int, int]
    tiles: int
    stages: StageTimes


@dataclass(eq=False)
class _Job(Generic[Item]):
    """An image on its way: where its tiles are, and the detections of those that are done."""

    item: Item
    tiles: np.ndarray  # (T, 4) x0, y0, x1, y1
    shape: tuple[int, int] = (0, 0)
    done: list[Detections] = field(default_factory=list)  # of its tiles
    stages: StageTimes = field(default_factory=StageTimes)


@dataclass(eq=False)
class _TileInput(Generic[Item]):
    """One tile of an image as the network sees it."""

    job: _Job[Item]
    pixels: np.ndarray  # (h, w, 3) uint8 RGB
    box: Letterbox


@dataclass(frozen=True)
class _ImageItem:
    image: np.ndarray | LargeImage


def detect_image(
    predictor: Predictor, image: np.ndarray | LargeImage, settings: DetectSettings
) -> DetectionResult[Any]:
    """Detect on one image, (H, W, 3) uint8 BGR."""
    return next(detect_images(predictor, [_ImageItem(image)], settings, threads=False))


def detect_images(
    predictor: Predictor,
    items: Iterable[Item],
    settings: DetectSettings,
    threads: bool = True,
    report: Callable[[str], None] | None = None,
) -> Generator[DetectionResult[Item], None, None]:
    """Detect on every image, in order; images and tiles of the same shape share batches.

    Args:
        predictor: see `engine.runtimes`.
        items: what to detect on; each has an `image`.
        settings: how.
        threads: read, prepare, compute and finish at the same time, a batch or two ahead, where that is
            faster (see `Predictor.overlaps`).
        report: is called with one line for an image of which a tile cannot be read, and which is then left
            out; None raises instead.

    Raises:
        ImageReadError: a tile cannot be read.
    """
    if not (threads and predictor.overlaps):
        return _finish(_infer(_prepare(items, predictor, settings, report), predictor), settings)
    prepared = prefetch(_prepare(prefetch(items), predictor, settings, report))
    return prefetch(_finish(prefetch(_infer(prepared, predictor)), settings))


def _prepare(
    items: Iterable[Item],
    predictor: Predictor,
    settings: DetectSettings,
    report: Callable[[str], None] | None,
) -> Iterator[tuple[list[_TileInput[Item]], Tensor]]:
    """Cut, fit and stack; a batch ends when it is full or the shape changes."""
    batch: list[_TileInput[Item]] = []
    for tile_input in _tile_inputs(items, predictor, settings, report):
        if batch and batch[0].pixels.shape != tile_input.pixels.shape:
            yield _stacked(batch, predictor)
            batch = []
        batch.append(tile_input)
        if len(batch) == settings.batch_size:
            yield _stacked(batch, predictor)
            batch = []
    if batch:
        yield _stacked(batch, predictor)


def _stacked(batch: list[_TileInput[Item]], predictor: Predictor) -> tuple[list[_TileInput[Item]], Tensor]:
    """Return a batch with its images, (T, 3, h, w) float on the device, channels last in memory."""
    start = time.perf_counter()
    pixels = torch.from_numpy(np.stack([tile_input.pixels for tile_input in batch])).to(predictor.device)
    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    share = (_now(predictor) - start) / len(batch)
    for tile_input in batch:
        tile_input.job.stages.pre += share
    return batch, images


def _tile_inputs(
    items: Iterable[Item],
    predictor: Predictor,
    settings: DetectSettings,
    report: Callable[[str], None] | None,
) -> Iterator[_TileInput[Item]]:
    stride = None if predictor.imgsz else predictor.stride
    for item in items:
        job = _Job(item, tiles_of(item.image, settings))
        for tile in job.tiles.tolist():
            start = time.perf_counter()
            try:
                pixels, box = fit_tile(item.image, tile, settings, stride)
            except ImageReadError as error:
                if report is None:
                    raise
                report(str(error))
                break
            job.shape = (pixels.shape[0], pixels.shape[1])
            job.stages.pre += time.perf_counter() - start
            yield _TileInput(job, pixels, box)


def tiles_of(image: np.ndarray | LargeImage, settings: DetectSettings) -> np.ndarray:
    """Return the tiles of an image, (T, 4) int x0, y0, x1, y1; a single one where it is not cut."""
    height, width = image.shape[:2]
    whole = np.array([[0, 0, width, height]])
    if settings.tiling is None or max(width, height) < settings.tile_from:
        return whole
    tiles = tile_boxes(width, height, settings.tiling.size, settings.tiling.overlap)
    return np.concatenate((tiles, whole)) if settings.whole and len(tiles) > 1 else tiles


def fit_tile(
    image: np.ndarray | LargeImage, tile: Sequence[int], settings: DetectSettings, stride: int | None
) -> tuple[np.ndarray, Letterbox]:
    """Return one tile of an image as an input, (h, w, 3) uint8 RGB, and where it lies there.

    Args:
        image: (H, W, 3) uint8 BGR, or a file that is read by tiles.
        tile: x0, y0, x1, y1 in pixels of the image.
        settings: how to detect.
        stride: the input's sides are the smallest multiples of it; None fills `settings.imgsz`.

    Raises:
        ImageReadError: the tile cannot be read.
    """
    x0, y0, x1, y1 = tile
    size, interpolation = settings.imgsz, settings.interpolation
    if isinstance(image, LargeImage) and image.shape[:2] == (y1 - y0, x1 - x0):
        small = image.overview(2 * max(size))
        pixels, box = letterbox(small, size, stride, interpolation=interpolation)
        scale_x, scale_y = small.shape[1] / (x1 - x0), small.shape[0] / (y1 - y0)
        stretch = box.stretch * scale_y / scale_x
        box = replace(box, scale=box.scale * scale_x, stretch=stretch, width=x1 - x0, height=y1 - y0)
    else:
        pixels, box = letterbox(image[y0:y1, x0:x1], size, stride, interpolation=interpolation)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), box


def _infer(
    batches: Iterable[tuple[list[_TileInput[Item]], Tensor]], predictor: Predictor
) -> Iterator[tuple[list[_TileInput[Item]], Tensor]]:
    """Run the network: each batch with its (T, N, 5 + classes)."""
    for batch, images in batches:
        start = time.perf_counter()
        pred = predictor(images)
        share = (_now(predictor) - start) / len(batch)
        for tile_input in batch:
            tile_input.job.stages.inference += share
        yield batch, pred


def _finish(
    outputs: Iterable[tuple[list[_TileInput[Item]], Tensor]], settings: DetectSettings
) -> Generator[DetectionResult[Item], None, None]:
    """NMS in every tile; an image is done when all of its tiles are."""
    for batch, pred in outputs:
        start = time.perf_counter()
        kept = suppress(pred, settings)
        share = (time.perf_counter() - start) / len(batch)
        for tile_input, boxes in zip(batch, kept, strict=True):
            job = tile_input.job
            job.done.append(Detections.from_array(tile_input.box.to_image(boxes.cpu().numpy())))
            job.stages.post += share
            if len(job.done) == len(job.tiles):
                yield _merge(job, settings)


def suppress(pred: Tensor, settings: DetectSettings) -> list[Tensor]:
    """NMS: (B, N, 5 + classes) decoded output -> for each input (n, 6) x1, y1, x2, y2, score, class."""
    return non_max_suppression(
        pred,
        settings.conf_thres,
        settings.iou_thres,
        classes=settings.classes,
        agnostic=settings.agnostic,
        multi_label=settings.multi_label,
        max_det=settings.max_det,
    )


def merge_image(done: Sequence[Detections], tiles: np.ndarray, settings: DetectSettings) -> Detections:
    """Return the detections of an image from those of all its tiles, (T, 4), each in pixels of the tile."""
    if len(tiles) == 1:
        return done[0]
    rule = settings.merge or MergeRule(threshold=settings.iou_thres)
    return merge_tiles(done, tiles, rule, settings.max_det, settings.agnostic)


def _merge(job: _Job[Item], settings: DetectSettings) -> DetectionResult[Item]:
    start = time.perf_counter()
    detections = merge_image(job.done, job.tiles, settings)
    job.stages.post += time.perf_counter() - start
    return DetectionResult(job.item, detections, job.shape, len(job.tiles), job.stages)


def _now(predictor: Predictor) -> float:
    """Seconds, once the device has done what it was asked."""
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return time.perf_counter()
