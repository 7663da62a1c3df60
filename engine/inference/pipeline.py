"""From images of any size to their objects: tiles, letterbox, network, NMS, merging.

Detection, evaluation of full images and the Python API all go through `detect_images`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from data.letterbox import Letterbox, fit_input, letterbox
from data.media.image_files import ImageReadError
from data.media.large_image import LargeImage
from data.tiling import tile_boxes
from engine.inference.merging.merge import MergeRule, merge_tiles
from engine.inference.settings import DetectSettings
from engine.runtimes import Predictor
from utils.detections import Detections
from utils.nms import non_max_suppression
from utils.torch_threads import get_threads, set_own_threads
from utils.workers import ordered_map


class HasImage(Protocol):
    """What is detected on: a frame of a source, for one."""

    @property
    def image(self) -> np.ndarray | LargeImage:
        """(H, W, 3) uint8 BGR, or a file that is read by tiles."""
        ...


Item = TypeVar("Item", bound=HasImage)


@dataclass
class StageTimes:
    """Seconds spent on preprocessing, in the network, and on NMS and merging.

    Where several batches are worked on at once, a stage counts with its share of the machine: the sum is what
    the image adds to the time of a run.
    """

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
    error: ImageReadError | None = None  # of the first tile that could not be read
    reported: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, times: StageTimes, share: float) -> None:
        """Add its share of the time of a batch; its tiles may be in several."""
        with self.lock:
            self.stages.pre += share * times.pre
            self.stages.inference += share * times.inference
            self.stages.post += share * times.post


@dataclass(frozen=True, eq=False)
class _Batch(Generic[Item]):
    """Tiles, x0, y0, x1, y1, of one or several images, whose inputs have the same shape."""

    tiles: list[tuple[_Job[Item], list[int]]]


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
        threads: work on several batches at once, each in a thread with its share of the processor's, while
            the next image is read. A network computes two batches on two cores sooner than both cores compute
            one after the other, and waits for nothing while others are prepared and finished.
        report: is called with one line for an image of which a tile cannot be read, and which is then left
            out; None raises instead.

    Raises:
        ImageReadError: a tile cannot be read.
    """
    available = get_threads()
    workers = _workers(predictor, available) if threads else 1
    batches = _batches(items, predictor, settings)
    share = partial(set_own_threads, max(1, available // workers))
    worked = ordered_map(partial(_detect, predictor, settings, workers), batches, workers, share)
    try:
        for batch, found in worked:
            yield from _finish(batch, found, settings, report)
    finally:
        worked.close()


MOST_WORKERS = 4  # each has two batches in memory, with their images: one at work, one that waits
BATCH_PIXELS = 32_000_000  # of a batch's decoded images, unless it is one image: 100 MB


def _workers(predictor: Predictor, threads: int) -> int:
    """Return how many batches to work on at once: one is prepared and one finished while a GPU computes."""
    return 3 if predictor.device.type != "cpu" else min(threads, MOST_WORKERS)


def _batches(items: Iterable[Item], predictor: Predictor, settings: DetectSettings) -> Iterator[_Batch[Item]]:
    """Cut images; a batch ends when it is full, the shape changes or its images are large."""
    stride = None if predictor.imgsz else predictor.stride
    batch: list[tuple[_Job[Item], list[int]]] = []
    last: object = None
    try:
        for item in items:
            job = _Job(item, tiles_of(item.image, settings))
            for tile in job.tiles.tolist():
                shape = _input_shape(item.image, tile, settings, stride)
                full = len(batch) == settings.batch_size
                if batch and (full or shape != last or _holds_too_much(batch, job)):
                    yield _Batch(batch)
                    batch = []
                batch.append((job, tile))
                last = shape
            if len(batch) == settings.batch_size:  # not only when the next image is there
                yield _Batch(batch)
                batch = []
    except Exception:  # of the source, or of one in memory that is no image
        if batch:
            yield _Batch(batch)
        raise
    if batch:
        yield _Batch(batch)


def _holds_too_much(batch: list[tuple[_Job[Item], list[int]]], job: _Job[Item]) -> bool:
    """Whether another image would keep too many pixels in memory; a file that is read by tiles keeps none."""
    if batch[-1][0] is job:
        return False
    images = [one.item.image for one in {job, *(one for one, _ in batch)}]
    return sum(x.shape[0] * x.shape[1] for x in images if not isinstance(x, LargeImage)) > BATCH_PIXELS


def _input_shape(
    image: np.ndarray | LargeImage, tile: Sequence[int], settings: DetectSettings, stride: int | None
) -> object:
    """Return what the inputs of a batch must have in common: the shape, where it is known before reading."""
    x0, y0, x1, y1 = tile
    if _is_overview(image, tile):
        return object()
    return fit_input(x1 - x0, y1 - y0, settings.imgsz, stride)[-1]


def _detect(
    predictor: Predictor, settings: DetectSettings, workers: int, batch: _Batch[Item]
) -> tuple[_Batch[Item], list[Detections | ImageReadError]]:
    """Read, fit and stack tiles, run the network and NMS: what was found in each, in pixels of the tile."""
    stride = None if predictor.imgsz else predictor.stride
    start = time.perf_counter()
    found: list[Any] = []  # letterboxes, in whose place come detections, and errors
    inputs = []
    for job, tile in batch.tiles:
        try:
            if job.error is not None:
                raise job.error
            pixels, box = fit_tile(job.item.image, tile, settings, stride)
        except ImageReadError as error:
            job.error = error
            found.append(error)
            continue
        job.shape = (pixels.shape[0], pixels.shape[1])
        inputs.append(pixels)
        found.append(box)
    if inputs:
        images = _stacked(inputs, predictor)
        prepared = _now(predictor)
        pred = predictor(images)
        computed = _now(predictor)
        kept = iter(suppress(pred, settings))
        for i, box in enumerate(found):
            if isinstance(box, Letterbox):
                found[i] = Detections.from_array(box.to_image(next(kept).cpu().numpy()))
        times = StageTimes(prepared - start, computed - prepared, time.perf_counter() - computed)
        for job, _ in batch.tiles:
            job.add(times, 1 / (len(batch.tiles) * workers))
    return batch, found


def _stacked(inputs: Sequence[np.ndarray], predictor: Predictor) -> Tensor:
    """Stack inputs (h, w, 3) uint8 -> (T, 3, h, w) float on the device, channels last in memory."""
    pixels = torch.from_numpy(np.stack(inputs)).to(predictor.device)
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def _finish(
    batch: _Batch[Item],
    found: Sequence[Detections | ImageReadError],
    settings: DetectSettings,
    report: Callable[[str], None] | None,
) -> Iterator[DetectionResult[Item]]:
    """Give each image what was found in its tiles; it is done when all of them are."""
    for (job, _), one in zip(batch.tiles, found, strict=True):
        if isinstance(one, ImageReadError):
            if report is None:
                raise one
            if not job.reported:
                report(str(one))
            job.reported = True
            continue
        job.done.append(one)
        if len(job.done) == len(job.tiles):
            yield _merge(job, settings)


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
    if _is_overview(image, tile):
        small = image.overview(2 * max(size))
        pixels, box = letterbox(small, size, stride, interpolation=interpolation)
        scale_x, scale_y = small.shape[1] / (x1 - x0), small.shape[0] / (y1 - y0)
        stretch = box.stretch * scale_y / scale_x
        box = replace(box, scale=box.scale * scale_x, stretch=stretch, width=x1 - x0, height=y1 - y0)
    else:
        pixels, box = letterbox(image[y0:y1, x0:x1], size, stride, interpolation=interpolation)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), box


def _is_overview(image: np.ndarray | LargeImage, tile: Sequence[int]) -> TypeGuard[LargeImage]:
    """Whether the tile is the whole of an image that is too large to be decoded."""
    x0, y0, x1, y1 = tile
    return isinstance(image, LargeImage) and image.shape[:2] == (y1 - y0, x1 - x0)


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
