"""How good are the detections? COCO's AP and AR for any data set, curves, errors by size; no torch needed."""

from utils.metrics.by_size import SizeCurves, size_curves
from utils.metrics.coco import Accumulated, Evaluator, error_gains
from utils.metrics.columns import Detections, GroundTruth
from utils.metrics.curves import ConfidenceCurves, confidence_curves, confusion_matrix
from utils.metrics.errors import Errors, find_errors
from utils.metrics.matching import Matching, match
from utils.metrics.protocols import PROTOCOLS, Protocol, SizeClass
from utils.metrics.regions import settle_regions
from utils.metrics.summary import Metrics, evaluate_detections

__all__ = [
    "PROTOCOLS",
    "Accumulated",
    "ConfidenceCurves",
    "Detections",
    "Errors",
    "Evaluator",
    "GroundTruth",
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
