"""How good are the detections? COCO's AP and AR for any data set, curves, errors by size; no torch needed."""

from engine.evaluation.metrics.by_size import SizeCurves, size_curves
from engine.evaluation.metrics.coco import Accumulated, Evaluator, error_gains
from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.curves import ConfidenceCurves, confidence_curves, confusion_matrix
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
    "Protocol",
    "SizeClass",
    "SizeCurves",
    "confidence_curves",
    "confusion_matrix",
    "error_gains",
    "evaluate_detections",
    "find_errors",
    "match",
    "settle_regions",
    "size_curves",
]
