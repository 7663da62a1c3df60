"""Regions to ignore: parts of an image that are not labeled, so that detections there do not count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.protocols import Protocol
from utils.overlap import xywh_of

HALF = 0.5  # share of a box inside from which a protocol that drops boxes drops it


def settle_regions(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, protocol: Protocol
) -> tuple[GroundTruthColumns, DetectionColumns]:
    """Turn regions into what COCO's rules know, as the protocol says; return ground truth and detections.

    VisDrone drops objects and detections that lie half inside; elsewhere a region becomes a crowd of every
    class that is detected in its image.
    """
    if not len(ground_truth.region_image):
        return ground_truth, detections
    if protocol.drops_in_regions:
        inside = inside_regions(ground_truth, ground_truth.image, ground_truth.boxes_xyxy) >= HALF
        detection_inside = inside_regions(ground_truth, detections.image, detections.boxes_xyxy) >= HALF
        ground_truth, detections = ground_truth.select(~inside), detections.select(~detection_inside)
    else:
        ground_truth = _with_crowds(ground_truth, detections)
    return replace(
        ground_truth, region_image=ground_truth.region_image[:0], regions_xyxy=ground_truth.regions_xyxy[:0]
    ), detections


def inside_regions(
    ground_truth: GroundTruthColumns, image: NDArray[Any], boxes_xyxy: NDArray[Any]
) -> NDArray[np.float64]:
    """(n,) share of each box that lies in the regions of its image, overlapping regions counted once."""
    share = np.zeros(len(boxes_xyxy))
    order = np.argsort(image, kind="stable")
    for number in np.unique(ground_truth.region_image):
        low, high = np.searchsorted(image[order], [number, number + 1])
        rows = order[low:high]
        share[rows] = covered_share(
            boxes_xyxy[rows], ground_truth.regions_xyxy[ground_truth.region_image == number]
        )
    return share


def covered_share(boxes_xyxy: NDArray[Any], regions_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """Share of each box that lies in the union of regions: (n, 4) and (r, 4) -> (n,); 0 for an empty box."""
    x, y = np.unique(regions_xyxy[:, ::2]), np.unique(regions_xyxy[:, 1::2])
    left, top, right, bottom = regions_xyxy.T[:, :, None]
    in_x = (left <= x[:-1]) & (x[1:] <= right)  # (r, X) the region covers the strip between neighboring edges
    in_y = (top <= y[:-1]) & (y[1:] <= bottom)  # (r, Y)
    covered = (in_x[:, :, None] & in_y[:, None]).any(0)  # (X, Y)

    def overlap(low: NDArray[Any], high: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
        return np.clip(np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1]), 0, None)

    width, height = (
        overlap(boxes_xyxy[:, 0], boxes_xyxy[:, 2], x),
        overlap(boxes_xyxy[:, 1], boxes_xyxy[:, 3], y),
    )
    inside = ((width @ covered) * height).sum(1)
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    return np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)


def _with_crowds(ground_truth: GroundTruthColumns, detections: DetectionColumns) -> GroundTruthColumns:
    """Add each region as a crowd of every class detected in its image."""
    num_classes = int(detections.classes.max(initial=0)) + 1
    pairs = np.unique(detections.image * num_classes + detections.classes)  # (image, class), ascending
    first, last = (
        np.searchsorted(pairs, (ground_truth.region_image + step) * num_classes) for step in (0, 1)
    )
    region = np.repeat(np.arange(len(ground_truth.region_image)), last - first)
    within = np.arange(len(region)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
    classes = pairs[first[region] + within] % num_classes
    boxes_xywh = xywh_of(ground_truth.regions_xyxy[region])
    return replace(
        ground_truth,
        image=np.concatenate((ground_truth.image, ground_truth.region_image[region])),
        boxes_xywh=np.concatenate((ground_truth.boxes_xywh, boxes_xywh)),
        classes=np.concatenate((ground_truth.classes, classes)),
        areas=np.concatenate((ground_truth.areas, boxes_xywh[:, 2:].prod(1))),
        crowd=np.concatenate((ground_truth.crowd, np.ones(len(region), bool))),
    )
