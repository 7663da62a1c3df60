"""AP and AR, overall, by size and by class, summarized from COCO's precision and recall arrays.

Working from the arrays, unlike pycocotools' own summary, serves any detection limits and size classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.coco import Accumulated, Evaluator, accumulate
from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.protocols import PROTOCOLS, Protocol
from engine.evaluation.metrics.regions import settle_regions

NAMED_IOUS = (25, 50, 75)  # percent; the thresholds with an AP of their own
Values = dict[str, float | None]  # None: there are no objects of that kind


@dataclass(frozen=True)
class Metrics:
    """Metrics of detections; fractions, None where there are no objects."""

    names: tuple[str, ...]
    protocol: Protocol
    values: Values  # AP, AP50, AP75, AP_S, ..., AR1, ..., AR_S, ...
    per_class: list[Values]  # the same keys for each class
    images: int
    objects: NDArray[np.int64]  # (K,) objects of each class, crowds left out
    objects_of_size: NDArray[np.int64]  # (len(protocol.sizes),)
    accumulated: Accumulated

    @property
    def fitness(self) -> float:
        """What training maximizes: 0.1·AP50 + 0.9·AP, as in YOLOv5."""
        return 0.1 * (self.values["AP50"] or 0.0) + 0.9 * (self.values["AP"] or 0.0)


def evaluate_detections(
    ground_truth: GroundTruthColumns,
    detections: DetectionColumns,
    names: Sequence[str],
    protocol: Protocol = PROTOCOLS["coco"],
    max_dets: Sequence[int] | None = None,
    evaluator: Evaluator = "hotcoco",
) -> Metrics:
    """Score detections against the ground truth.

    Args:
        ground_truth: the objects, and regions to ignore.
        detections: of the same images.
        names: the classes' names.
        protocol: size classes, IoU thresholds and detection limits.
        max_dets: detection limits instead of the protocol's: how many count per class and image.
        evaluator: the implementation that matches and accumulates; the numbers are the same.

    Raises:
        ValueError: ground truth, detections and `names` do not fit together, or a limit is below 1.
    """
    if max_dets is not None:
        protocol = protocol.with_limits(max_dets)
    ground_truth, detections = settle_regions(ground_truth, detections, protocol)
    result = accumulate(ground_truth, detections, len(names), protocol, evaluator)
    counted = ground_truth.areas[~ground_truth.crowd]
    return Metrics(
        names=tuple(names),
        protocol=protocol,
        values=summarize(result, protocol),
        per_class=[summarize(result, protocol, k) for k in range(len(names))],
        images=ground_truth.num_images,
        objects=np.bincount(ground_truth.classes[~ground_truth.crowd], minlength=len(names)),
        objects_of_size=np.array(
            [((counted >= size.low) & (counted <= size.high)).sum() for size in protocol.sizes], np.int64
        ),
        accumulated=result,
    )


def summarize(result: Accumulated, protocol: Protocol, k: int | None = None) -> Values:
    """Return the protocol's AP and AR, of class `k` or the mean of the classes that have objects."""
    classes = slice(None) if k is None else slice(k, k + 1)
    precision, recall = result.precision[:, :, classes], result.recall[:, classes]
    values = {"AP": mean_there(precision[:, :, :, 0, -1])}
    named = {t: f"AP{100 * iou:.0f}" for t, iou in enumerate(protocol.ious) if round(100 * iou) in NAMED_IOUS}
    for t, key in named.items():
        values[key] = mean_there(precision[t, :, :, 0, -1])
    for a, size in enumerate(protocol.sizes, 1):
        values[f"AP_{size.name}"] = mean_there(precision[:, :, :, a, -1])
    for m, limit in enumerate(protocol.max_dets):
        values[f"AR{limit}"] = mean_there(recall[:, :, 0, m])
    for a, size in enumerate(protocol.sizes, 1):
        values[f"AR_{size.name}"] = mean_there(recall[:, :, a, -1])
    if protocol.ap_of_sizes_at_each_iou:
        for t, key in named.items():
            for a, size in enumerate(protocol.sizes, 1):
                values[f"{key}_{size.name}"] = mean_there(precision[t, :, :, a, -1])
    return values


def mean_there(values: NDArray[Any]) -> float | None:
    """Return the mean of all entries but -1, COCO's mark for 'no objects'; None if there are no others."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None
