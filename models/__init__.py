"""Detectors and classifiers; names are imported at their first use, so that `import models` costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.build import build_model
    from models.classification.model import ClassificationModel
    from models.detection_model import DetectionModel
    from models.fuse import fuse_detector
    from models.load import load_model, transfer_weights
    from models.surgery import replace_downsampling

_HOMES = {
    "build_model": "models.build",
    "ClassificationModel": "models.classification.model",
    "DetectionModel": "models.detection_model",
    "fuse_detector": "models.fuse",
    "load_model": "models.load",
    "replace_downsampling": "models.surgery",
    "transfer_weights": "models.load",
}

__all__ = [
    "ClassificationModel",
    "DetectionModel",
    "build_model",
    "fuse_detector",
    "load_model",
    "replace_downsampling",
    "transfer_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
