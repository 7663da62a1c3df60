"""Regions to ignore: parts of an image where nothing is labeled, so that nothing found there counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.protocols import Protocol

HALF = 0.5  # a box with this share inside is dropped, where a protocol drops


def settle_regions(
    truth: GroundTruthColumns, detections: DetectionColumns, protocol: Protocol
) -> tuple[GroundTruthColumns, DetectionColumns]:
    """Return truth without regions, and detections, such that COCO's rules alone do what the protocol wants.

    VisDrone drops objects and detections half inside; elsewhere a region becomes a crowd of every class found
    in its image.
    """
    if not len(truth.region_image):
        return truth, detections
    if protocol.drops_in_regions:
        inside = inside_regions(truth, truth.image, truth.boxes_xyxy) >= HALF
        found_inside = inside_regions(truth, detections.image, detections.boxes_xyxy) >= HALF
        truth, detections = truth.select(~inside), detections.select(~found_inside)
    else:
        truth = _with_crowds(truth, detections)
    return replace(
        truth, region_image=truth.region_image[:0], regions_xyxy=truth.regions_xyxy[:0]
    ), detections


def inside_regions(truth: GroundTruthColumns, image: NDArray, boxes_xyxy: NDArray) -> NDArray[np.float64]:
    """(n,) share of each box that lies in the regions of its image, overlapping regions counted once."""
    share = np.zeros(len(boxes_xyxy))
    order = np.argsort(image, kind="stable")
    for number in np.unique(truth.region_image):
        low, high = np.searchsorted(image[order], [number, number + 1])
        rows = order[low:high]
        share[rows] = covered_share(boxes_xyxy[rows], truth.regions_xyxy[truth.region_image == number])
    return share


def covered_share(boxes_xyxy: NDArray, regions_xyxy: NDArray) -> NDArray[np.float64]:
    """Share of each box that lies in the union of regions: (n, 4) and (r, 4) -> (n,); 0 for an empty box."""
    x, y = np.unique(regions_xyxy[:, ::2]), np.unique(regions_xyxy[:, 1::2])
    left, top, right, bottom = regions_xyxy.T[:, :, None]
    in_x = (left <= x[:-1]) & (x[1:] <= right)  # (r, X) the region covers the strip between neighboring edges
    in_y = (top <= y[:-1]) & (y[1:] <= bottom)  # (r, Y)
    covered = (in_x[:, :, None] & in_y[:, None]).any(0)  # (X, Y)

    def overlap(low: NDArray, high: NDArray, edges: NDArray) -> NDArray:
        return np.clip(np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1]), 0, None)

    width, height = (
        overlap(boxes_xyxy[:, 0], boxes_xyxy[:, 2], x),
        overlap(boxes_xyxy[:, 1], boxes_xyxy[:, 3], y),
    )
    inside = ((width @ covered) * height).sum(1)
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    return np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)


def _with_crowds(truth: GroundTruthColumns, detections: DetectionColumns) -> GroundTruthColumns:
    """Add each region as a crowd of every class detected in its image."""
    num_classes = int(detections.classes.max(initial=0)) + 1
    pairs = np.unique(detections.image * num_classes + detections.classes)  # (image, class), ascending
    first, last = (np.searchsorted(pairs, (truth.region_image + step) * num_classes) for step in (0, 1))
    region = np.repeat(np.arange(len(truth.region_image)), last - first)
    within = np.arange(len(region)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
    classes = pairs[first[region] + within] % num_classes
    boxes = truth.regions_xyxy[region]
    return replace(
        truth,
        image=np.concatenate((truth.image, truth.region_image[region])),
        boxes_xyxy=np.concatenate((truth.boxes_xyxy, boxes)),
        classes=np.concatenate((truth.classes, classes)),
        areas=np.concatenate((truth.areas, (boxes[:, 2:] - boxes[:, :2]).prod(1))),
        crowd=np.concatenate((truth.crowd, np.ones(len(region), bool))),
    )
