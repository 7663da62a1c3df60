"""Inference: the Python API, the pipeline from images to detections, tiling, tracking, outputs."""

from engine.inference.classifier import Classifier, ClassProbabilities
from engine.inference.detector import Detector

__all__ = ["ClassProbabilities", "Classifier", "Detector"]
