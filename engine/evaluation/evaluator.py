"""Running a detector over a data set and scoring it, on the views it sees and on the full images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics import (
    PROTOCOLS,
    Detections,
    Evaluator,
    GroundTruth,
    Metrics,
    evaluate_detections,
    settle_regions,
)
from engine.evaluation.metrics.protocols import Protocol as ScoringProtocol
from engine.inference.merging.merge import MergeRule, merge_tiles
from utils.detections import Detections as TileDetections
from utils.errors import UserError

if TYPE_CHECKING:  # torch is imported when something is detected, so that a command's --help need not
    import torch
    from torch import Tensor


class View(Protocol):
    """What is read of a data set's record: an image, or a tile of the image `parent`."""

    path: Any
    image_id: int | str
    width: int
    height: int
    boxes_xyxy: NDArray  # (n, 4) pixels of the view
    classes: NDArray
    areas: NDArray
    crowd: NDArray
    ignore: NDArray  # (r, 4) regions where nothing counts, pixels of the view
    tile: tuple[int, int, int, int] | None
    parent: View | None


class Batches(Protocol):
    """A loader: yields batches of `dataset.records`."""

    dataset: Any

    def __iter__(self) -> Iterator[Any]:
        """Batches with images, targets, indices and letterboxes."""
        ...


@dataclass(frozen=True)
class ScoringResult:
    """Truth, detections and metrics of some views: images, or tiles of them."""

    records: list[View]
    found: Detections  # everything, boxes in pixels of the views
    truth: GroundTruth  # as scored: regions to ignore are crowds, or what lies in them is gone
    detections: Detections  # as scored
    metrics: Metrics


@dataclass(frozen=True)
class FirstBatch:
    """The first batch as the network saw it, for images."""

    images: Tensor  # (B, 3, H, W) uint8
    targets: Tensor  # (n, 6) image, class, cx, cy, w, h as fractions
    found: list[Tensor]  # for each image (n, 6) x1, y1, x2, y2 in pixels of the input, confidence, class

    def detection_targets(self, conf_thres: float) -> NDArray[np.float32]:
        """(n, 7) detections like targets, with the confidence as a seventh column."""
        height, width = self.images.shape[2:]
        parts = [np.zeros((0, 7), np.float32)]
        for place, boxes in enumerate(self.found):
            rows = boxes.numpy()
            rows = rows[rows[:, 4] >= conf_thres]
            low, high = rows[:, :2] / (width, height), rows[:, 2:4] / (width, height)
            columns = (np.full(len(rows), place), rows[:, 5], (low + high) / 2, high - low, rows[:, 4])
            parts.append(np.column_stack(columns))
        return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` returns."""

    views: ScoringResult  # as the network sees them: full images, or tiles
    whole: ScoringResult | None  # tiled data: the full images, detections of the tiles merged
    seconds: dict[str, float]  # "inference" and "nms" of a view, on average; empty where nothing ran
    first_batch: FirstBatch | None  # None where nothing ran

    @property
    def metrics(self) -> Metrics:
        """Of the views."""
        return self.views.metrics

    @property
    def images(self) -> ScoringResult:
        """The images as they are on disk, whether the network saw them whole or in tiles."""
        return self.whole or self.views

    @property
    def fitness(self) -> float:
        """Of the views: 0.1·AP50 + 0.9·AP."""
        return self.metrics.fitness


def evaluate(
    predict: Callable[[Tensor], Any],
    loader: Batches,
    names: Sequence[str],
    device: torch.device | str | None = None,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    protocol: ScoringProtocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
    progress: bool = True,
    gather: Callable[[Any], list[Any]] = lambda own: [own],
) -> EvaluationResult:
    """Detect on every view of the loader and score what was found.

    Args:
        predict: (B, 3, H, W) float RGB in 0..1 on `device` -> (B, N, 5 + classes) decoded output; a detector
            in eval mode, whose output is (decoded, raw), will do.
        loader: yields batches; `loader.dataset.records` are their views.
        names: the classes.
        device: where the images go; None is where the detector's weights are, else the CPU.
        conf_thres: smallest confidence, exclusive.
        iou_thres: NMS, and the merging of tiles: the largest IoU of two boxes of a class.
        max_det: largest number of detections in a view.
        protocol: size classes and limits.
        max_dets: detection limits instead of the protocol's. Without them, full images get a limit
            of as many detections as the fullest holds objects, if these are more than the protocol's.
        evaluator: which implementation counts.
        progress: show a progress bar.
        gather: from one process's value to those of all; each then has the detections of all.

    Raises:
        UserError: none of the images could be read.
    """
    device = device or _home(predict)
    own, first_batch, seconds = _detect(predict, loader, device, (conf_thres, iou_thres, max_det), progress)
    rows = {index: boxes for part in gather(own) for index, boxes in part.items()}
    seen = sorted(rows)
    if not seen:
        raise UserError("none of the images could be read")
    records = [loader.dataset.records[i] for i in seen]
    found = Detections.stack([rows[i] for i in seen])
    views = score(records, found, names, protocol, max_dets, evaluator)
    whole = None
    if any(record.tile for record in records):
        images, merged = _whole_images(loader.dataset.records, rows, iou_thres)
        limits = max_dets or full_image_limits(images, protocol)
        whole = score(images, Detections.stack(merged), names, protocol, limits, evaluator)
    return EvaluationResult(
        views, whole, {key: value / max(len(own), 1) for key, value in seconds.items()}, first_batch
    )


def _detect(
    predict: Callable[[Tensor], Any],
    loader: Batches,
    device: torch.device | str,
    thresholds: tuple[float, float, int],
    progress: bool,
) -> tuple[dict[int, NDArray], FirstBatch | None, dict[str, float]]:
    """Return the detections of each view by its index, the first batch and the seconds spent."""
    import torch
    from tqdm import tqdm

    from utils.nms import non_max_suppression

    conf_thres, iou_thres, max_det = thresholds
    rows: dict[int, NDArray] = {}
    first_batch = None
    seconds = {"inference": 0.0, "nms": 0.0}
    for batch in tqdm(
        loader, desc="val", unit="batch", leave=False, dynamic_ncols=True, disable=not progress
    ):
        images = batch.images.to(device, non_blocking=True).float() / 255
        start = _now(device)
        with torch.no_grad():
            output = predict(images)
        decoded = output[0] if isinstance(output, tuple) else output
        middle = _now(device)
        found = non_max_suppression(decoded, conf_thres, iou_thres, multi_label=True, max_det=max_det)
        found = [boxes.cpu() for boxes in found]
        seconds["inference"] += middle - start
        seconds["nms"] += _now(device) - middle
        for index, placed, boxes in zip(batch.indices, batch.letterboxes, found, strict=True):
            rows[index] = placed.to_image(boxes).numpy()
        if first_batch is None:
            first_batch = FirstBatch(batch.images, batch.targets, found)
    return rows, first_batch, seconds


def _home(predict: Any) -> torch.device | str:
    """Where a network's weights are; the CPU for anything else."""
    weights = next(predict.parameters(), None) if hasattr(predict, "parameters") else None
    return "cpu" if weights is None else weights.device


def _now(device: torch.device | str) -> float:
    """Seconds, after the device has done its work."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _whole_images(
    views: Sequence[View], rows: dict[int, NDArray], iou_thres: float
) -> tuple[list[View], list[NDArray]]:
    """Merge the detections of the tiles of each image; an image with an unread tile is left out."""
    tiles: dict[int, list[int]] = {}
    images: dict[int, View] = {}
    for index, view in enumerate(views):
        image = view.parent or view
        images[id(image)] = image
        tiles.setdefault(id(image), []).append(index)
    complete = {key: members for key, members in tiles.items() if all(i in rows for i in members)}
    merged = []
    for members in complete.values():
        boxes_xyxy = [views[i].tile or (0, 0, views[i].width, views[i].height) for i in members]
        parts = [TileDetections.from_array(rows[i]) for i in members]
        merged.append(merge_tiles(parts, boxes_xyxy, MergeRule(threshold=iou_thres)).to_array())
    return [images[key] for key in complete], merged


def score(
    records: Sequence[View],
    found: Detections,
    names: Sequence[str],
    protocol: ScoringProtocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
) -> ScoringResult:
    """Score detections in the views of `records`, numbered in their order; see `evaluate`."""
    truth, detections = settle_regions(ground_truth_of(records), found, protocol)
    metrics = evaluate_detections(truth, detections, names, protocol, max_dets, evaluator)
    return ScoringResult(list(records), found, truth, detections, metrics)


def ground_truth_of(records: Iterable[View]) -> GroundTruth:
    """Return the truth of some views as columns."""
    fields = ("boxes_xyxy", "classes", "areas", "crowd", "ignore")
    views = list(records)
    return GroundTruth.stack(*([getattr(view, field) for view in views] for field in fields))


def full_image_limits(
    images: Sequence[View], protocol: ScoringProtocol = PROTOCOLS["coco"]
) -> tuple[int, ...]:
    """Return the protocol's detection limits and, if it is larger, the objects in the fullest image."""
    limits = protocol.max_dets
    fullest = max((int((~image.crowd).sum()) for image in images), default=0)
    return (*limits, fullest) if fullest > limits[-1] else limits
