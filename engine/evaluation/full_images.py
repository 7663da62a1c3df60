"""Evaluating a detector on full images, through the very code that detects on them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from data.detection.image_record import ImageRecord
from data.media.image_files import ImageReadError, read_image
from data.media.large_image import LargeImage, open_large
from engine.evaluation.evaluator import EvaluationResult, full_image_limits, score
from engine.evaluation.metrics import PROTOCOLS, Detections, Evaluator
from engine.evaluation.metrics.protocols import Protocol
from engine.inference.pipeline import DetectSettings, StageTimes, detect_images
from engine.runtimes import Predictor
from utils.errors import UserError


@dataclass(frozen=True)
class _FullImage:
    record: ImageRecord
    image: np.ndarray | LargeImage


def evaluate_full_images(
    predictor: Predictor,
    records: Sequence[ImageRecord],
    names: Sequence[str],
    settings: DetectSettings,
    protocol: Protocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
    progress: bool = True,
) -> EvaluationResult:
    """Detect on full images as `settings` say, in tiles for one, and score what comes out.

    Args:
        predictor: see `engine.runtimes`.
        records: of full images.
        names: the classes.
        settings: how to detect; `multi_label` and a small `conf_thres` are what AP wants.
        protocol: size classes and limits.
        max_dets: detection limits instead of the protocol's, which grow to the objects of the fullest
            full image.
        evaluator: which implementation counts.
        progress: show a progress bar.

    Raises:
        UserError: none of the full images could be read.
    """
    seen: list[Any] = []  # ImageRecord
    rows: list[np.ndarray] = []
    total = StageTimes()
    full_images = detect_images(predictor, _read(records), settings, report=_leave_out)
    for found in tqdm(
        full_images, "val", len(records), False, unit="full image", dynamic_ncols=True, disable=not progress
    ):
        seen.append(found.item.record)
        rows.append(found.detections.to_array())
        total.pre += found.stages.pre
        total.inference += found.stages.inference
        total.post += found.stages.post
    if not seen:
        raise UserError("none of the images could be read")
    limits = max_dets or full_image_limits(seen, protocol)
    scored = score(seen, Detections.stack(rows), names, protocol, limits, evaluator)
    seconds = {"preprocessing": total.pre, "inference": total.inference, "nms": total.post}
    return EvaluationResult(scored, None, {key: value / len(seen) for key, value in seconds.items()}, None)


def _read(records: Iterable[ImageRecord]) -> Iterator[_FullImage]:
    for record in records:
        try:
            image = open_large(record.path)
            yield _FullImage(record, read_image(record.path) if image is None else image)
        except ImageReadError as error:
            _leave_out(str(error))


def _leave_out(problem: str) -> None:
    tqdm.write(f"left out: {problem}", file=sys.stderr)
