"""The evaluator: detections from any source are scored, per tile and per full image, and summarized.

predictions = predict_loader(model, loader)        # or predict_full_images(...), or read_results(...)
result = evaluate(predictions, names)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from data.image_record import ImageRecord
from engine.evaluation.metrics import (
    PROTOCOLS,
    ConfidenceCurves,
    DetectionColumns,
    Evaluator,
    GroundTruthColumns,
    Matching,
    Metrics,
    OperatingPoint,
    Protocol,
    confidence_curves,
    evaluate_detections,
    match,
    operating_point,
    settle_regions,
)
from engine.evaluation.predictions import FirstBatch, Predictions
from engine.inference.merging.merge import MergeRule, merge_tiles
from utils.errors import UserError

MATCH_IOU = 0.5  # from which a detection matches an object, in curves, P, R and errors


@dataclass(frozen=True)
class Scoring:
    """How detections are scored.

    Attributes:
        protocol: size classes, IoU thresholds and limits.
        max_dets: detection limits; None is the protocol's and, for full images of tiled data, the
            largest number of objects in one of them, if that is more.
        evaluator: the implementation of COCO's evaluation.
        merge: how detections of tiles become those of the full image.
    """

    protocol: Protocol = PROTOCOLS["coco"]
    max_dets: Sequence[int] | None = None
    evaluator: Evaluator = "hotcoco"
    merge: MergeRule = field(default_factory=MergeRule)


@dataclass(frozen=True, eq=False)
class ScoringResult:
    """Ground truth, detections and metrics of some records: images, or tiles of them."""

    records: list[ImageRecord]
    predicted: DetectionColumns  # all of them, in pixels of the records
    ground_truth: GroundTruthColumns  # as scored: regions to ignore are crowds, or have dropped their boxes
    detections: DetectionColumns  # as scored
    metrics: Metrics

    @cached_property
    def matching(self) -> Matching:
        """Which object each detection matches, by class, at an IoU of .5."""
        return match(self.ground_truth, self.detections, MATCH_IOU)

    @cached_property
    def curves(self) -> ConfidenceCurves:
        """Precision and recall of each class over confidence."""
        num_classes = len(self.metrics.names)
        return confidence_curves(self.ground_truth, self.detections, self.matching, num_classes)

    @property
    def operating_point(self) -> OperatingPoint:
        """Precision, recall and F1 of each class where the mean F1 is best."""
        return operating_point(self.curves)


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The metrics of an evaluation and what they were computed from."""

    inputs: ScoringResult  # the inputs of the network: full images, or tiles
    merged: ScoringResult | None  # of tiled data: the full images, with the detections of their tiles merged
    seconds: dict[str, float]  # of each stage, on average per input; {} where nothing ran
    first_batch: FirstBatch | None  # None where nothing ran

    @property
    def metrics(self) -> Metrics:
        """Metrics of the inputs."""
        return self.inputs.metrics

    @property
    def full_images(self) -> ScoringResult:
        """The images as they are on disk, whether the network took them whole or in tiles."""
        return self.merged or self.inputs

    @property
    def fitness(self) -> float:
        """0.1·AP50 + 0.9·AP of the inputs, which training maximizes."""
        return self.metrics.fitness


def evaluate(
    predictions: Predictions, names: Sequence[str], scoring: Scoring | None = None
) -> EvaluationResult:
    """Score predictions and, if they are of tiles, those of the full images as well.

    Images are scored in the order of their ids, whatever order they come in: it decides which of two equal
    scores counts first, and COCO's evaluation takes them so.

    Args:
        predictions: of full images or tiles, from any source.
        names: the classes.
        scoring: how they are scored; None is COCO's protocol.

    Raises:
        UserError: none of the images could be read.
    """
    scoring = scoring or Scoring()
    if not predictions.records:
        raise UserError("none of the images could be read")
    predictions = predictions.by_image_id()
    inputs = score_records(predictions.records, predictions.detections, names, scoring)
    merged = None
    if any(record.tile for record in predictions.records):
        images, detections = merge_predictions(predictions, scoring.merge)
        limits = scoring.max_dets or full_image_limits(images, scoring.protocol)
        merged = score_records(images, detections, names, scoring, limits)
    return EvaluationResult(inputs, merged, predictions.seconds, predictions.first_batch)


def merge_predictions(
    predictions: Predictions, rule: MergeRule
) -> tuple[list[ImageRecord], DetectionColumns]:
    """Merge the detections of each image's tiles; an image with a tile that could not be read is left out.

    Returns:
        The full images and their detections.
    """
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


def score_records(
    records: Sequence[ImageRecord],
    predicted: DetectionColumns,
    names: Sequence[str],
    scoring: Scoring,
    max_dets: Sequence[int] | None = None,
) -> ScoringResult:
    """Score the detections of records.

    Args:
        records: images, or tiles of them.
        predicted: their detections; image numbers are positions in `records`.
        names: the classes.
        scoring: how they are scored.
        max_dets: detection limits; None is those of `scoring`.
    """
    ground_truth, detections = settle_regions(ground_truth_of(records), predicted, scoring.protocol)
    limits = max_dets or scoring.max_dets
    metrics = evaluate_detections(
        ground_truth, detections, names, scoring.protocol, limits, scoring.evaluator
    )
    return ScoringResult(list(records), predicted, ground_truth, detections, metrics)


def ground_truth_of(records: Iterable[ImageRecord]) -> GroundTruthColumns:
    """Return the ground truth of records as columns."""
    fields = ("boxes_xywh", "classes", "areas", "crowd", "ignore")
    records = list(records)
    return GroundTruthColumns.stack_xywh(
        *([getattr(record, field) for record in records] for field in fields)
    )


def full_image_limits(
    images: Sequence[ImageRecord], protocol: Protocol = PROTOCOLS["coco"]
) -> tuple[int, ...]:
    """Return the protocol's detection limits and, if it is larger, the most objects in an image."""
    limits = protocol.max_dets
    most = max((int((~image.crowd).sum()) for image in images), default=0)
    return (*limits, most) if most > limits[-1] else limits
