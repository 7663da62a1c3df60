"""Accuracy over object size: curves over √area instead of a few size classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.coco import accumulate
from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.errors import BACKGROUND, KINDS, Errors
from engine.evaluation.metrics.protocols import Protocol, SizeClass
from engine.evaluation.metrics.summary import mean_there

STEPS = 2  # bins an octave: sides grow by √2
MISSED = "missed"


@dataclass(frozen=True)
class SizeCurves:
    """B bins of √area, px; NaN where there are no objects.

    An error counts in the bin of its object, a detection on background in the bin of its own size.
    """

    edges: NDArray[np.float64]  # (B + 1,)
    objects: NDArray[np.int64]  # (B,)
    ap: NDArray[np.float64]  # (B,) mean over the protocol's IoU thresholds
    ap50: NDArray[np.float64]  # (B,) at the threshold nearest to .5
    recall: NDArray[np.float64]  # (B,) the largest recall at that threshold, mean of the classes
    detected: NDArray[np.float64]  # (B,) share of the objects that are detected at the working confidence
    errors: dict[str, NDArray[np.int64]]  # of each kind (B,)

    @property
    def middles(self) -> NDArray[np.float64]:
        """(B,) middle of each bin on a logarithmic axis, px."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])


def size_bins(areas: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) px² -> (B + 1,) edges, px, in steps of √2, around all areas; at least one bin."""
    sides = np.sqrt(np.maximum(areas, 1.0)) if len(areas) else np.array([32.0])
    low = int(np.floor(STEPS * np.log2(sides.min()) + 1e-9))
    high = int(np.ceil(STEPS * np.log2(sides.max()) - 1e-9))
    return 2.0 ** (np.arange(low, max(high, low + 1) + 1) / STEPS)


def size_curves(
    ground_truth: GroundTruthColumns,
    detections: DetectionColumns,
    num_classes: int,
    protocol: Protocol,
    working: DetectionColumns,
    errors: Errors,
) -> SizeCurves:
    """Score each bin of sizes.

    Args:
        ground_truth: the objects, without regions to ignore.
        detections: all, for AP and recall.
        num_classes: of the data set.
        protocol: IoU thresholds and detection limit; its size classes are not used.
        working: the detections of at least the working confidence.
        errors: of `working`.
    """
    edges = size_bins(ground_truth.areas[~ground_truth.crowd])
    count = len(edges) - 1
    binned = Protocol(protocol.name, bin_classes(edges), protocol.max_dets[-1:], protocol.ious)
    result = accumulate(ground_truth, detections, num_classes, binned)
    precision, recall = result.precision[..., 1:, -1], result.recall[..., 1:, -1]  # without that of all sizes
    t = int(np.argmin(np.abs(np.array(protocol.ious) - 0.5)))

    bins = bin_of(ground_truth.areas, edges)
    objects = np.bincount(bins[~ground_truth.crowd], minlength=count)
    detected = np.bincount(bins[errors.detected], minlength=count)
    return SizeCurves(
        edges,
        objects,
        _means(precision),
        _means(precision[t]),
        _means(recall[t]),
        np.divide(detected, objects, out=np.full(count, np.nan), where=objects > 0),
        error_counts(errors, bins, bin_of(box_areas(working), edges), count),
    )


def bin_classes(edges: NDArray[Any]) -> tuple[SizeClass, ...]:
    """(B + 1,) edges, px -> B size classes; the first starts from 0.

    COCO's intervals include both ends, bins only their lower one.
    """
    ends = edges**2
    ends[0] = 0.0
    below = np.append(np.nextafter(ends[1:-1], 0), ends[-1])
    return tuple(SizeClass(str(i), *bounds) for i, bounds in enumerate(zip(ends[:-1], below, strict=True)))


def error_counts(
    errors: Errors, object_bin: NDArray[Any], detection_bin: NDArray[Any], count: int
) -> dict[str, NDArray[np.int64]]:
    """Count the errors of each kind, and the missed objects, in each of `count` bins.

    Args:
        errors: n objects, m detections.
        object_bin: (n,) bin of each object.
        detection_bin: (m,) bin of each detection, which counts for those on background.
        count: number of bins.
    """
    bins = np.where(errors.kind == BACKGROUND, detection_bin, np.append(object_bin, -1)[errors.near])
    counts = {name: np.bincount(bins[errors.kind == kind], minlength=count) for kind, name in KINDS.items()}
    return {**counts, MISSED: np.bincount(object_bin[errors.missed], minlength=count)}


def bin_of(areas: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) px² -> (n,) bin; areas outside the edges are in the first or last."""
    return np.clip(np.searchsorted(edges**2, areas, side="right") - 1, 0, len(edges) - 2)


def box_areas(detections: DetectionColumns) -> NDArray[np.float64]:
    """(m,) px²."""
    return detections.boxes_xywh[:, 2:].prod(1)


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """(..., B) -> (B,) mean of the entries of each bin that are there; NaN where none is."""
    means = [mean_there(values[..., bin_]) for bin_ in range(values.shape[-1])]
    return np.array([np.nan if mean is None else mean for mean in means])
