"""How good are the detections? COCO's AP and AR for any data set, curves and confusion; no torch needed."""

from utils.metrics.coco import Accumulated, Evaluator
from utils.metrics.columns import Detections, GroundTruth
from utils.metrics.curves import ConfidenceCurves, confidence_curves, confusion_matrix
from utils.metrics.matching import Matching, match
from utils.metrics.protocols import PROTOCOLS, Protocol, SizeClass
from utils.metrics.summary import Metrics, evaluate_detections

__all__ = [
    "PROTOCOLS",
    "Accumulated",
    "ConfidenceCurves",
    "Detections",
    "Evaluator",
    "GroundTruth",
    "Matching",
    "Metrics",
    "Protocol",
    "SizeClass",
    "confidence_curves",
    "confusion_matrix",
    "evaluate_detections",
    "match",
]
