"""Metrics of detections: COCO's AP and AR, curves, errors, accuracy by size; torch is not needed."""

from engine.evaluation.metrics.by_size import SizeCurves, size_curves
from engine.evaluation.metrics.coco import Accumulated, Evaluator, error_gains
from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.curves import (
    ConfidenceCurves,
    OperatingPoint,
    confidence_curves,
    confusion_matrix,
    operating_point,
)
from engine.evaluation.metrics.errors import Errors, find_errors
from engine.evaluation.metrics.matching import Matching, match
from engine.evaluation.metrics.protocols import PROTOCOLS, Protocol, SizeClass
from engine.evaluation.metrics.regions import settle_regions
from engine.evaluation.metrics.summary import Metrics, evaluate_detections

__all__ = [
    "PROTOCOLS",
    "Accumulated",
    "ConfidenceCurves",
    "DetectionColumns",
    "Errors",
    "Evaluator",
    "GroundTruthColumns",
    "Matching",
    "Metrics",
    "OperatingPoint",
    "Protocol",
    "SizeClass",
    "SizeCurves",
    "confidence_curves",
    "confusion_matrix",
    "error_gains",
    "evaluate_detections",
    "find_errors",
    "match",
    "operating_point",
    "settle_regions",
    "size_curves",
]
