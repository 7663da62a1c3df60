"""How good are the detections for objects of each size? Curves over √area instead of three classes."""

from __future__ import annotations

from dataclasses import dataclass

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

    Errors are counted in the bin of the object they are about, false detections on background in their own.
    """

    edges: NDArray[np.float64]  # (B + 1,)
    objects: NDArray[np.int64]  # (B,)
    ap: NDArray[np.float64]  # (B,) mean over the protocol's IoU thresholds
    ap50: NDArray[np.float64]  # (B,) at the threshold nearest to .5
    recall: NDArray[np.float64]  # (B,) the largest reached at that threshold, mean of the classes
    found: NDArray[np.float64]  # (B,) share of the objects found at the working confidence
    errors: dict[str, NDArray[np.int64]]  # of each kind (B,)

    @property
    def middles(self) -> NDArray[np.float64]:
        """(B,) middle of each bin on a logarithmic axis, px."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])


def size_bins(areas: NDArray) -> NDArray[np.float64]:
    """(n,) px² -> (B + 1,) edges, px, in steps of √2, that hold every area; one bin at least."""
    sides = np.sqrt(np.maximum(areas, 1.0)) if len(areas) else np.array([32.0])
    low = int(np.floor(STEPS * np.log2(sides.min()) + 1e-9))
    high = int(np.ceil(STEPS * np.log2(sides.max()) - 1e-9))
    return 2.0 ** (np.arange(low, max(high, low + 1) + 1) / STEPS)


def size_curves(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    num_classes: int,
    protocol: Protocol,
    working: DetectionColumns,
    errors: Errors,
) -> SizeCurves:
    """Score each bin of sizes.

    Args:
        truth: the objects, without regions to ignore.
        detections: all of them, for AP and recall.
        num_classes: of the data set.
        protocol: IoU thresholds and detection limit; its size classes are not used.
        working: the detections of at least the working confidence.
        errors: theirs.
    """
    edges = size_bins(truth.areas[~truth.crowd])
    ends = edges**2
    ends[0] = 0.0
    below = np.append(np.nextafter(ends[1:-1], 0), ends[-1])  # COCO's intervals hold both ends, bins only one
    sizes = [SizeClass(str(i), *ends_of) for i, ends_of in enumerate(zip(ends[:-1], below, strict=True))]
    binned = Protocol(protocol.name, tuple(sizes), protocol.max_dets[-1:], protocol.ious)
    result = accumulate(truth, detections, num_classes, binned)
    t = int(np.argmin(np.abs(np.array(protocol.ious) - 0.5)))
    columns = range(1, len(edges))

    place = bin_of(truth.areas, edges)
    objects = np.bincount(place[~truth.crowd], minlength=len(sizes))
    hits = np.bincount(place[errors.found], minlength=len(sizes))
    return SizeCurves(
        edges,
        objects,
        np.array([_or_nan(result.precision[:, :, :, a, -1]) for a in columns]),
        np.array([_or_nan(result.precision[t, :, :, a, -1]) for a in columns]),
        np.array([_or_nan(result.recall[t, :, a, -1]) for a in columns]),
        np.divide(hits, objects, out=np.full(len(sizes), np.nan), where=objects > 0),
        error_counts(errors, place, bin_of(box_areas(working), edges), len(sizes)),
    )


def error_counts(
    errors: Errors, truth_place: NDArray, detection_place: NDArray, count: int
) -> dict[str, NDArray[np.int64]]:
    """Return how many errors of each kind, and missed objects, there are in each of `count` places.

    Args:
        errors: n objects, m detections.
        truth_place: (n,) place of each object.
        detection_place: (m,) place of each detection, used for those on background.
        count: of places.
    """
    place = np.where(errors.kind == BACKGROUND, detection_place, np.append(truth_place, -1)[errors.near])
    counts = {name: np.bincount(place[errors.kind == kind], minlength=count) for kind, name in KINDS.items()}
    return {**counts, MISSED: np.bincount(truth_place[errors.missed], minlength=count)}


def bin_of(areas: NDArray, edges: NDArray) -> NDArray[np.int64]:
    """(n,) px² -> (n,) bin; what lies outside is in the first or last."""
    return np.clip(np.searchsorted(edges**2, areas, side="right") - 1, 0, len(edges) - 2)


def box_areas(detections: DetectionColumns) -> NDArray[np.float64]:
    """(m,) px²."""
    return (detections.boxes_xyxy[:, 2:] - detections.boxes_xyxy[:, :2]).prod(1)


def _or_nan(values: NDArray) -> float:
    mean = mean_there(values)
    return np.nan if mean is None else mean
