"""Predictions: detections of records, from a loader of batches or from the inference pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.image_record import ImageRecord
from engine.evaluation.metrics import DetectionColumns
from utils.detections import Detections

if TYPE_CHECKING:  # torch is imported when something is detected, so that scoring a file does without
    import torch
    from torch import Tensor

    from data.detection.loader import BatchLoader
    from data.media.large_image import LargeImage
    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)
Gather = Callable[[dict[int, Detections]], list[dict[int, Detections]]]


@dataclass(frozen=True)
class FirstBatch:
    """The first batch as the network takes it, to be drawn."""

    images: Tensor  # (B, 3, H, W) uint8
    targets: Tensor  # (n, 6) image, class, cx, cy, w, h as fractions
    detections: list[Tensor]  # for each image (n, 6) x1, y1, x2, y2 in pixels of the input, score, class

    def detection_targets(self, conf_thres: float) -> NDArray[np.float32]:
        """Return (n, 7) detections in the form of targets, with the score as a seventh column."""
        height, width = self.images.shape[2:]
        parts = [np.zeros((0, 7), np.float32)]
        for place, boxes in enumerate(self.detections):
            kept = boxes.numpy()
            kept = kept[kept[:, 4] >= conf_thres]
            low, high = kept[:, :2] / (width, height), kept[:, 2:4] / (width, height)
            columns = (np.full(len(kept), place), kept[:, 5], (low + high) / 2, high - low, kept[:, 4])
            parts.append(np.column_stack(columns))
        return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True)
class Predictions:
    """Records and their detections; the image numbers of the detections are positions in `records`."""

    records: list[ImageRecord]  # images, or tiles of them, that could be read
    detections: DetectionColumns  # in pixels of the records
    unread: list[ImageRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each stage, per record
    first_batch: FirstBatch | None = None

    def by_image_id(self) -> Predictions:
        """Return them with the records in the order of their image ids, tiles by their place in the image.

        Numbers come before text, which is ordered by code points.
        """
        places = [
            (isinstance(record.image_id, str), record.image_id, record.tile or ()) for record in self.records
        ]
        order = sorted(range(len(places)), key=places.__getitem__)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        detections = replace(self.detections, image=number[self.detections.image])
        return replace(self, records=[self.records[old] for old in order], detections=detections)


def predict_loader(
    predict: Callable[[Tensor], Tensor | tuple[Tensor, Any]],
    loader: BatchLoader,
    device: torch.device | str | None = None,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    progress: bool = True,
    gather: Gather = lambda own: [own],
    on_batch: Callable[[Any, Any], None] | None = None,
) -> Predictions:
    """Detect on every record of a loader of letterboxed batches, images or tiles.

    Args:
        predict: (B, 3, H, W) float RGB in 0..1 on `device` -> (B, N, 5 + classes) decoded output; a detector
            in eval mode, whose output is (decoded, raw), will do.
        loader: yields batches of `loader.dataset.records`.
        device: where the images are moved; None is the device of the network's weights, else the CPU.
        conf_thres: smallest confidence, exclusive.
        iou_thres: largest IoU of two boxes of a class that NMS keeps.
        max_det: largest number of detections per record.
        progress: show a progress bar.
        gather: from this process's detections to those of all processes.
        on_batch: is called with the output of `predict` and the batch, without gradients.
    """
    import torch
    from tqdm import tqdm

    from utils.nms import non_max_suppression

    device = device or _device_of(predict)
    own: dict[int, Detections] = {}
    first_batch = None
    seconds = {"inference": 0.0, "nms": 0.0}
    for batch in tqdm(loader, "val", unit="batch", leave=False, dynamic_ncols=True, disable=not progress):
        images = batch.images.to(device, non_blocking=True).float() / 255
        start = _now(device)
        with torch.no_grad():
            output = predict(images)
        decoded = output[0] if isinstance(output, tuple) else output
        middle = _now(device)
        kept = non_max_suppression(decoded, conf_thres, iou_thres, multi_label=True, max_det=max_det)
        kept = [boxes.cpu() for boxes in kept]
        seconds["inference"] += middle - start
        seconds["nms"] += _now(device) - middle
        if on_batch is not None:
            with torch.no_grad():
                on_batch(output, batch)
        for index, placed, boxes in zip(batch.indices, batch.letterboxes, kept, strict=True):
            own[index] = Detections.from_array(placed.to_image(boxes).numpy())
        if first_batch is None:
            first_batch = FirstBatch(batch.images, batch.targets, kept)
    per_record = {stage: value / max(len(own), 1) for stage, value in seconds.items()}
    return _of_all_processes(loader.dataset.records, gather(own), per_record, first_batch)


def _of_all_processes(
    records: Sequence[ImageRecord],
    parts: Iterable[dict[int, Detections]],
    seconds: dict[str, float],
    first_batch: FirstBatch | None,
) -> Predictions:
    """Return what the processes have detected, by index of the record, in the order of `records`."""
    every = {index: detections for part in parts for index, detections in part.items()}
    read = sorted(every)
    return Predictions(
        [records[index] for index in read],
        DetectionColumns.of_images([every[index] for index in read]),
        [record for index, record in enumerate(records) if index not in every],
        seconds,
        first_batch,
    )


@dataclass(frozen=True)
class _OpenImage:
    record: ImageRecord
    image: NDArray[np.uint8] | LargeImage


def predict_full_images(
    predictor: Predictor, records: Sequence[ImageRecord], settings: DetectSettings, progress: bool = True
) -> Predictions:
    """Detect on full images through the pipeline of detect.py, in tiles where `settings` say so.

    Args:
        predictor: see `engine.runtimes`.
        records: of full images.
        settings: how to detect; AP needs `multi_label` and a low `conf_thres`.
        progress: show a progress bar.
    """
    from tqdm import tqdm

    from engine.inference.pipeline import StageTimes, detect_images

    read: list[ImageRecord] = []
    detections: list[Detections] = []
    total = StageTimes()
    results = detect_images(predictor, _open(records), settings, report=_leave_out)
    for result in tqdm(
        results, "val", len(records), False, unit="image", dynamic_ncols=True, disable=not progress
    ):
        read.append(result.item.record)
        detections.append(result.detections)
        total.pre += result.stages.pre
        total.inference += result.stages.inference
        total.post += result.stages.post
    seconds = {"preprocessing": total.pre, "inference": total.inference, "nms": total.post}
    read_ids = {id(record) for record in read}
    return Predictions(
        read,
        DetectionColumns.of_images(detections),
        [record for record in records if id(record) not in read_ids],
        {stage: value / max(len(read), 1) for stage, value in seconds.items()},
    )


def _open(records: Iterable[ImageRecord]) -> Iterator[_OpenImage]:
    from data.media.image_files import ImageReadError, read_image
    from data.media.large_image import open_large

    for record in records:
        try:
            image = open_large(record.path)
            yield _OpenImage(record, read_image(record.path) if image is None else image)
        except ImageReadError as error:
            _leave_out(str(error))


def _leave_out(problem: str) -> None:
    LOG.warning("left out: %s", problem)


def _device_of(predict: object) -> torch.device | str:
    """Return the device of a network's weights; the CPU for anything else."""
    weights = next(predict.parameters(), None) if hasattr(predict, "parameters") else None
    return "cpu" if weights is None else weights.device


def _now(device: torch.device | str) -> float:
    """Return the time in seconds, after the device has finished its work."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
