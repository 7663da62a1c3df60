"""The evaluator: whatever the detections came from, tiles are merged, scored and summarized here.

predictions = predict_loader(model, loader)        # or predict_full_images(...), or read_results(...)
result = evaluate(predictions, names)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from data.detection.image_record import ImageRecord
from engine.evaluation.metrics import (
    PROTOCOLS,
    DetectionColumns,
    Evaluator,
    GroundTruthColumns,
    Metrics,
    Protocol,
    evaluate_detections,
    settle_regions,
)
from engine.evaluation.predictions import FirstBatch, Predictions
from engine.inference.merging.merge import MergeRule, merge_tiles
from utils.errors import UserError


@dataclass(frozen=True)
class Scoring:
    """How detections are scored.

    Attributes:
        protocol: size classes, IoU thresholds and limits.
        max_dets: detection limits instead of the protocol's. Without them, full images of tiled data get one
            more limit, as many detections as the fullest holds objects, if that is more than the protocol's.
        evaluator: which implementation of COCO's evaluation.
        merge: how detections of tiles become those of the full image.
    """

    protocol: Protocol = PROTOCOLS["coco"]
    max_dets: Sequence[int] | None = None
    evaluator: Evaluator = "hotcoco"
    merge: MergeRule = field(default_factory=MergeRule)


@dataclass(frozen=True)
class ScoringResult:
    """Ground truth, detections and metrics of some records: images, or tiles of them."""

    records: list[ImageRecord]
    predicted: DetectionColumns  # everything, in pixels of the records
    truth: GroundTruthColumns  # as scored: regions to ignore are crowds, or what lies in them is gone
    detections: DetectionColumns  # as scored
    metrics: Metrics


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` returns."""

    inputs: ScoringResult  # as the network sees them: full images, or tiles
    merged: ScoringResult | None  # tiled data: the full images, detections of their tiles merged
    seconds: dict[str, float]  # "inference" and "nms" of an input, on average; empty where nothing ran
    first_batch: FirstBatch | None  # None where nothing ran

    @property
    def metrics(self) -> Metrics:
        """Of the inputs."""
        return self.inputs.metrics

    @property
    def full_images(self) -> ScoringResult:
        """The images as they are on disk, whether the network saw them whole or in tiles."""
        return self.merged or self.inputs

    @property
    def fitness(self) -> float:
        """Of the inputs: 0.1·AP50 + 0.9·AP."""
        return self.metrics.fitness


def evaluate(
    predictions: Predictions, names: Sequence[str], scoring: Scoring | None = None
) -> EvaluationResult:
    """Score predictions and, where they are of tiles, those of the full images as well.

    Args:
        predictions: of the network's inputs, from any source.
        names: the classes.
        scoring: how; None is COCO's way.

    Raises:
        UserError: none of the images could be read.
    """
    scoring = scoring or Scoring()
    if not predictions.records:
        raise UserError("none of the images could be read")
    inputs = score(predictions.records, predictions.detections, names, scoring)
    merged = None
    if any(record.tile for record in predictions.records):
        images, detections = merge_predictions(predictions, scoring.merge)
        limits = scoring.max_dets or full_image_limits(images, scoring.protocol)
        merged = score(images, detections, names, scoring, limits)
    return EvaluationResult(inputs, merged, predictions.seconds, predictions.first_batch)


def merge_predictions(
    predictions: Predictions, rule: MergeRule
) -> tuple[list[ImageRecord], DetectionColumns]:
    """Merge the detections of the tiles of each image; an image with an unread tile is left out."""
    incomplete = {id(record.parent or record) for record in predictions.unread}
    members: dict[int, list[int]] = {}
    images: dict[int, ImageRecord] = {}
    for number, record in enumerate(predictions.records):
        image = record.parent or record
        if id(image) not in incomplete:
            images[id(image)] = image
            members.setdefault(id(image), []).append(number)
    per_input = predictions.detections.per_image()
    merged = []
    for numbers in members.values():
        records = [predictions.records[number] for number in numbers]
        tiles_xyxy = [record.tile or (0, 0, record.width, record.height) for record in records]
        merged.append(merge_tiles([per_input[number] for number in numbers], tiles_xyxy, rule))
    return list(images.values()), DetectionColumns.of_images(merged)


def score(
    records: Sequence[ImageRecord],
    predicted: DetectionColumns,
    names: Sequence[str],
    scoring: Scoring,
    max_dets: Sequence[int] | None = None,
) -> ScoringResult:
    """Score the detections of `records`, numbered in their order."""
    truth, detections = settle_regions(ground_truth_of(records), predicted, scoring.protocol)
    limits = max_dets or scoring.max_dets
    metrics = evaluate_detections(truth, detections, names, scoring.protocol, limits, scoring.evaluator)
    return ScoringResult(list(records), predicted, truth, detections, metrics)


def ground_truth_of(records: Iterable[ImageRecord]) -> GroundTruthColumns:
    """Return the ground truth of some records as columns."""
    fields = ("boxes_xyxy", "classes", "areas", "crowd", "ignore")
    records = list(records)
    return GroundTruthColumns.stack(*([getattr(record, field) for record in records] for field in fields))


def full_image_limits(
    images: Sequence[ImageRecord], protocol: Protocol = PROTOCOLS["coco"]
) -> tuple[int, ...]:
    """Return the protocol's detection limits and, if it is larger, the objects in the fullest image."""
    limits = protocol.max_dets
    fullest = max((int((~image.crowd).sum()) for image in images), default=0)
    return (*limits, fullest) if fullest > limits[-1] else limits
