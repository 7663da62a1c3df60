"""AP and AR, overall, by size and by class, summarised from COCO's precision and recall arrays.

Working from the arrays, unlike pycocotools' own summary, serves any detection limits and size classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from utils.metrics.coco import Accumulated, Evaluator, accumulate
from utils.metrics.columns import Detections, GroundTruth
from utils.metrics.protocols import PROTOCOLS, Protocol

Values = dict[str, float | None]  # None: there are no objects of that kind


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found; fractions, None where there are no objects."""

    names: tuple[str, ...]
    protocol: Protocol
    values: Values  # AP, AP50, AP75, AP_S, ..., AR1, ..., AR_S, ...
    per_class: list[Values]  # one entry a class, the same keys
    images: int
    objects: NDArray[np.int64]  # (K,) objects of each class, crowds left out
    accumulated: Accumulated

    @property
    def fitness(self) -> float:
        """What training maximises: 0.1·AP50 + 0.9·AP, as in YOLOv5."""
        return 0.1 * (self.values["AP50"] or 0.0) + 0.9 * (self.values["AP"] or 0.0)


def evaluate_detections(
    truth: GroundTruth,
    detections: Detections,
    names: Sequence[str],
    protocol: Protocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
) -> Metrics:
    """Score detections against the truth.

    Args:
        truth: the objects.
        detections: what was found in the same images.
        names: the classes' names.
        protocol: size classes, IoU thresholds and detection limits.
        max_dets: detection limits instead of the protocol's: as in COCO, best detections a class in an image.
        evaluator: which implementation matches and accumulates; the numbers are the same.

    Raises:
        ValueError: the two do not fit each other or `names`, or a limit is below 1.
    """
    if max_dets is not None:
        protocol = replace(protocol, max_dets=tuple(sorted(set(max_dets))))
    if not protocol.max_dets or protocol.max_dets[0] < 1:
        raise ValueError(f"detection limits must be 1 or more, got {protocol.max_dets}")
    result = accumulate(truth, detections, len(names), protocol, evaluator)
    return Metrics(
        names=tuple(names),
        protocol=protocol,
        values=summarise(result, protocol),
        per_class=[summarise(result, protocol, k) for k in range(len(names))],
        images=truth.num_images,
        objects=np.bincount(truth.classes[~truth.crowd], minlength=len(names)),
        accumulated=result,
    )


def summarise(result: Accumulated, protocol: Protocol, k: int | None = None) -> Values:
    """Return the protocol's AP and AR, of class `k` or the mean of the classes that have objects."""
    classes = slice(None) if k is None else slice(k, k + 1)
    precision, recall = result.precision[:, :, classes], result.recall[:, classes]
    values = {"AP": _mean(precision[:, :, :, 0, -1])}
    for t, iou in enumerate(protocol.ious):
        if round(100 * iou) in (50, 75):
            values[f"AP{100 * iou:.0f}"] = _mean(precision[t, :, :, 0, -1])
    for a, size in enumerate(protocol.sizes, 1):
        values[f"AP_{size.name}"] = _mean(precision[:, :, :, a, -1])
    for m, limit in enumerate(protocol.max_dets):
        values[f"AR{limit}"] = _mean(recall[:, :, 0, m])
    for a, size in enumerate(protocol.sizes, 1):
        values[f"AR_{size.name}"] = _mean(recall[:, :, a, -1])
    return values


def _mean(values: NDArray) -> float | None:
    there = values[values > -1]
    return float(there.mean()) if there.size else None
