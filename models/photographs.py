"""Evaluating a detector on whole photographs, through the very code that detects on them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from data.image_record import ImageRecord
from data.media.large_picture import LargePicture, open_large
from data.pictures import BrokenPicture, read_picture
from models.inference import DetectSettings, Stages, find_all
from models.runtimes import Predictor
from utils.errors import UserError
from utils.evaluation import Evaluation, score, whole_limits
from utils.metrics import PROTOCOLS, Detections, Evaluator
from utils.metrics.protocols import Protocol


@dataclass(frozen=True)
class _Photograph:
    record: ImageRecord
    image: np.ndarray | LargePicture


def evaluate_photographs(
    predictor: Predictor,
    records: Sequence[ImageRecord],
    names: Sequence[str],
    settings: DetectSettings,
    protocol: Protocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
    progress: bool = True,
) -> Evaluation:
    """Detect on whole photographs as `settings` say, in tiles for one, and score what comes out.

    Args:
        predictor: see `models.runtimes`.
        records: of whole photographs.
        names: the classes.
        settings: how to detect; `multi_label` and a small `conf_thres` are what AP wants.
        protocol: size classes and limits.
        max_dets: detection limits instead of the protocol's, which grow to the objects of the fullest
            photograph.
        evaluator: which implementation counts.
        progress: show a progress bar.

    Raises:
        UserError: none of the photographs could be read.
    """
    seen: list[Any] = []  # ImageRecord
    rows: list[np.ndarray] = []
    total = Stages()
    photographs = find_all(predictor, _read(records), settings, report=_leave_out)
    for found in tqdm(
        photographs, "val", len(records), False, unit="photograph", dynamic_ncols=True, disable=not progress
    ):
        seen.append(found.item.record)
        rows.append(found.rows)
        total.pre += found.stages.pre
        total.inference += found.stages.inference
        total.post += found.stages.post
    if not seen:
        raise UserError("none of the pictures could be read")
    limits = max_dets or whole_limits(seen, protocol)
    scored = score(seen, Detections.stack(rows), names, protocol, limits, evaluator)
    seconds = {"preprocessing": total.pre, "inference": total.inference, "nms": total.post}
    return Evaluation(scored, None, {key: value / len(seen) for key, value in seconds.items()}, None)


def _read(records: Iterable[ImageRecord]) -> Iterator[_Photograph]:
    for record in records:
        try:
            image = open_large(record.path)
            yield _Photograph(record, read_picture(record.path) if image is None else image)
        except BrokenPicture as error:
            _leave_out(str(error))


def _leave_out(problem: str) -> None:
    tqdm.write(f"left out: {problem}", file=sys.stderr)
